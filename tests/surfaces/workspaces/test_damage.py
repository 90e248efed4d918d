"""Bytes that are not what was stored, and clients that go away in the middle (F14, C11)."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httpx2
import pytest

from atoll.domain.errors import Corrupt
from tests.surfaces.workspaces.client import Client, frame


def damage(house: Any) -> None:
    """Flip a bit in the middle of every pack."""
    for key, data in house.app.blobs.objects.items():
        house.app.blobs.flip(key, len(data) // 2)


async def test_damaged_bytes_are_never_answered_nor_restored(house: Any, ws: Client) -> None:
    await ws.push({"a": os.urandom(300_000)})
    await ws.push({"a": b"now"})
    before = await ws.files()
    damage(house)
    answer = await ws.call("GET", "/file?path=a&revision=HEAD~1")
    assert (answer.status_code, answer.json()["code"]) == (500, "CORRUPT")
    report = await ws.ok("POST", "/verify")
    assert report["corrupt"] and all(one["message"] for one in report["corrupt"])
    revision = await ws.ok("GET", "/revisions/HEAD~1")
    assert revision["state"] == "corrupt"
    restored = await ws.call("POST", "/restore", json={"revision": "HEAD~1"})
    assert (restored.status_code, restored.json()["code"]) == (500, "CORRUPT")
    assert (await ws.call("GET", "/export?revision=HEAD~1")).status_code == 500
    assert (await ws.ok("GET", "/revisions/HEAD"))["number"] == 3
    events = await house.records.list_events(target=ws.ws)
    assert "revision.corrupt" in {event.action for event in events}
    assert before == {"a": b"now"}


async def test_a_body_that_breaks_in_the_middle_is_no_whole_one(house: Any, ws: Client, monkeypatch: Any) -> None:
    await ws.push({"a": os.urandom(3_000_000)})
    whole = house.app.workspaces.history.file

    async def breaking(*args: Any) -> Any:
        entry, pieces = await whole(*args)

        async def some() -> Any:
            yield await anext(pieces)
            await pieces.aclose()
            raise Corrupt

        return entry, some()

    monkeypatch.setattr(house.app.workspaces.history, "file", breaking)
    with pytest.raises(httpx2.RemoteProtocolError):
        await ws.call("GET", "/file?path=a")


async def test_a_store_that_is_down_is_a_503_in_every_dialect_and_nothing_is_half_made(
    house: Any, ws: Client, keys: Any
) -> None:
    await ws.push({"a": b"1"})
    made = await house.call("POST", "/v1/workspaces", json={"name": "default"})
    session = await house.create(workspace="default")
    path = f"/v1/sessions/{session['id']}/files?path=/workspace/x"
    await house.call("POST", path, content=os.urandom(100_000))
    before = await ws.head()
    for method, where, body, status in (
        ("POST", f"/v1/workspaces/{ws.ws}/sync/chunks", frame(b"new"), 503),
        ("POST", "/v1/workspaces", b'{"name": "another"}', 503),
        ("POST", "/api/filesystems", b'{"name": "another"}', 503),
        ("POST", "/workspaces", b'{"name": "another"}', 503),
        ("POST", "/snapshot/create", b"", 500),
    ):
        house.app.blobs.fail_next(1000)
        answer = await house.call(method, where, content=body)
        house.app.blobs.fail_next(0)
        assert answer.status_code == status, (where, answer.text)
        assert (status == 500) or answer.headers["retry-after"], where
    names = [one["name"] for one in (await house.call("GET", "/v1/workspaces")).json()["workspaces"]]
    assert sorted(names) == ["default", "tree"]
    assert await ws.head() == before
    assert (await house.call("GET", "/snapshot/list")).json() == {"snapshots": []}
    assert (await house.call("POST", "/snapshot/create")).status_code == 200
    assert made.status_code == 201


@pytest.mark.parametrize("path", ["/file?path=a", "/export", "/sync/entries"])
async def test_a_client_that_goes_away_stops_the_work(house: Any, ws: Client, keys: Any, path: str) -> None:
    await ws.push({"a": os.urandom(8_000_000)})
    host, port = house.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
    head = f"GET /v1/workspaces/{ws.ws}{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {keys.ALICE}\r\n\r\n"
    writer.write(head.encode())
    await reader.readexactly(200)
    writer.transport.abort()
    await asyncio.sleep(0.1)
    assert (await ws.head())["number"] == 2  # and the server goes on; the fixture sees that no task is left
