"""The progress of an agent's task: events as they come, through connections and servers that break."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from atoll import Agent, AsyncAgent, RunResult, run, run_streamed
from atoll.sdk import (
    Conflict,
    InvalidInput,
    RunEvent,
)
from tests.sdk.fake_tasks import FakeTasks
from tests.sdk.stand_in import StandIn
from tests.sdk.worlds import in_both_worlds


def test_events_are_told_as_they_come(tasks: FakeTasks, folder: Path) -> None:
    stream = run_streamed(Agent(workspace=folder), "Create hello.py")
    with pytest.raises(Conflict, match="has not ended"):
        assert stream.result
    kinds: list[str] = []
    for event in stream:
        kinds.append(event.type)
        if event.type == "task.started":
            assert not (folder / "hello.py").exists()
            assert stream.task_id
    assert kinds[-2:] == ["sync", "task.ended"]
    assert stream.result.final_output == stream.final_output == "Created hello.py"
    assert stream.usage.input_tokens == 6548
    with pytest.raises(InvalidInput, match="once"):
        list(stream)


def test_an_async_agent_streams_too(tasks: FakeTasks, folder: Path) -> None:
    async def follow() -> tuple[list[RunEvent], RunResult]:
        stream = run_streamed(AsyncAgent(workspace=folder), "Create hello.py")
        return [event async for event in stream], stream.result

    events, result = asyncio.run(follow())
    assert [event.seq for event in events] == [0, 1, 2, 3, 4, 5, 0, 6]
    assert tuple(events) == result.events


@pytest.mark.parametrize("world", [0, 1])
def test_a_connection_that_breaks_loses_and_doubles_nothing(tasks: FakeTasks, folder: Path, world: int) -> None:
    tasks.cut_after = [1, 2, 0]
    result = in_both_worlds(workspace=folder)[world]("x")
    assert [event.seq for event in result.events if event.seq] == [1, 2, 3, 4, 5, 6]
    assert tasks.resumed == [None, "1", "3", "3"]
    assert len(tasks.requests) == 1


def test_a_server_that_starts_again_is_waited_for(server: StandIn, tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True
    stream = run_streamed(Agent(workspace=folder), "x")
    events: list[RunEvent] = []
    for event in stream:
        events.append(event)
        if event.type == "task.started":
            server.stop()
            tasks.held = False
            server.start()
    assert [event.seq for event in events if event.seq] == [1, 2, 3, 4, 5, 6]
    assert stream.result.ok


def test_a_server_that_has_too_many_followers_is_asked_again(tasks: FakeTasks, folder: Path) -> None:
    tasks.busy = 1
    result = run(Agent(workspace=folder), "x")
    assert [event.seq for event in result.events if event.seq] == [1, 2, 3, 4, 5, 6]


def test_an_end_that_says_little_is_asked_about(tasks: FakeTasks, folder: Path) -> None:
    tasks.tells_all = False
    result = run(Agent(workspace=folder), "x")
    assert result.final_output == "Created hello.py"
    assert result.usage.total_cost == Decimal("0.10308")
