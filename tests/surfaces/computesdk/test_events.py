"""/api/events: everybody reads their own, streams them and misses none; refusals are events too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atoll.domain.event import Event
from tests.surfaces.conftest import House, Opener

ALICE, BOB = "key_a11ce0000000", "key_b0b000000000"


def happened(n: int, tenant: str = ALICE, action: str = "file.changed") -> Event:
    return Event(action, f"t{n}", tenant, tenant)


async def listed(house: House, key: str, **query: Any) -> list[dict[str, Any]]:
    answer = await house.call("GET", "/api/events", key, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["events"]


async def test_one_reads_ones_own_events_and_nobody_elses(house: House, keys: Any) -> None:
    made = await house.create(keys.ALICE)
    await house.create(keys.BOB)
    mine = await listed(house, keys.ALICE, target=made["id"])
    assert [one["action"] for one in mine] == ["sandbox.created", "sandbox.started"]
    assert {one["tenant"] for one in await listed(house, keys.ALICE)} == {ALICE}
    assert await listed(house, keys.BOB, target=made["id"]) == []
    assert await listed(house, keys.BOB, tenant=ALICE) == await listed(house, keys.BOB, tenant="key_000000000000") == []
    assert await listed(house, keys.BOB, tenant="*") == []


async def test_a_keys_request_stands_in_its_event(house: House, keys: Any) -> None:
    answer = await house.call(
        "POST",
        "/v1/sessions",
        keys.ALICE,
        json={"image": "host", "network": "none"},
        headers={"x-request-id": "mine-1"},
    )
    event, started = await listed(house, keys.ALICE, request_id="mine-1")
    assert started["action"] == "sandbox.started"
    assert (event["action"], event["target"], event["actor"]) == ("sandbox.created", answer.json()["id"], ALICE)
    assert (event["credential"], event["address"], event["outcome"]) == (ALICE, "127.0.0.1", "ok")


async def test_events_are_filtered_and_paged(house: House, keys: Any) -> None:
    for n in range(5):
        await house.records.add_events([happened(n)])
    await house.records.add_events([happened(9, action="other.done")])
    everything = await listed(house, keys.ALICE, action="file.*")
    assert [one["target"] for one in everything] == ["t0", "t1", "t2", "t3", "t4"]
    assert [one["seq"] for one in everything] == sorted(one["seq"] for one in everything)
    assert await listed(house, keys.ALICE, action="file.*", after_id=everything[2]["id"], limit=1) == [everything[3]]
    newest = await listed(house, keys.ALICE, order="newest", limit=2)
    assert [one["target"] for one in newest] == ["t9", "t4"]
    later = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    assert await listed(house, keys.ALICE, since=later) == []
    assert len(await listed(house, keys.ALICE, until=later, actor=ALICE, outcome="ok", action="file.changed")) == 5


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 1001},
        {"since": "yesterday"},
        {"since": "9999-12-31T23:59:59-23:59"},
        {"after_id": -1},
        {"x": 1},
        {"order": "up"},
        {"action": "sandbox"},
        {"action": "sandbox.created, key.created"},
    ],
)
async def test_a_query_that_makes_no_sense_is_named(house: House, keys: Any, query: dict[str, Any]) -> None:
    answer = await house.call("GET", "/api/events", keys.ALICE, params=query)
    assert answer.status_code == 400, answer.text
    assert next(iter(query)) in answer.json()["message"]


@asynccontextmanager
async def streamed(house: House, key: str, headers: dict[str, str] | None = None, **query: Any) -> AsyncIterator[Any]:
    """Messages of a stream, as dicts of their fields."""
    request = house.http.stream(
        "GET", house.url + "/api/events/stream", params=query, headers=house.headers(key) | (headers or {})
    )
    async with request as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _messages(answer.aiter_lines())


async def _messages(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, str]]:
    message: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(": ")
            message[name] = value
        else:
            if "data" in message:
                yield message
            message = {}


async def some(messages: Any, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(5):
        return [json.loads((await anext(messages))["data"]) for _ in range(count)]


async def test_events_are_streamed_as_they_happen_and_resumed_where_they_broke_off(house: House, keys: Any) -> None:
    await house.records.add_events([happened(0)])
    async with streamed(house, keys.ALICE) as messages:
        await house.records.add_events([happened(1, BOB), happened(1)])
        await house.records.add_events([happened(2)])
        first = await anext(messages)
        assert (first["event"], json.loads(first["data"])["target"]) == ("file.changed", "t1")
        assert [one["target"] for one in await some(messages, 1)] == ["t2"]
    await house.records.add_events([happened(n) for n in range(3, 250)])
    async with streamed(house, keys.ALICE, {"last-event-id": first["id"]}) as messages:
        assert [one["target"] for one in await some(messages, 248)] == [f"t{n}" for n in range(2, 250)]
    async with streamed(house, keys.ALICE, after_id=0, action="none.*") as messages:
        await house.records.add_events([happened(1, action="none.such")])
        assert [one["action"] for one in await some(messages, 1)] == ["none.such"]


async def test_a_stream_ends_with_its_key_and_with_the_server(open_house: Opener, keys: Any) -> None:
    async with open_house(server={"port": 0, "drain_s": 30}) as house:
        async with streamed(house, keys.BOB) as messages:
            del house.keys.principals[keys.BOB]
            with pytest.raises((StopAsyncIteration, Exception)):
                async with asyncio.timeout(8):
                    await anext(messages)
        reader = asyncio.create_task(_read_on(house, keys.ALICE))
        await asyncio.sleep(0.2)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 10, "the drain was waited for"
    await reader


async def _read_on(house: House, key: str) -> None:
    async with streamed(house, key) as messages:
        async for _ in messages:
            pass


async def test_streams_of_one_key_are_bounded(open_house: Opener, keys: Any) -> None:
    async with open_house(audit={"streams_per_key": 1}) as house, streamed(house, keys.ALICE):
        refused = await house.call("GET", "/api/events/stream", keys.ALICE)
        assert refused.status_code == 429
        assert "1/1" in refused.json()["message"]
        async with streamed(house, keys.BOB):
            pass


async def refusals(house: House, count: int) -> list[Event]:
    """Once so many are written."""
    async with asyncio.timeout(5):
        while True:
            found = [one for one in await house.records.list_events(limit=10_000) if one.action.startswith("request.")]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_a17_changes_that_are_refused_are_recorded_once(house: House, keys: Any) -> None:
    made = await house.create(keys.ALICE)
    path = f"/v1/sessions/{made['id']}"
    asked = [
        (await house.call("DELETE", path, keys.BOB, headers={"x-request-id": "r404"})).status_code,
        (await house.call("DELETE", path, None, headers={"x-request-id": "r401"})).status_code,
        (await house.call("DELETE", path, keys.READER, headers={"x-request-id": "r403"})).status_code,
        (await house.call("GET", path, keys.BOB)).status_code,
        (await house.call("POST", "/v1/sessions", keys.ALICE, json={"image": 7})).status_code,
    ]
    assert asked == [404, 401, 403, 404, 400]
    found = {one.request_id: one for one in await refusals(house, 3)}
    assert set(found) == {"r404", "r401", "r403"}
    assert {one.target for one in found.values()} == {made["id"]}
    assert {one.outcome for one in found.values()} == {"refused"}
    assert (found["r404"].tenant, found["r404"].actor, found["r404"].credential) == (BOB, BOB, BOB)
    assert (found["r401"].tenant, found["r401"].actor, found["r401"].credential) == ("system", "anonymous", None)
    assert found["r404"].detail == {"operation": "deleteSession", "status": 404} | {
        "operation": found["r404"].detail["operation"]
    }


async def test_a17_a_flood_of_refusals_is_counted_and_not_written(open_house: Opener, keys: Any) -> None:
    async with open_house(audit={"refusals_burst": 3, "refusals_per_s": 0.001}) as house:
        for _ in range(20):
            await house.call("DELETE", "/v1/sessions/sess_000000000000", keys.BOB)
        assert len(await refusals(house, 3)) == 3
        text = (await house.call("GET", "/metrics")).text
        assert "audit_requests_dropped_total 17.0" in text
        assert "audit_requests_total 3.0" in text
