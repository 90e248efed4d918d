"""Who may read which events, and streams across servers, groups and failures of the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import Forbidden, Unavailable
from atoll.domain.event import Event, EventQuery
from atoll.domain.group import Role
from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.records.sql import open_records
from atoll.services.audit import events as module
from atoll.services.audit.events import Events
from atoll.services.audit.feed import Feed
from atoll.telemetry.metrics import Metrics
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.records_conformance import event

GROUP = "grp_000000000000000000000000"
ME = Principal("key_0", KeyKind.STANDARD, DEFAULT_SCOPES, groups={GROUP: Role.VIEWER})
ADMIN = Principal("key_9", KeyKind.OWNER, DEFAULT_SCOPES, admin=True)


@asynccontextmanager
async def serving(records: Any, groups: Mapping[str, Role] | None = None) -> AsyncGenerator[Events]:
    async def memberships(_: str) -> Mapping[str, Role]:
        return ME.groups if groups is None else groups

    feed = Feed(records, every_s=0.02)
    feed.start()
    events = Events(records, feed, Metrics(), memberships)
    yield events
    events.end()
    await feed.close()


async def targets(events: Events, principal: Principal, tenant: str | None = None, **query: Any) -> list[str]:
    return [one.target for one in await events.find(principal, EventQuery(**query), tenant)]


async def test_one_reads_of_oneself_and_ones_groups_an_administrator_of_everybody() -> None:
    records = MemoryRecords()
    for n, tenant in enumerate(("key_0", GROUP, "key_1", "system")):
        await records.add_events([event(f"t{n}", tenant=tenant)])
    async with serving(records) as events:
        assert await targets(events, ME) == ["t0", "t1"]
        assert await targets(events, ME, GROUP) == ["t1"]
        assert await targets(events, ME, "key_1") == await targets(events, ME, "none") == []
        assert await targets(events, ME, "*") == []
        assert await targets(events, ADMIN) == []
        assert await targets(events, ADMIN, "*") == ["t0", "t1", "t2", "t3"]
        assert await targets(events, ADMIN, "key_1") == ["t2"]
        bound = replace(ME, resources=frozenset({"t1", "t2"}))
        assert await targets(events, bound) == ["t1"]
        assert await targets(events, bound, targets={"t0"}) == []
        assert await targets(events, replace(ADMIN, resources=frozenset({"t2"})), "*") == []
        with pytest.raises(Forbidden):
            await targets(events, replace(ME, scopes=frozenset({Scope.WRITE})))


async def first(stream: AsyncIterator[Event | None], count: int) -> list[str]:
    """The targets of the next ones."""
    found: list[str] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            told = await anext(stream)
            if told is not None:
                found.append(told.target)
    return found


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/atoll.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


async def test_what_another_server_wrote_is_streamed_once_and_in_order(url: str) -> None:
    here, there = open_records(url), open_records(url)
    await here.start()
    await there.start()
    async with serving(here) as events:
        stream = events.stream(ME, tenant="key_0")
        assert await anext(stream) is None  # it is open
        writes = [(here, there)[n % 2].add_events([event(f"t{n}")]) for n in range(60)]
        await asyncio.gather(*writes)
        seen = await first(stream, 60)
        stored = await here.follow_events("key_0", 0, 100)
        assert seen == [one.target for one in stored]
        await stream.aclose()  # type: ignore[attr-defined]
        again = events.stream(ME, tenant="key_0", after_id=stored[40].id)
        assert await first(again, 19) == seen[41:]
        await again.aclose()  # type: ignore[attr-defined]
    await here.close()
    await there.close()


async def test_who_leaves_a_group_sees_no_more_of_it() -> None:
    records, groups = MemoryRecords(), dict(ME.groups)
    async with serving(records, groups) as events:
        stream = events.stream(ME)
        assert await anext(stream) is None
        await records.add_events([event("before", tenant=GROUP)])
        assert await first(stream, 1) == ["before"]
        groups.clear()
        await records.add_events([event("after", tenant=GROUP)])
        await records.add_events([event("mine")])
        assert await first(stream, 1) == ["mine"]
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_silent_stream_says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.01)
    async with serving(MemoryRecords()) as events:
        events._heartbeat_s = 0.03
        stream = events.stream(ME)
        async with asyncio.timeout(5):
            assert [await anext(stream) for _ in range(3)] == [None] * 3
        await stream.aclose()  # type: ignore[attr-defined]


async def test_c10_while_the_store_is_down_questions_fail_and_streams_end_and_come_back() -> None:
    records = MemoryRecords()
    async with serving(records) as events:
        stream = events.stream(ME)
        assert await anext(stream) is None
        await records.add_events([event("before")])
        assert await first(stream, 1) == ["before"]
        records.down = True
        with pytest.raises(Unavailable):
            await events.find(ME, EventQuery())
        await asyncio.sleep(0.1)  # looks of the feed fail meanwhile
        records.down = False
        await records.add_events([event("after")])
        assert await first(stream, 1) == ["after"]
        await stream.aclose()  # type: ignore[attr-defined]


async def test_streams_end_with_the_server() -> None:
    async with serving(MemoryRecords()) as events:
        stream = events.stream(ADMIN, tenant="*")
        assert await anext(stream) is None
        events.end()
        async with asyncio.timeout(5):
            assert [one async for one in stream] == []
