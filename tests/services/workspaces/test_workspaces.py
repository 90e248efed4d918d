"""Workspaces end to end on fakes: created, mounted, revised, restored, forked, merged, deleted."""

from __future__ import annotations

import os

import pytest
import zstandard

from atoll.domain.errors import Conflict, Forbidden, InvalidInput, NotFound, QuotaExceeded
from atoll.domain.tree import chunk_id
from atoll.domain.workspace import Permission, Reason
from atoll.services.workspaces.views import Changes, SentChunk
from tests.services.conftest import ALICE, BOB, READER, until

from .workshop import Workshop, disk, each


async def test_a_new_workspace_is_empty_and_has_one_revision(shop: Workshop) -> None:
    made = await shop.create("notes", description="mine", tags=("a", "b", "a"))
    assert made.workspace.tags == ("a", "b")
    assert made.head.revision.number == 1
    assert made.head.revision.reason is Reason.CREATED
    assert [entry.path for entry in await shop.entries("notes")] == [b""]
    assert made.workspace.tree_id is None


async def test_what_a_sandbox_wrote_is_a_revision_after_it_ended(shop: Workshop) -> None:
    await shop.create()
    sandbox = await shop.mount("w")
    (await shop.folder("w") / "a.txt").write_bytes(b"one")
    await shop.sandboxes.kill(ALICE, sandbox.id)
    await until(lambda: _reasons(shop, ["created", "stop"]))
    assert await shop.files("w") == {b"a.txt": b"one"}


async def _reasons(shop: Workshop, expected: list[str]) -> bool:
    return await shop.reasons() == expected


async def test_a_process_leads_to_one_revision(shop: Workshop) -> None:
    await shop.create()
    sandbox = await shop.mount("w")
    from atoll.domain.process import ProcessSpec

    for text in ("one", "two"):
        await shop.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("true",)))
        (await shop.folder("w") / "a.txt").write_text(text)
    await until(lambda: _reasons(shop, ["created", "process"]))
    assert await shop.files("w") == {b"a.txt": b"two"}


