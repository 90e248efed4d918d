"""Traces: from the request to the process, as a collector is told of them; and nothing at all where they are off."""

from __future__ import annotations

import asyncio
import builtins
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from atoll.domain.errors import InvalidInput
from atoll.settings import Settings
from atoll.telemetry import spans
from tests.surfaces.conftest import ALICE, House, Opener, open_house  # noqa: F401
from tests.telemetry.collector import Collector, collecting

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SHOW = ["sh", "-c", "echo $TRACEPARENT"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def to(collector: Collector, **more: Any) -> dict[str, Any]:
    return {"enabled": True, "endpoint": collector.url, **more}


async def seen(house: House, **more: Any) -> str:
    """The TRACEPARENT that a command has."""
    made = await house.create()
    body = {"command": SHOW, **more.pop("json", {})}
    answer = await house.call("POST", f"/v1/sessions/{made['id']}/exec", json=body, **more)
    return answer.json()["stdout"].strip()


async def main_saw(house: House, **more: Any) -> str:
    """The TRACEPARENT that a main command has."""
    made = await house.create(command=SHOW, **more)
    path = f"/v1/sessions/{made['id']}/logs"
    async with asyncio.timeout(10):
        while not (said := (await house.call("GET", path)).text.strip()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return said


async def test_a_request_its_services_and_its_process_are_one_trace(
    open_house: Opener,  # noqa: F811
    collector: Collector,
) -> None:
    async with open_house(traces=to(collector, headers="x-key=hidden", service_name="here")) as house:
        traceparent = await seen(house)
    made, exec_ = collector.named("POST /v1/sessions")[0], collector.named("POST /v1/sessions/{id}/exec")[0]
    [create], [run] = collector.named("sandbox.create"), collector.named("process.run")
    assert (create.trace, create.parent) == (made.trace, made.id)
    assert (run.trace, run.parent) == (exec_.trace, exec_.id) and exec_.trace != made.trace
    assert traceparent == f"00-{run.trace}-{run.id}-01"
    assert exec_.attributes.items() >= {
        "http.request.method": "POST", "http.route": "/v1/sessions/{id}/exec", "http.response.status_code": 200,
    }.items()  # fmt: skip
    assert create.attributes["atoll.sandbox_id"] == run.attributes["atoll.sandbox_id"]
    assert collector.resource()["service.name"] == "here"
    assert collector.paths == {"/v1/traces"} and collector.headers[0]["x-key"] == "hidden"


async def test_the_main_command_is_a_part_of_the_request_that_made_its_sandbox(
    open_house: Opener,  # noqa: F811
    collector: Collector,
) -> None:
    async with open_house(traces=to(collector)) as house:
        assert (one := await main_saw(house)).startswith("00-")
        assert await main_saw(house, env={"TRACEPARENT": "own"}) == "own"
    begun, create = collector.named("process.start")[0], collector.named("sandbox.create")[0]
    assert (begun.trace, begun.parent) == (create.trace, create.id)
    assert one == f"00-{begun.trace}-{begun.id}-01"
    assert begun.attributes["atoll.sandbox_id"] == create.attributes["atoll.sandbox_id"]


async def test_a_trusted_callers_trace_goes_on_and_nobody_elses(
    open_house: Opener,  # noqa: F811
    collector: Collector,
) -> None:
    headers = {"headers": {"traceparent": PARENT}}
    async with open_house(traces=to(collector)) as house:
        assert (await seen(house, **headers)).startswith(f"00-{TRACE}-")
    [exec_] = collector.named("POST /v1/sessions/{id}/exec")
    assert (exec_.trace, exec_.parent) == (TRACE, SPAN)
    async with open_house(traces=to(collector, trusted=["10.0.0.0/8"])) as house:
        assert TRACE not in await seen(house, **headers)
    assert collector.named("POST /v1/sessions/{id}/exec")[1].parent == ""


async def test_a_caller_who_does_not_sample_is_not_traced(
    open_house: Opener,  # noqa: F811
    collector: Collector,
) -> None:
    async with open_house(traces=to(collector)) as house:
        traceparent = await seen(house, headers={"traceparent": PARENT[:-1] + "0"})
    assert traceparent.startswith(f"00-{TRACE}-") and traceparent.endswith("-00")
    assert collector.named("POST /v1/sessions/{id}/exec") == []
    assert len(collector.named("POST /v1/sessions")) == 1


async def test_a_task_and_its_program_are_parts_of_what_asked_for_it(
    open_house: Opener,  # noqa: F811
    collector: Collector,
) -> None:
    async with open_house(traces=to(collector)) as house:
        await house.app.ledger.credit(house.keys.principals[ALICE], "key_a11ce0000000", 10_000_000)
        body = {"task": "t", "workspaceId": "w", "agent": "command", "command": SHOW}
        answer = await house.call("POST", "/execute", json=body)
        assert answer.status_code == 200, answer.text
    [request], [task] = collector.named("POST /execute"), collector.named("task")
    starts = [one for one in collector.named("process.start") if one.parent == task.id]
    assert (task.trace, task.parent) == (request.trace, request.id)
    assert task.attributes["atoll.agent"] == "command" and task.attributes["atoll.task_end"] == "done"
    assert f"00-{task.trace}-{starts[-1].id}-01" in answer.text
    assert {one.name for one in collector.spans() if one.trace == task.trace} >= {"sandbox.create", "workspace.revise"}


async def test_no_secret_no_path_and_no_content_is_told(
    open_house: Opener,  # noqa: F811
    collector: Collector,
) -> None:
    async with open_house(traces=to(collector)) as house:
        made = await house.create(env={"TOKEN": "canary-env"})
        await house.exec(made["id"], ["echo", "canary-argument"], env={"KEY": "canary-variable"})
        path = f"/v1/sessions/{made['id']}/files?path=/tmp/canary-path"
        await house.call("POST", path, content=b"canary-content")
        await house.call("GET", "/canary-route?api_key=canary-query", headers={"cookie": "a=canary-cookie"})
        await house.call("POST", f"/v1/sessions/{made['id']}/exec", json={"command": ["canary-missing"], "workDir": 5})
    told = b"".join(collector.bodies)
    assert b"canary" not in told and ALICE.encode() not in told
    assert {one.attributes["http.route"] for one in collector.named("GET unmatched")} == {"unmatched"}


async def test_what_fails_says_what_kind_of_fault_it_was(
    open_house: Opener,  # noqa: F811
    collector: Collector,
) -> None:
    async with open_house(traces=to(collector)) as house:
        assert (await house.call("GET", "/metrics")).status_code == 200
        await house.call("POST", "/v1/sessions/sess_000000000000/exec", json={"command": ["true"]})
    [run] = collector.named("process.run")
    assert run.failed and run.attributes["error.type"] == "not_found"
    assert collector.named("GET /metrics") == []  # machines ask for it every few seconds


@pytest.mark.parametrize("collector_is", ["gone", "failing"])
async def test_a_dead_collector_costs_nothing_but_what_it_was_to_be_told(
    open_house: Opener,  # noqa: F811
    collector: Collector,
    collector_is: str,
) -> None:
    collector.status = 400
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{found.getsockname()[1]}"
    endpoint = nobody if collector_is == "gone" else collector.url
    async with open_house(traces={"enabled": True, "endpoint": endpoint, "queue_spans": 64, "timeout_s": 1}) as house:
        for _ in range(100):  # more than wait
            assert (await house.call("GET", "/v1/sessions")).status_code == 200
    failed = house.app.metrics.registry.get_sample_value("trace_spans_total", {"outcome": "failed"})
    assert failed is not None and 0 < failed <= 200
    assert house.app.metrics.registry.get_sample_value("trace_spans_total", {"outcome": "exported"}) is None


async def test_spans_that_find_the_queue_full_are_counted_and_told_once(
    open_house: Opener,  # noqa: F811
    collector: Collector,
) -> None:
    collector.taking.clear()
    with capture_logs() as lines:
        async with open_house(traces=to(collector, queue_spans=64)) as house:
            for _ in range(200):
                assert (await house.call("GET", "/v1/sessions")).status_code == 200
            dropped = house.app.metrics.registry.get_sample_value("trace_spans_total", {"outcome": "dropped"})
            collector.taking.set()
    assert dropped is not None and 200 - 3 * 64 <= dropped <= 200 - 64
    assert len(collector.named("GET /v1/sessions")) + dropped == 200
    assert [(one["event"], one["spans"]) for one in lines if one["log_level"] == "warning"] == [("traces.not_sent", 1)]


async def test_what_a_client_leaves_is_cut_short_and_no_error(
    open_house: Opener,  # noqa: F811
    collector: Collector,
) -> None:
    async with open_house(traces=to(collector)) as house:
        made = await house.create()
        leaving = asyncio.create_task(house.exec(made["id"], ["sleep", "60"]))
        async with asyncio.timeout(5):
            while not (await house.call("GET", f"/v1/sessions/{made['id']}/processes")).json()["processes"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait([leaving])
    [run], [request] = collector.named("process.run"), collector.named("POST /v1/sessions/{id}/exec")
    assert (run.failed, run.attributes.get("atoll.cut_short"), "error.type" in run.attributes) == (False, True, False)
    assert (request.failed, request.attributes["http.response.status_code"]) == (False, 499)


async def test_without_traces_nothing_is_loaded_and_a_caller_s_word_is_handed_on(open_house: Opener) -> None:  # noqa: F811
    async with open_house() as house:
        assert house.app.traces is None
        assert await seen(house) == "$TRACEPARENT"  # which the fake shell leaves as it is
        assert await seen(house, headers={"traceparent": PARENT}) == PARENT
        assert await seen(house, headers={"traceparent": "00-nonsense"}) == "$TRACEPARENT"
        own = {"json": {"env": {"TRACEPARENT": "own"}}}
        assert await seen(house, headers={"traceparent": PARENT}, **own) == "own"
    assert spans.span("anything") is spans.span("else")
    assert spans.apart() is None


def test_without_the_libraries_the_settings_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from atoll.adapters import open_traces
    from atoll.telemetry.metrics import Metrics

    loaded = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return loaded(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    settings = Settings.model_validate({"traces": {"enabled": True}})
    with pytest.raises(InvalidInput, match=r"pip install '\.\[otel\]'"):
        open_traces(settings, "1", Metrics().registry)


@pytest.mark.parametrize(
    ("header", "parent"),
    [
        (PARENT, PARENT),
        (f"01-{TRACE}-{SPAN}-01-more", PARENT),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-{SPAN}-01", ""),
        (f"00-{TRACE}-{SPAN}", ""),
        (PARENT + "-" + "x" * 100, ""),
        ("", ""),
    ],
)
def test_a_traceparent_is_read_as_w3c_writes_it(header: str, parent: str) -> None:
    assert spans.parent_of(header.encode()) == parent
