"""Restores, with sandboxes at work in the workspace and with others at work on it."""

from __future__ import annotations

import asyncio

import pytest

from atoll.domain.errors import Corrupt, Unavailable
from atoll.domain.event import Event
from atoll.domain.workspace import Revision, RevisionState, Workspace
from tests.services.conftest import ALICE, until

from .workshop import Workshop, disk

OLD, NEW = {b"a": b"old"}, {b"a": b"new"}


async def mounted(shop: Workshop) -> str:
    """The sandbox that has workspace w mounted: r2 is OLD, and NEW is in the folder."""
    await shop.create()
    sandbox = await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(b"old")
    await shop.take()
    (await shop.folder("w") / "a").write_bytes(b"new")
    return sandbox.id


async def write_before_the_swap(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next restore finds one more file in the old tree when it comes to swapping."""
    folder, swap = await shop.folder("w"), type(shop.runtime).swap_tree

    async def late(self, *how, **options):  # type: ignore[no-untyped-def]
        (folder / "b").write_bytes(b"in between")
        await swap(self, *how, **options)

    monkeypatch.setattr(type(shop.runtime), "swap_tree", late)


async def test_a_sandbox_made_while_its_workspace_is_restored_has_the_restored_files(shop: Workshop) -> None:
    first = await mounted(shop)
    shop.runtime.make_s = 0.2
    making = asyncio.create_task(shop.mount("w"))
    await asyncio.sleep(0.05)
    await shop.workspaces.restoring.restore(ALICE, "w", "2")
    second = (await making).id
    for sandbox in (first, second):
        _, pieces = await shop.sandboxes.files.read(ALICE, sandbox, "/workspace/a")
        assert b"".join([piece async for piece in pieces]) == b"old"
    await shop.parts.upkeep.reconcile()
    assert len(await shop.runtime.list_trees()) == 1


async def test_what_is_written_to_an_old_tree_before_the_swap_is_kept(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mounted(shop)
    await write_before_the_swap(shop, monkeypatch)
    await shop.workspaces.restoring.restore(ALICE, "w", "2")
    assert disk(await shop.folder("w")) == {b"a": b"old"} == await shop.files("w")
    assert b"in between" in (await shop.files("w", "HEAD~1")).values()


async def test_two_restores_and_a_push_at_once_leave_one_state(shop: Workshop) -> None:
    await shop.create()
    await shop.push("w", "HEAD", {b"a": b"1"})
    await shop.push("w", "HEAD", {b"a": b"2"})
    await shop.mount("w")
    work = [shop.workspaces.restoring.restore(ALICE, "w", "2"), shop.workspaces.restoring.restore(ALICE, "w", "3")]
    await asyncio.gather(*work, shop.push("w", "3", {b"a": b"3"}), return_exceptions=True)
    assert await shop.files("w") == disk(await shop.folder("w"))
    numbers = [one.revision.number for one in await shop.log()]
    assert numbers == sorted(set(numbers), reverse=True)


async def test_a_damaged_revision_is_not_restored(shop: Workshop) -> None:
    await shop.create()
    await shop.push("w", "HEAD", {b"a": b"1"})
    await shop.push("w", "HEAD", {b"a": b"2"})
    rev = (await shop.log())[1].revision
    found = await shop.records.find_workspace(ALICE.id, "w")
    assert found is not None
    event = shop.parts.access.event("revision.corrupt", found)
    await shop.records.set_revision_state(rev.id, RevisionState.CORRUPT, event)
    with pytest.raises(Corrupt):
        await shop.workspaces.restoring.restore(ALICE, "w", "2")
    assert await shop.files("w") == {b"a": b"2"}


async def test_what_a_sandbox_wrote_that_could_not_be_swapped_is_kept_after_its_end(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.create()
    sandbox = await shop.mount("w")
    folder = await shop.folder("w")
    (folder / "a").write_bytes(b"old")
    await shop.take()
    (folder / "a").write_bytes(b"new")

    async def refuse(self, *how, **options):  # type: ignore[no-untyped-def]
        raise Unavailable("not now")

    monkeypatch.setattr(type(shop.runtime), "swap_tree", refuse)
    await shop.workspaces.restoring.restore(ALICE, "w", "2")
    (folder / "b").write_bytes(b"much later")
    await shop.sandboxes.kill(ALICE, sandbox.id)
    await shop.restart()
    await shop.parts.upkeep.reconcile()
    await until(lambda: not folder.exists())
    assert await shop.files("w") == {b"a": b"old"} == disk(await shop.folder("w"))
    assert {b"a": b"new", b"b": b"much later"} in [await shop.files("w", one.revision.id) for one in await shop.log()]


async def test_a_restore_to_what_is_there_leaves_nothing(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(b"x")
    head = await shop.take()
    restored = await shop.workspaces.restoring.restore(ALICE, "w", "HEAD")
    assert restored.revision.revision.id == head.id
    assert len(await shop.runtime.list_trees()) == 1


async def test_a_record_that_is_lost_in_its_commit_leaves_a_restore_whole(shop: Workshop) -> None:
    await shop.create()
    sandbox = await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(b"old")
    await shop.take()
    (await shop.folder("w") / "a").write_bytes(b"new")
    await shop.take()
    add = shop.records.add_revision

    async def lost(revision: Revision, workspace: Workspace, event: Event) -> Workspace:
        await add(revision, workspace, event)
        raise Unavailable("the connection is lost")

    shop.records.add_revision = lost  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await shop.workspaces.restoring.restore(ALICE, "w", "2")
    shop.records.add_revision = add  # type: ignore[method-assign]
    await shop.parts.upkeep.reconcile()
    _, pieces = await shop.sandboxes.files.read(ALICE, sandbox.id, "/workspace/a")
    assert b"".join([piece async for piece in pieces]) == b"old"
    assert await shop.files("w") == {b"a": b"old"}
    await shop.parts.upkeep.reconcile()
    assert len(await shop.runtime.list_trees()) == 1


async def test_a_restore_tells_what_is_the_head_and_what_was_there(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mounted(shop)
    restored = await shop.workspaces.restoring.restore(ALICE, "w", "2")
    assert (restored.revision.revision.number, restored.before.revision.number, restored.entries) == (4, 3, 2)
    same = await shop.workspaces.restoring.restore(ALICE, "w", "2")
    assert (same.changed, same.revision, same.entries, same.bytes) == (False, restored.revision, 0, 0)
    await write_before_the_swap(shop, monkeypatch)
    undone = await shop.workspaces.restoring.undo(ALICE, "w")
    assert (undone.revision.revision.number, undone.before.revision.number) == (7, 6)
    assert (await shop.log())[0].revision == undone.revision.revision
    assert await shop.files("w") == NEW
    assert await shop.files("w", "6") == {**OLD, b"b": b"in between"}
    monkeypatch.undo()
    path = await shop.workspaces.restoring.restore(ALICE, "w", "7", "a")
    assert (path.changed, path.entries) == (False, 0)
