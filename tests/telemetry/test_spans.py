"""Spans travel with the work: into calls of models by their task, and not into what goes on when they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from atoll.services.background import Background
from atoll.telemetry import otlp, spans
from atoll.telemetry.otlp import Traces
from tests.gateway.models import TASK, gateway
from tests.telemetry.collector import Collector, collecting


@pytest.fixture
async def traced() -> AsyncIterator[tuple[Traces, Collector]]:
    with collecting() as collector:
        traces = Traces(collector.url, service_name="atoll", version="1")
        with spans.current(traces):
            yield traces, collector
        await traces.close(3)


async def test_a_call_of_a_model_is_a_part_of_its_task(traced: tuple[Traces, Collector]) -> None:
    traces, collector = traced
    spans.enter(traces)
    with spans.span("task"):
        forget = spans.keep(TASK)
    async with gateway() as world:
        body = {"model": "m", "input": "canary"}
        assert (await world.client.post("/v1/responses", json=body)).status_code == 200
    forget()
    await traces.close(3)
    [task], [call] = collector.named("task"), collector.named("model.call")
    assert (call.trace, call.parent) == (task.trace, task.id) and not call.failed
    assert call.attributes["gen_ai.request.model"] and call.attributes["gen_ai.provider.name"]
    assert b"canary" not in b"".join(collector.bodies)


async def test_what_goes_on_behind_is_no_part_of_what_began_it(traced: tuple[Traces, Collector]) -> None:
    traces, collector = traced
    spans.enter(traces)
    background = Background()

    async def work(name: str) -> None:
        with spans.span(name):
            pass

    with spans.span("request"):
        await background.spawn(work("behind"), "behind")
        await background.finish(work("within"), "within")
        await asyncio.create_task(work("task"))
    await traces.close(3)
    [request] = collector.named("request")
    assert collector.named("behind")[0].parent == ""
    assert [collector.named(name)[0].parent for name in ("within", "task")] == [request.id] * 2


async def test_what_is_kept_is_bounded_and_the_newest_of_a_name_counts(
    traced: tuple[Traces, Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    traces, _ = traced
    monkeypatch.setattr(otlp, "KEPT_MAX", 2)
    spans.enter(traces)
    with spans.span("a") as first:
        forget = spans.keep("one")
        with spans.span("b") as second:
            spans.keep("one")
            forget()  # another has its name by now
            assert traces.kept("one") is second
            spans.keep("two")
            spans.keep("three")
    assert traces.kept("one") is traces and traces.kept("three") is second
    assert first.root is traces is traces.root


@pytest.mark.parametrize("failing", [True, False])
async def test_a_spanned_function_is_called_as_it_was(traced: tuple[Traces, Collector], failing: bool) -> None:
    traces, collector = traced

    class Shop:
        @spans.spanned("sell")
        async def sell(self, what: str, *, amount: int = 1) -> str:
            """Sell it."""
            spans.note("amount", amount)
            if failing:
                raise ValueError("canary")
            return what * amount

    assert Shop.sell.__doc__ == "Sell it."
    for current in (None, traces):
        spans.enter(current)
        if failing:
            with pytest.raises(ValueError):
                await Shop().sell("a")
        else:
            assert await Shop().sell("a", amount=2) == "aa"
    await traces.close(3)
    [sold] = collector.named("sell")
    assert sold.failed is failing and sold.attributes["amount"] == 2 - failing
    assert sold.attributes.get("error.type") == ("ValueError" if failing else None)
    assert b"canary" not in b"".join(collector.bodies)
