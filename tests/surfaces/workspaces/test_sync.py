"""Sync over HTTP: what a client sends and gets, and every way to lie about it (C02, F08, F11, F12)."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
import zstandard

from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE
from atoll.domain.tree import Entry, EntryKind, chunk_id
from tests.surfaces.workspaces.client import ENTRIES, HEAD, Client, file, folder, frame, lines


async def missing(ws: Client, *data: bytes) -> set[bytes]:
    body = await ws.ok("POST", "/sync/missing", content=b"".join(map(chunk_id, data)))
    return {body[at : at + 32] for at in range(0, len(body), 32)}


async def test_only_what_is_missing_travels(ws: Client) -> None:
    assert await missing(ws, b"one", b"two", b"two") == {chunk_id(b"one"), chunk_id(b"two")}
    sent = await ws.send(b"one")
    assert sent["stored"] == 1 and sent["bytes"] > 0
    assert await missing(ws, b"one", b"two") == {chunk_id(b"two")}


async def test_chunks_that_are_sent_again_are_not_stored_again(ws: Client) -> None:
    first = await ws.send(b"one" * 1000, b"two" * 1000)
    assert first["stored"] == 2
    assert (await ws.send(b"one" * 1000, b"two" * 1000, b"one" * 1000))["stored"] == 0


async def test_what_was_pushed_is_fetched_in_the_order_of_the_ids(ws: Client) -> None:
    chunks = [os.urandom(size) for size in (1, 70_000, CHUNK_BYTES)]
    await ws.push({f"f{number}": data for number, data in enumerate(chunks)})
    wanted = [chunks[2], chunks[0], b"never sent", chunks[1], chunks[0]]
    body = await ws.ok("POST", "/sync/fetch", content=b"".join(map(chunk_id, wanted)))
    for data in wanted:
        id, size, stored = HEAD.unpack_from(body)
        assert id == chunk_id(data)
        there = body[HEAD.size : HEAD.size + stored]
        body = body[HEAD.size + stored :]
        if data == b"never sent":
            assert (size, stored) == (0, 0)
        else:
            assert (size, zstandard.decompress(there, max_output_size=CHUNK_BYTES)) == (len(data), data)
    assert body == b""


async def test_entries_since_a_revision_are_those_that_changed(ws: Client) -> None:
    await ws.push({"a": b"1", "b": b"1", "gone": b"1"})
    await ws.push({"b": b"2", "gone": None, "new": b"n"})
    changed = await ws.entries("?since=HEAD~1")
    files = {one.path for one in changed if isinstance(one, Entry) and one.kind is EntryKind.FILE}
    assert files == {b"b", b"new"}
    assert [one for one in changed if isinstance(one, bytes)] == [b"gone"]
    assert await ws.entries("?since=HEAD") == []
    backwards = await ws.entries("?revision=HEAD~1&since=HEAD")
    assert [one for one in backwards if isinstance(one, bytes)] == [b"new"]


async def test_the_head_is_what_a_session_wrote_just_now(house: Any, ws: Client) -> None:
    session = await house.create(workspace="tree")
    await house.call("POST", f"/v1/sessions/{session['id']}/files?path=/workspace/x", content=b"live")
    head = await ws.head()
    assert head["number"] == 2
    assert await ws.read("x") == b"live"


async def test_a_commit_is_seen_inside_a_session_before_it_is_answered(house: Any, ws: Client) -> None:
    session = await house.create(workspace="tree")
    await ws.push({"folder/pushed": b"from outside"})
    path = f"/v1/sessions/{session['id']}/files?path=/workspace/folder/pushed"
    assert (await house.call("GET", path)).content == b"from outside"


async def test_of_commits_at_the_same_time_one_wins_and_the_others_hear_of_it(ws: Client) -> None:
    base = (await ws.head())["id"]
    await ws.send(*(b"%d" % number for number in range(8)))
    tries = (ws.try_commit([file("a", b"%d" % number)], base) for number in range(8))
    answers = await asyncio.gather(*tries)
    assert sorted(one.status_code for one in answers) == [201] + [409] * 7
    (winner,) = (number for number, one in enumerate(answers) if one.status_code == 201)
    assert await ws.files() == {"a": b"%d" % winner}
    assert (await ws.head())["number"] == 2


async def test_a_stale_base_is_a_conflict_and_changes_nothing(ws: Client) -> None:
    old = (await ws.head())["id"]
    await ws.push({"a": b"1"})
    await ws.send(b"2")
    answer = await ws.try_commit([file("a", b"2")], old)
    assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    assert await ws.files() == {"a": b"1"}


async def test_a_commit_needs_a_base(ws: Client) -> None:
    answer = await ws.call("POST", "/sync/commit", content=lines([]), headers=ENTRIES)
    assert (answer.status_code, answer.json()["field"]) == (400, "base")
    answer = await ws.try_commit([], "rev_" + "0" * 24)
    assert answer.status_code == 404


BAD_FRAMES = {
    "another id": frame(b"data", id=chunk_id(b"other")),
    "a size too small": frame(b"data", size=3),
    "a size too large": frame(b"data", size=5),
    "a size beyond a chunk": frame(b"data", size=CHUNK_BYTES + 1),
    "no zstd": frame(b"data", stored=b"no zstd at all"),
    "damaged zstd": frame(b"data" * 1000, stored=zstandard.compress(b"data" * 1000)[:-4] + b"\0\0\0\0"),
    "more after the zstd": frame(b"data", stored=zstandard.compress(b"data") + b"more"),
    "a bomb": frame(b"x" * CHUNK_BYTES, stored=zstandard.compress(b"x" * 2**28)),
    "a bomb that lies": frame(b"data", stored=zstandard.compress(b"x" * 2**28), id=chunk_id(b"data")),
    "nothing stored": HEAD.pack(chunk_id(b"data"), 4, 0),
    "an empty chunk": HEAD.pack(chunk_id(b""), 0, 9) + zstandard.compress(b""),
    "a hole": HEAD.pack(HOLE, 4, 4) + b"data",
    "cut in its head": frame(b"data")[:20],
    "cut in its data": frame(b"data")[:-1],
    "huge stored size": HEAD.pack(chunk_id(b"data"), 4, 2**32 - 1) + b"x" * 100,
}


@pytest.mark.parametrize("wrong", BAD_FRAMES.values(), ids=list(BAD_FRAMES))
async def test_a_frame_that_lies_is_refused_by_name_and_not_stored(ws: Client, wrong: bytes) -> None:
    answer = await ws.call("POST", "/sync/chunks", content=frame(b"good") + wrong)
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"]
    assert await missing(ws, b"data", b"other", b"x" * CHUNK_BYTES) == {
        chunk_id(b"data"),
        chunk_id(b"other"),
        chunk_id(b"x" * CHUNK_BYTES),
    }


async def test_an_upload_that_is_cut_keeps_what_came_before(house: Any, ws: Client, keys: Any) -> None:
    whole = b"".join(frame(os.urandom(50_000)) for _ in range(3))
    body = frame(b"kept") + whole
    host, port = house.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/workspaces/{ws.ws}/sync/chunks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {keys.ALICE}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:-1000])
    await writer.drain()
    await asyncio.sleep(0.3)
    writer.close()
    await writer.wait_closed()
    for _ in range(100):
        if not await missing(ws, b"kept"):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("what came before the cut was not kept")


async def test_expect_is_refused_before_the_body_is_sent(house: Any, ws: Client, keys: Any) -> None:
    """A client that waits for `100 Continue` hears of a body that is too large, or of no workspace, without sending."""
    host, port = house.url.removeprefix("http://").split(":")
    for path, length, status in (
        (f"{ws.ws}/sync/chunks", 2**50, b"413"),
        (f"{ws.ws}/import", 2**50, b"413"),
        ("nothing/sync/chunks", 100, b"404"),
        ("nothing/import", 100, b"404"),
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/workspaces/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {keys.ALICE}\r\n"
        writer.write(f"{head}content-length: {length}\r\nexpect: 100-continue\r\n\r\n".encode())
        async with asyncio.timeout(5):
            assert (await reader.readline()).split()[1] == status
        writer.close()
        await writer.wait_closed()


GOOD, MIB = chunk_id(b"good"), bytes(range(256)) * 4096
GOOD_MIB = chunk_id(MIB)
BAD_COMMITS: dict[str, list[Entry | bytes]] = {
    "traversal": [file("../x", b"good")],
    "dots inside": [folder("a"), file("a/../b", b"good")],
    "absolute": [file("/etc/x", b"good")],
    "empty part": [folder("a"), file("a//b", b"good")],
    "NUL": [file("a\0b", b"good")],
    "long": [file("x" * 256, b"good")],
    "twice": [file("a", b"good"), file("a", b"good")],
    "unsorted": [file("b", b"good"), file("a", b"good")],
    "no parent": [file("a/b", b"good")],
    "a file as parent": [file("a", b"good"), file("a/b", b"good")],
    "a link as parent": [Entry(b"a", EntryKind.SYMLINK, 0, 1, target=b"/etc"), file("a/b", b"good")],
    "a parent that goes": [b"kept", file("kept/x", b"good")],
    "unknown chunk": [file("a", b"never sent")],
    "a link without target": [Entry(b"a", EntryKind.SYMLINK, 0, 1)],
    "a link's NUL": [Entry(b"a", EntryKind.SYMLINK, 0, 1, target=b"a\0b")],
    "a hardlink to nothing": [Entry(b"a", EntryKind.HARDLINK, 0, 1, target=b"0")],
    "a hardlink out": [Entry(b"a", EntryKind.HARDLINK, 0, 1, target=b"../../etc/passwd")],
    "a hardlink to a folder": [Entry(b"z", EntryKind.HARDLINK, 0, 1, target=b"kept")],
    "a size that needs more chunks": [Entry(b"a", EntryKind.FILE, 0o644, 1, size=CHUNK_BYTES + 1, chunks=GOOD)],
    "a size that its chunk has not": [Entry(b"a", EntryKind.FILE, 0o644, 1, size=100, chunks=GOOD)],
    "one chunk of two sizes": [
        Entry(b"a", EntryKind.FILE, 0o644, 1, size=100, chunks=GOOD),
        Entry(b"b", EntryKind.FILE, 0o644, 1, size=4, chunks=GOOD),
    ],
    "chunks without size": [Entry(b"a", EntryKind.FILE, 0o644, 1, chunks=GOOD)],
    "a folder with a size": [Entry(b"a", EntryKind.DIRECTORY, 0o755, 1, size=4, chunks=GOOD)],
    "holes outside": [Entry(b"a", EntryKind.FILE, 0o644, 1, size=4, chunks=GOOD, holes=((2, 9),))],
    "beyond the quota": [Entry(b"a", EntryKind.FILE, 0o644, 1, size=2**34, chunks=GOOD_MIB * 2**14)],
    "the root is a file": [Entry(b"", EntryKind.FILE, 0o644, 1)],
    "the root goes": [b""],
}


@pytest.mark.parametrize("changes", BAD_COMMITS.values(), ids=list(BAD_COMMITS))
async def test_a_commit_that_is_no_tree_is_refused_by_name_and_changes_nothing(
    ws: Client, changes: list[Entry | bytes]
) -> None:
    await ws.push({"kept/file": b"good"})
    await ws.send(MIB)
    before = await ws.head()
    answer = await ws.try_commit(changes, before["id"])
    assert answer.status_code in (400, 413), answer.text
    assert answer.status_code == 413 or answer.json()["field"], answer.text
    assert await ws.head() == before
    assert await ws.files() == {"kept/file": b"good"}


@pytest.mark.parametrize(
    "body",
    [b"", b"plain", zstandard.compress(b"x" * 2**27), lines([folder("a")])[:-2], lines([folder("a")]) + b"more"],
    ids=["nothing", "no zstd", "bomb", "cut", "appended"],
)
async def test_a_commit_whose_body_is_broken_changes_nothing(ws: Client, body: bytes) -> None:
    before = await ws.head()
    answer = await ws.call("POST", f"/sync/commit?base={before['id']}", content=body, headers=ENTRIES)
    assert answer.status_code in (400, 413), answer.text
    assert await ws.head() == before


@pytest.mark.parametrize("path", ["/sync/missing", "/sync/fetch"])
async def test_ids_are_whole_and_bounded(ws: Client, path: str) -> None:
    assert (await ws.call("POST", path, content=b"x" * 33)).status_code == 400
    assert (await ws.call("POST", path, content=b"x" * 32 * 65_537)).status_code == 413
    assert (await ws.call("POST", path, content=b"")).status_code == 200


async def test_chunks_of_another_workspace_do_not_help(house: Any, ws: Client, keys: Any) -> None:
    """Knowing an id is not having the bytes: bob cannot commit, nor fetch, what only alice has sent."""
    await ws.push({"secret": b"alice's secret"})
    made = await house.call("POST", "/v1/workspaces", keys.BOB, json={"name": "bobs"})
    bob = Client(house, made.json()["id"], keys.BOB)
    assert await missing(bob, b"alice's secret") == {chunk_id(b"alice's secret")}
    body = await bob.ok("POST", "/sync/fetch", content=chunk_id(b"alice's secret"))
    assert HEAD.unpack(body)[1:] == (0, 0)
    answer = await bob.try_commit([file("stolen", b"alice's secret")], (await bob.head())["id"])
    assert answer.status_code == 400


async def test_an_upload_is_not_held_in_memory(ws: Client) -> None:
    """Frames go on to the service as they come: the answer waits for the slowest, not for the whole."""
    pieces = [frame(os.urandom(CHUNK_BYTES)) for _ in range(8)]
    sent = 0

    async def body() -> Any:
        nonlocal sent
        for piece in pieces:
            yield piece
            sent += 1

    answer = await ws.ok("POST", "/sync/chunks", content=body())
    assert (answer["stored"], sent) == (8, 8)
