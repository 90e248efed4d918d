"""Logs: whole lines, one form for all who write, and never a credential (O6)."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from atoll.telemetry import logs

KEY = "sk_" + "5e" * 32


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    yield
    structlog.configure(**configured)
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = handlers, level
    logs._requests = None


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_writer_gets_the_same_form_with_the_bound_ids() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    structlog.contextvars.bind_contextvars(request_id="r1")
    structlog.get_logger().info("made", sandbox_id="sess_1")
    logging.getLogger("somewhere").error("standard %s", "library")
    logs.request({"request_id": "r1", "status": 200})
    made, standard, request = lines(stream)
    assert (made["event"], made["level"], made["request_id"], made["sandbox_id"]) == ("made", "info", "r1", "sess_1")
    assert (standard["event"], standard["level"], standard["request_id"]) == ("standard library", "error", "r1")
    assert (request["event"], request["status"]) == ("request", 200)
    assert all("timestamp" in line for line in (made, standard, request))


def test_levels_hold_for_requests_too() -> None:
    stream = io.StringIO()
    logs.configure("json", "warning", stream)
    structlog.get_logger().info("not this")
    logs.request({"status": 200})
    structlog.get_logger().warning("this")
    assert [line["event"] for line in lines(stream)] == ["this"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_o6_no_credential_is_written_wherever_it_stands(form: logs.Format) -> None:
    stream = io.StringIO()
    logs.configure(form, "info", stream)
    log = structlog.get_logger()
    log.info("x", api_key=KEY, authorization=f"Bearer {KEY}", env={"A": "hunter2"}, note=f"with {KEY} inside")
    log.info(f"curl -H 'Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.payload.sig' {KEY}")
    try:
        raise ValueError(f"bad key {KEY}")
    except ValueError:
        log.exception("failed")
    logging.getLogger("library").error("header: Bearer %s", KEY)
    written = stream.getvalue()
    assert KEY not in written and "5e5e5e" not in written
    assert "hunter2" not in written and "payload" not in written
    assert logs.MASK in written and "ValueError" in written


def test_a_reader_that_went_away_fails_nobody() -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    logs.configure("json", "info", Gone())
    structlog.get_logger().info("to nobody")
    logs.request({"status": 200})
    logging.getLogger("x").error("to nobody")


def test_auto_is_text_only_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, is_json in ((io.StringIO(), True), (Terminal(), False)):
        logs.configure("auto", "info", stream)
        structlog.get_logger().info("x")
        logs.request({"status": 200})
        assert all(line.startswith("{") is is_json for line in stream.getvalue().splitlines())
        assert len(stream.getvalue().splitlines()) == 2


def test_a_query_string_of_a_websocket_is_not_logged() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    logging.getLogger("uvicorn.error").info('"WebSocket /v1/sessions/x/exec?env=TOKEN=hunter2" [accepted]')
    assert stream.getvalue() == ""


def test_a_key_with_a_prefix_of_its_makers_is_masked_and_an_id_is_not() -> None:
    line = f"key tb_user_{'a1' * 32} of workspace ws_{'b2' * 16}"
    assert logs.mask(line) == f"key tb_user_{logs.MASK} of workspace ws_{'b2' * 16}"


@pytest.mark.parametrize("form", ["json", "text"])
def test_o6_a_fault_is_told_without_the_values_of_its_variables(form: logs.Format) -> None:
    stream = io.StringIO()
    logs.configure(form, "info", stream)

    def fail(value: str) -> None:
        assert value
        raise ValueError("broken")

    try:
        fail("a-tenants-" + "own-value")
    except ValueError:
        structlog.get_logger().exception("fault")
    told = stream.getvalue()
    assert "ValueError: broken" in told
    assert "in fail" in told
    assert "a-tenants-own-value" not in told
