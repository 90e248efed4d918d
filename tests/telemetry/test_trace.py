"""The outermost layer: ids taken over or made, in every answer; requests counted by route and never by path."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.telemetry import logs
from atoll.telemetry.metrics import Metrics
from atoll.telemetry.trace import Tracing, trace_of


async def answered(
    monkeypatch: pytest.MonkeyPatch, headers: list[tuple[bytes, bytes]], kind: str = "http", fail: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]], Metrics]:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(logs, "request", lines.append)
    metrics, sent = Metrics(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trace_of(scope).route = "/v1/things/{id}"
        if fail:
            raise RuntimeError
        start = "http.response.start" if kind == "http" else "websocket.accept"
        await send({"type": start, "status": 201, "headers": [(b"a", b"b")]})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any: ...

    scope = {"type": kind, "method": "POST", "headers": headers, "path": "/v1/things/17"}
    try:
        await Tracing(app, metrics)(scope, receive, send)
    except RuntimeError:
        assert fail
    return (sent or [{}])[0], lines, metrics


@pytest.mark.parametrize("good", [b"abc-1_2.3:4", b"x", b"y" * 64])
async def test_a_well_formed_id_is_taken_over(monkeypatch: pytest.MonkeyPatch, good: bytes) -> None:
    sent, lines, _ = await answered(monkeypatch, [(b"x-request-id", good)])
    assert (b"x-request-id", good) in sent["headers"] and (b"a", b"b") in sent["headers"]
    assert lines[0]["request_id"] == good.decode()


@pytest.mark.parametrize("bad", [b"", b"a b", b"a\r\nset-cookie: x", b"z" * 65, b"\xff", b"<script>"])
async def test_another_is_replaced(monkeypatch: pytest.MonkeyPatch, bad: bytes) -> None:
    sent, lines, _ = await answered(monkeypatch, [(b"x-request-id", bad)])
    made = dict(sent["headers"])[b"x-request-id"]
    assert made != bad and len(made) == 16
    assert lines[0]["request_id"] == made.decode()


async def test_a_request_is_counted_by_its_template(monkeypatch: pytest.MonkeyPatch) -> None:
    _, lines, metrics = await answered(monkeypatch, [])
    assert b'http_requests_total{method="POST",path="/v1/things/{id}",status="201"} 1.0' in metrics.render()
    assert (lines[0]["route"], lines[0]["status"]) == ("/v1/things/{id}", 201)


async def test_a_websocket_is_counted_once_at_its_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, metrics = await answered(monkeypatch, [], kind="websocket")
    assert b'http_requests_total{method="WEBSOCKET",path="/v1/things/{id}",status="201"} 1.0' in metrics.render()


async def test_a_failure_is_counted_as_a_500(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, metrics = await answered(monkeypatch, [], fail=True)
    assert b'status="500"} 1.0' in metrics.render()
