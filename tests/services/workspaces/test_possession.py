"""Which chunks a collaborator may name: looked through once, beside the event loop, and exactly."""

from __future__ import annotations

import asyncio
import threading

import pytest

from atoll.domain.tree import chunk_id
from atoll.domain.workspace import Permission
from atoll.services.workspaces import possession
from atoll.services.workspaces.access import Found
from tests.services.conftest import BOB

from .storage import Storage


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each page that was looked through the thread that did."""
    threads: list[int] = []
    chunks_of = possession._chunks_of  # pyright: ignore[reportPrivateUsage]

    def look(entries):  # type: ignore[no-untyped-def]
        threads.append(threading.get_ident())
        return chunks_of(entries)

    monkeypatch.setattr(possession, "_chunks_of", look)
    return threads


async def test_each_page_is_looked_through_once_and_not_by_the_event_loop(storage: Storage, walked: list[int]) -> None:
    files = {b"f%05d" % n: b"%d" % n for n in range(3_000)}
    workspace = await storage.workspace(files)
    for n in range(4):
        workspace = await storage.revise(workspace, files | {b"f00000": b"changed %d" % n})
    await storage.put(workspace.lineage, b"another fork's")
    mine = possession.Possession(storage.records, storage.chunks, storage.manifests)
    found = Found(workspace, Permission.WRITE)
    ids = [chunk_id(data) for data in (b"0", b"2999", b"changed 0", b"changed 3", b"another fork's", b"nobody's")]
    asked = [mine.unproved(BOB, found, ids) for _ in range(3)]
    assert await asyncio.gather(*asked) == [set(ids[4:])] * 3
    listed = await storage.records.list_revisions(workspace=workspace.id)
    pages = [page.id for one in listed for page in (await storage.manifests.root(one.lineage, one.tree)).pages]
    assert len(walked) == len(set(pages)) < len(pages)
    assert threading.get_ident() not in walked
    mine.prove(BOB, found, [ids[5]])
    assert await mine.unproved(BOB, found, ids) == {ids[4]}
    assert await mine.unproved(BOB, Found(workspace, None), ids) == set()


async def test_what_memory_does_not_hold_is_looked_for_again(
    storage: Storage, walked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(possession, "REACHABLE_MAX", 100)
    files = {b"f%05d" % n: b"%d" % n for n in range(3_000)}
    workspace = await storage.workspace(files)
    mine = possession.Possession(storage.records, storage.chunks, storage.manifests)
    ids = [chunk_id(data) for data in (b"0", b"2999", b"nobody's")]
    for _ in range(2):
        assert await mine.unproved(BOB, Found(workspace, Permission.READ), ids) == {ids[2]}
    assert len(walked) > 2


async def test_a_revision_that_cannot_be_read_gives_no_right_and_takes_none(storage: Storage) -> None:
    workspace = await storage.workspace({b"f": b"old"})
    (page,) = (await storage.manifests.root(workspace.lineage, (await storage.records.list_revisions())[0].tree)).pages
    workspace = await storage.revise(workspace, {b"f": b"new"})
    await storage.records.delete_chunks(workspace.lineage, [page.id], storage.now.replace(year=9999))
    await storage.restart()
    mine = possession.Possession(storage.records, storage.chunks, storage.manifests)
    ids = [chunk_id(b"old"), chunk_id(b"new")]
    assert await mine.unproved(BOB, Found(workspace, Permission.READ), ids) == {ids[0]}