async def test_nothing_changed_is_the_head_itself(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(b"x")
    first = await shop.take()
    assert first.number == 2
    assert await shop.take() == first


async def test_restore_without_a_sandbox_and_undo(shop: Workshop) -> None:
    await shop.create()
    sandbox = await shop.mount("w")
    folder = await shop.folder("w")
    (folder / "a").write_bytes(b"one")
    await shop.take()
    (folder / "a").write_bytes(b"two")
    await shop.sandboxes.kill(ALICE, sandbox.id)
    await until(lambda: _reasons(shop, ["created", "asked", "stop"]))
    restored = await shop.workspaces.restoring.restore(ALICE, "w", "2")
    assert restored.revision.revision.reason is Reason.RESTORE
    assert await shop.files("w") == {b"a": b"one"}
    await shop.workspaces.restoring.undo(ALICE, "w")
    assert await shop.files("w") == {b"a": b"two"}
    sandbox = await shop.mount("w")
    assert disk(await shop.folder("w")) == {b"a": b"two"}


async def test_a_live_restore_swaps_what_is_mounted_and_loses_nothing(shop: Workshop) -> None:
    await shop.create()
    sandbox = await shop.mount("w")
    folder = await shop.folder("w")
    (folder / "a").write_bytes(b"one")
    await shop.take()
    (folder / "a").write_bytes(b"two")
    (folder / "b").write_bytes(b"new")
    await shop.workspaces.restoring.restore(ALICE, "w", "HEAD")
    assert await shop.reasons() == ["created", "asked", "before_restore", "restore"]
    _, pieces = await shop.sandboxes.files.read(ALICE, sandbox.id, "/workspace/a")
    assert b"".join([piece async for piece in pieces]) == b"one"
    assert not folder.exists(), "the old tree is gone"
    assert disk(await shop.folder("w")) == {b"a": b"one"}
    await shop.workspaces.restoring.undo(ALICE, "w")
    assert disk(await shop.folder("w")) == {b"a": b"two", b"b": b"new"}


async def test_restore_of_one_path_leaves_the_rest(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    folder = await shop.folder("w")
    (folder / "d/e").mkdir(parents=True)
    (folder / "d/e/x").write_bytes(b"x1")
    (folder / "d/y").write_bytes(b"y1")
    (folder / "z").write_bytes(b"z1")
    await shop.take()
    (folder / "d/e/x").unlink()
    (folder / "d/e").rmdir()
    (folder / "d/y").write_bytes(b"y2")
    (folder / "z").write_bytes(b"z2")
    await shop.workspaces.restoring.restore(ALICE, "w", "2", "d/e")
    assert disk(await shop.folder("w")) == {b"d/e/x": b"x1", b"d/y": b"y2", b"z": b"z2"}
    assert await shop.files("w") == disk(folder)
    with pytest.raises(NotFound):
        await shop.workspaces.restoring.restore(ALICE, "w", "2", "nowhere")


async def test_a_fork_shares_chunks_and_goes_its_own_way(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(os.urandom(100_000))
    await shop.take()
    objects = len(shop.blobs.objects)
    fork = await shop.workspaces.forks.fork(ALICE, "w", "f")
    assert len(shop.blobs.objects) == objects
    assert fork.workspace.forked_from == (await shop.log())[0].revision.id
    assert await shop.files("f") == await shop.files("w")
    await shop.push("f", "HEAD", {b"b": b"fork"})
    assert set(await shop.files("f")) == {b"a", b"b"}
    assert set(await shop.files("w")) == {b"a"}


async def test_merge_takes_over_what_the_fork_changed_and_keeps_both_where_they_differ(shop: Workshop) -> None:
    await shop.create()
    await shop.push("w", "HEAD", {b"a": b"base", b"b": b"base"})
    await shop.workspaces.forks.fork(ALICE, "w", "f")
    await shop.push("f", "HEAD", {b"a": b"theirs", b"c": b"new", b"b": None})
    await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(b"ours")
    merged = await shop.workspaces.merging.merge(ALICE, "w", "f")
    assert [(one.path, one.kept) for one in merged.conflicts] == [(b"a", b"a.conflict-r2")]
    assert disk(await shop.folder("w")) == {b"a": b"ours", b"a.conflict-r2": b"theirs", b"c": b"new"}
    assert await shop.files("w") == disk(await shop.folder("w"))
    assert (await shop.log())[0].revision.merged == (await shop.log("f"))[0].revision.id
    again = await shop.workspaces.merging.merge(ALICE, "w", "f")
    assert not again.conflicts and again.changes == 0


async def test_a_push_reaches_the_working_tree_and_a_stale_base_is_a_conflict(shop: Workshop) -> None:
    await shop.create()
    await shop.push("w", "HEAD", {b"a": b"1"})
    await shop.mount("w")
    folder = await shop.folder("w")
    await shop.push("w", "2", {b"a": b"2", b"b": b"2"})
    assert disk(folder) == {b"a": b"2", b"b": b"2"}
    (folder / "c").write_bytes(b"tenant")
    with pytest.raises(Conflict):
        await shop.push("w", "3", {b"a": b"3"})
    assert await shop.reasons() == ["created", "sync", "sync", "process"]
    assert await shop.files("w") == {b"a": b"2", b"b": b"2", b"c": b"tenant"}


async def test_a_push_beyond_the_quota_changes_nothing(shop: Workshop) -> None:
    await shop.create(quota_bytes=2**20, quota_inodes=16)
    with pytest.raises(QuotaExceeded, match="quotaBytes: the workspace holds at most 1048576 bytes, and this takes"):
        await shop.push("w", "HEAD", {b"a": bytes(2**20), b"b": b"1"})
    with pytest.raises(QuotaExceeded, match="quotaInodes: the workspace holds at most 16 files and folders"):
        await shop.push("w", "HEAD", {b"%d" % number: b"x" for number in range(16)})
    assert await shop.reasons() == ["created"]


async def test_a_push_with_a_chunk_that_was_never_sent_names_the_path(shop: Workshop) -> None:
    from atoll.domain.tree import Entry, EntryKind

    from .workshop import each

    await shop.create()
    entry = Entry(b"a", EntryKind.FILE, size=3, chunks=bytes([1]) * 32)
    with pytest.raises(InvalidInput, match="'a'"):
        await shop.workspaces.sync.commit(ALICE, "w", "HEAD", each([entry]))
    with pytest.raises(InvalidInput, match="parent"):
        await shop.workspaces.sync.commit(ALICE, "w", "HEAD", each([entry._replace(path=b"x/a", size=0, chunks=b"")]))
    assert await shop.reasons() == ["created"]


async def test_snapshots_are_kept_five_nameless_ones_at_most(shop: Workshop) -> None:
    await shop.create()
    await shop.workspaces.snapshots.create(ALICE, "w", name="first")
    for number in range(7):
        await shop.push("w", "HEAD", {b"a": b"%d" % number})
        await shop.workspaces.snapshots.create(ALICE, "w")
    listed = await shop.workspaces.snapshots.list(ALICE, "w")
    assert len(listed) == 6
    assert listed[-1].name == "first"
    assert len({one.id for one in listed}) == 6
    await shop.workspaces.restoring.restore(ALICE, "w", "first")
    assert await shop.files("w") == {}


async def test_snapshots_of_one_state_count_as_others_do(shop: Workshop) -> None:
    await shop.create()
    for _ in range(7):
        await shop.workspaces.snapshots.create(ALICE, "w")
    assert len(await shop.workspaces.snapshots.list(ALICE, "w")) == 5


async def test_a_snapshot_with_its_own_key_is_gone_with_it(shop: Workshop) -> None:
    await shop.create()
    await shop.push("w", "HEAD", {b"a": b"secret"})
    snapshot = await shop.workspaces.snapshots.create(ALICE, "w", name="mine", own_key=True)
    assert snapshot.lineage != (await shop.workspaces.get(ALICE, "w")).workspace.lineage
    await shop.push("w", "HEAD", {b"a": None})
    await shop.workspaces.restoring.restore(ALICE, "w", "mine")
    assert await shop.files("w") == {b"a": b"secret"}
    await shop.workspaces.snapshots.delete(ALICE, "w", "mine")
    lineage = await shop.records.get_lineage(snapshot.lineage)
    assert lineage is not None and lineage.key is None
    assert await shop.files("w") == {b"a": b"secret"}


async def test_deletion_waits_for_sandboxes_and_takes_the_key_with_the_last_of_a_lineage(shop: Workshop) -> None:
    made = await shop.create()
    sandbox = await shop.mount("w")
    with pytest.raises(Conflict, match=sandbox.id):
        await shop.workspaces.delete(ALICE, "w")
    await shop.sandboxes.kill(ALICE, sandbox.id)
    await shop.workspaces.forks.fork(ALICE, "w", "f")
    await shop.workspaces.delete(ALICE, "w")
    assert await shop.runtime.list_trees() == []
    assert await shop.files("f") == {}
    with pytest.raises(NotFound):
        await shop.workspaces.get(ALICE, made.workspace.id)
    await shop.workspaces.delete(ALICE, "f")
    lineage = await shop.records.get_lineage(made.workspace.lineage)
    assert lineage is not None and lineage.key is None


async def test_somebody_elses_workspace_is_an_unknown_one(shop: Workshop) -> None:
    made = await shop.create()
    texts: set[str] = set()
    for ref in (made.workspace.id, "w", "ws_" + "0" * 32, made.workspace.id.replace("ws_", "fs_"), "nothing"):
        with pytest.raises(NotFound) as refused:
            await shop.workspaces.get(BOB, ref)
        texts.add(refused.value.message.replace(repr(ref), "<ref>"))
    assert texts == {"workspace not found: <ref>"}


async def test_collaborators_may_do_what_they_were_given(shop: Workshop) -> None:
    made = await shop.create()
    ref = made.workspace.id
    await shop.workspaces.sharing.share(ALICE, "w", [BOB.id], Permission.READ)
    assert (await shop.workspaces.get(BOB, ref)).permission is Permission.READ
    with pytest.raises(Forbidden):
        await shop.push(ref, "HEAD", {b"a": b"x"}, principal=BOB)
    with pytest.raises(NotFound):
        await shop.workspaces.get(BOB, "w")
    await shop.workspaces.sharing.share(ALICE, "w", [BOB.id], Permission.WRITE)
    await shop.push(ref, "HEAD", {b"a": b"x"}, principal=BOB)
    with pytest.raises(Forbidden):
        await shop.workspaces.delete(BOB, ref)
    with pytest.raises(Forbidden):
        await shop.workspaces.sharing.share(BOB, ref, [BOB.id], Permission.READ)
    await shop.workspaces.sharing.revoke(ALICE, "w", BOB.id)
    with pytest.raises(NotFound):
        await shop.workspaces.get(BOB, ref)
    with pytest.raises(Forbidden):
        await shop.workspaces.change(READER, "w", Changes(name="x"))


async def test_a_collaborator_cannot_ask_for_chunks_of_the_owners_other_forks(shop: Workshop) -> None:
    made = await shop.create()
    await shop.push("w", "HEAD", {b"a": b"shared"})
    await shop.workspaces.forks.fork(ALICE, "w", "private")
    await shop.push("private", "HEAD", {b"s": b"secret"})
    await shop.workspaces.sharing.share(ALICE, "w", [BOB.id], Permission.WRITE)
    ref, secret, shared = made.workspace.id, chunk_id(b"secret"), chunk_id(b"shared")
    got = [one async for one in await shop.workspaces.sync.fetch(BOB, ref, [secret, shared])]
    assert [len(one.data) > 0 for one in got] == [False, True]
    assert await shop.workspaces.sync.missing(BOB, ref, [secret, shared]) == [secret]
    # what it sends is new, whether or not another fork has it: else the answer would confirm a guess
    for guess in (b"secret", b"absent"):
        frame = SentChunk(chunk_id(guess), 6, zstandard.compress(guess))
        assert await shop.workspaces.sync.chunks(BOB, ref, each([frame])) == (1, len(frame.data))
    await shop.push(ref, "HEAD", {b"b": b"secret"}, principal=BOB)  # who has it may name it
    theirs = await shop.workspaces.forks.fork(BOB, ref, "mine")
    assert theirs.workspace.lineage != made.workspace.lineage


async def test_names_are_unique_and_change(shop: Workshop) -> None:
    await shop.create("a")
    await shop.create("b")
    with pytest.raises(Conflict):
        await shop.create("a")
    with pytest.raises(Conflict):
        await shop.workspaces.change(ALICE, "b", Changes(name="a"))
    changed = await shop.workspaces.change(ALICE, "b", Changes(name="c", tags=("t",), description="d"))
    assert (changed.workspace.name, changed.workspace.tags, changed.workspace.description) == ("c", ("t",), "d")
    assert [one.workspace.name for one in await shop.workspaces.list(ALICE)] == ["c", "a"]
    for bad in ("", "  ", "x" * 129, "ws_" + "0" * 32, "a\nb"):
        with pytest.raises(InvalidInput):
            await shop.create(bad)
    for bad in ("a/b", ".", ".."):
        with pytest.raises(InvalidInput, match=r"without '/', and not '\.' or '\.\.'$"):
            await shop.create(bad)
    assert (await shop.create("..v1.2")).workspace.name == "..v1.2"
