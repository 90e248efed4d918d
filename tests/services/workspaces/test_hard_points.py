"""The hard points of working trees: cheap looks, marks that outlive a crash, trees that lag or move."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import timedelta

import pytest

from atoll.domain.errors import Conflict, NotFound, TooLarge
from atoll.domain.event import Event
from atoll.domain.tree import chunk_id
from atoll.domain.workspace import Permission, Reason, Revision, Workspace, WorkspaceMount
from atoll.sidekick.keeper_client import KeeperClient
from atoll.testing.fake_runtime import FakeHost, FakeRuntime
from tests.services.conftest import ALICE, BOB, until

from .workshop import Workshop, disk


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One for each scan."""
    seen: list[str] = []
    scan = KeeperClient.scan_packed

    def counted(self: KeeperClient):  # type: ignore[no-untyped-def]
        seen.append("scan")
        return scan(self)

    monkeypatch.setattr(KeeperClient, "scan_packed", counted)
    return seen


async def _clean(shop: Workshop, name: str = "w") -> bool:
    found = await shop.records.find_workspace(ALICE.id, name)
    return found is not None and found.tree_id is not None and not shop.parts.trees.is_marked(found.tree_id)


async def test_a_tree_that_nobody_could_change_is_not_looked_at(shop: Workshop, scans: list[str]) -> None:
    await shop.create()
    sandbox = await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(b"x")
    await shop.sandboxes.kill(ALICE, sandbox.id)
    await until(lambda: _clean(shop))
    before = len(scans)
    await shop.take()
    await shop.mount("w", read_only=True)
    await shop.take()
    await shop.restart()
    await shop.take()
    assert len(scans) == before
    await shop.mount("w")
    await shop.take()
    assert len(scans) == before + 1


async def test_only_what_changed_is_read(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    read = KeeperClient.read

    def counted(self: KeeperClient, paths: list[bytes]):  # type: ignore[no-untyped-def]
        asked.extend(paths)
        return read(self, paths)

    await shop.create()
    await shop.mount("w")
    folder = await shop.folder("w")
    for number in range(20):
        (folder / f"f{number}").write_bytes(os.urandom(100))
    await asyncio.sleep(0.05)
    await shop.take()
    monkeypatch.setattr(KeeperClient, "read", counted)
    (folder / "f7").write_bytes(b"changed")
    await asyncio.sleep(0.05)
    await shop.take()
    assert set(asked) <= {b"", b"f7"}
    assert b"f7" in asked


async def test_a_change_within_the_clocks_tick_is_not_missed(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    path = await shop.folder("w") / "a"
    for number in range(10):
        path.write_bytes(b"%04d" % number)
        os.utime(path, ns=(1, 1))
        await shop.take()
        assert await shop.files("w") == {b"a": b"%04d" % number}


async def test_what_a_sandbox_wrote_survives_a_server_that_dies_with_it(shop: Workshop) -> None:
    await shop.create()
    sandbox = await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(b"late")
    await shop.close()
    await shop.host.reboot()
    shop.build()
    await shop.start()
    await until(lambda: _clean(shop))
    assert await shop.files("w") == {b"a": b"late"}
    assert (await shop.sandboxes.get(ALICE, sandbox.id)).reason == "host_restarted"


async def test_lost_stamps_cost_a_look_and_nothing_else(shop: Workshop) -> None:
    await shop.create()
    sandbox = await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(b"x")
    head = await shop.take()
    await shop.sandboxes.kill(ALICE, sandbox.id)
    await until(lambda: _clean(shop))
    for file in (shop.data / "stamps").glob("*.stamps"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    await shop.restart()
    assert await shop.take() == head


async def test_a_tree_that_is_gone_is_filled_anew(shop: Workshop) -> None:
    await shop.create()
    await shop.push("w", "HEAD", {b"a": b"x"})
    sandbox = await shop.mount("w")
    await shop.sandboxes.kill(ALICE, sandbox.id)
    await until(lambda: _clean(shop))
    for tree_id in await shop.runtime.list_trees():
        await shop.runtime.remove_tree(tree_id)
    await shop.restart()
    await shop.parts.upkeep.reconcile()
    await shop.mount("w")
    assert disk(await shop.folder("w")) == {b"a": b"x"}


async def test_a_push_that_the_tree_cannot_follow_is_committed_and_comes_in_later(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.create()
    await shop.mount("w")
    folder = await shop.folder("w")
    apply = KeeperClient.apply
    refuse = [True]

    async def full(self: KeeperClient, steps, **how):  # type: ignore[no-untyped-def]
        if refuse:
            raise TooLarge("the disk is full")
        return await apply(self, steps, **how)

    monkeypatch.setattr(KeeperClient, "apply", full)
    await shop.push("w", "HEAD", {b"a": b"pushed"})
    assert await shop.files("w") == {b"a": b"pushed"}
    assert disk(folder) == {}
    (folder / "b").write_bytes(b"tenant")
    head = await shop.take()
    assert await shop.files("w") == {b"a": b"pushed", b"b": b"tenant"}
    assert await shop.take() == head
    refuse.clear()
    assert await shop.take() == head
    assert disk(folder) == {b"a": b"pushed", b"b": b"tenant"}


async def test_symlinks_are_data(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    folder = await shop.folder("w")
    (folder / "out").symlink_to("/etc")
    (folder / "passwd").symlink_to("/etc/passwd")
    await shop.take()
    listed = await shop.workspaces.history.files(ALICE, "w", depth=5)
    assert [(one.path, one.kind.value) for one in listed.entries] == [(b"out", "l"), (b"passwd", "l")]
    assert await shop.files("w") == {}


async def test_refs(shop: Workshop) -> None:
    await shop.create()
    await shop.push("w", "HEAD", {b"a": b"1"})
    moment = shop.now.isoformat()
    await shop.workspaces.snapshots.create(ALICE, "w", name="kept")
    await shop.push("w", "HEAD", {b"a": b"2"})
    rev = (await shop.log())[1].revision
    history = shop.workspaces.history
    for ref in (
        "HEAD~1",
        "HEAD~",
        "2",
        rev.id,
        "kept",
        (await shop.workspaces.snapshots.list(ALICE, "w"))[0].id,
        moment,
    ):
        assert (await history.get(ALICE, "w", ref)).revision.id == rev.id, ref
    assert (await history.get(ALICE, "w", "kept")).snapshots
    await shop.workspaces.forks.fork(ALICE, "w", "f")
    for ref in ("HEAD~3", "9", "rev_" + "0" * 24, "nothing", "1999-01-01T00:00:00Z"):
        with pytest.raises(NotFound):
            await history.get(ALICE, "w", ref)
    with pytest.raises(NotFound):
        await history.get(ALICE, "f", rev.id)


async def test_diff_tells_each_path_once_with_its_text(shop: Workshop) -> None:
    await shop.create()
    await shop.push("w", "HEAD", {b"a": b"one\ntwo\n", b"gone": b"x", b"old name": b"moved\n" * 9, b"bin": b"\0"})
    await shop.push(
        "w", "HEAD", {b"a": b"one\n2", b"gone": None, b"old name": None, b"new": b"moved\n" * 9, b"bin": b"\1\0"}
    )
    diff = await shop.workspaces.history.diff(ALICE, "w")
    told = {one.path: (one.change, one.binary) for one in diff.changes}
    assert told == {
        b"a": ("changed", False),
        b"bin": ("changed", True),
        b"gone": ("deleted", False),
        b"new": ("renamed", False),
    }
    text = next(one.text for one in diff.changes if one.path == b"a")
    assert text == "--- a\n+++ a\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n\\ No newline at end of file\n"
    assert [one.path for one in (await shop.workspaces.history.diff(ALICE, "w", path="bin")).changes] == [b"bin"]


async def test_listings_go_on_where_they_ended(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    folder = await shop.folder("w")
    for name in ("a/x", "a/y", "a-b", "b/c/d", "c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    await shop.take()
    history = shop.workspaces.history
    found: list[bytes] = []
    after = None
    while True:
        page = await history.files(ALICE, "w", limit=2, after=after)
        found += [one.path for one in page.entries]
        after = page.next
        if after is None:
            break
    assert found == [b"a", b"a-b", b"b", b"c"]
    assert [one.path for one in (await history.files(ALICE, "w", path="b", depth=2)).entries] == [b"b/c", b"b/c/d"]
    assert [one.path for one in (await history.files(ALICE, "w", path="c")).entries] == [b"c"]


async def test_automatic_revisions_are_thinned_out(shop: Workshop) -> None:
    shop.limits = replace(shop.limits, revisions_kept=2)
    await shop.restart()
    await shop.create()
    await shop.mount("w")
    folder = await shop.folder("w")
    workspace = (await shop.workspaces.get(ALICE, "w")).workspace.id
    for number in range(8):
        (folder / "a").write_bytes(b"%d" % number)
        if number in (2, 5):
            shop.now += timedelta(days=1)
        await shop.workspaces.revising.take(workspace, Reason.PROCESS)
    await shop.workspaces.forks.fork(ALICE, "w", "f", "3")
    await shop.parts.upkeep.prune()
    assert [one.revision.number for one in await shop.log()] == [9, 8, 7, 6, 3, 1]


async def test_a_daily_revision_of_a_workspace_that_stays_mounted(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(b"x")
    await shop.parts.upkeep.reconcile()
    assert await shop.reasons() == ["created"]
    shop.now += timedelta(days=1)
    await shop.parts.upkeep.reconcile()
    assert await shop.reasons() == ["created", "daily"]


async def test_a_workspace_that_wants_none_gets_no_automatic_revisions_but_on_stop(shop: Workshop) -> None:
    await shop.create(automatic=False)
    sandbox = await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(b"x")
    shop.workspaces.mounts.changed(sandbox)
    await asyncio.sleep(0.2)
    assert await shop.reasons() == ["created"]


async def test_mounts_need_permission(shop: Workshop) -> None:
    from atoll.domain.errors import Forbidden, InvalidInput
    from atoll.domain.sandbox import SandboxSpec

    made = await shop.create()
    mount = WorkspaceMount(made.workspace.id)
    with pytest.raises(NotFound):
        await shop.sandboxes.create(BOB, SandboxSpec(workspaces=(mount,)))
    await shop.workspaces.sharing.share(ALICE, "w", [BOB.id], Permission.READ)
    with pytest.raises(Forbidden):
        await shop.sandboxes.create(BOB, SandboxSpec(workspaces=(mount,)))
    sandbox = await shop.sandboxes.create(
        BOB, SandboxSpec(workspaces=(WorkspaceMount(made.workspace.id, read_only=True),))
    )
    assert (await shop.workspaces.get(ALICE, "w")).mounted == (sandbox.id,)
    with pytest.raises(Conflict):
        await shop.workspaces.delete(ALICE, "w")
    with pytest.raises(InvalidInput):
        await shop.sandboxes.create(ALICE, SandboxSpec(workspaces=(WorkspaceMount("w", "/proc"),)))


@pytest.mark.parametrize("resting", [False, True])
async def test_who_loses_a_share_loses_the_mount(shop: Workshop, resting: bool) -> None:
    from atoll.domain.errors import Forbidden
    from atoll.domain.sandbox import SandboxSpec

    made = await shop.create()
    await shop.workspaces.sharing.share(ALICE, "w", [BOB.id], Permission.WRITE)
    both = SandboxSpec(workspaces=(WorkspaceMount(made.workspace.id),))
    reads = SandboxSpec(workspaces=(WorkspaceMount(made.workspace.id, read_only=True),))
    writer, reader = await shop.sandboxes.create(BOB, both), await shop.sandboxes.create(BOB, reads)
    mine = await shop.mount("w")
    if resting:
        await shop.sandboxes.suspend(BOB, writer.id)
    await shop.workspaces.sharing.share(ALICE, "w", [BOB.id], Permission.READ)
    if resting:
        with pytest.raises(Forbidden, match="to write any more"):
            await shop.sandboxes.resume(BOB, writer.id)
    else:
        assert (await shop.sandboxes.get(BOB, writer.id)).state == "killed"
    assert (await shop.sandboxes.get(BOB, reader.id)).state == "running"
    await shop.workspaces.sharing.revoke(ALICE, "w", BOB.id)
    assert (await shop.sandboxes.get(BOB, reader.id)).state == "killed"
    assert (await shop.workspaces.get(ALICE, "w")).mounted == (mine.id,)


async def test_chunks_cut_off_are_kept_as_far_as_they_came(shop: Workshop) -> None:
    import zstandard

    from atoll.services.workspaces.views import SentChunk

    await shop.create()

    async def cut():  # type: ignore[no-untyped-def]
        yield SentChunk(chunk_id(b"first"), 5, zstandard.compress(b"first"))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await shop.workspaces.sync.chunks(ALICE, "w", cut())
    ids = [chunk_id(b"first"), chunk_id(b"second")]
    assert await shop.workspaces.sync.missing(ALICE, "w", ids) == ids[1:]


async def test_a_workspace_moves_to_another_runtime_by_its_revision(shop: Workshop) -> None:
    mount = WorkspaceMount((await shop.create()).workspace.id)
    sandbox = await shop.mount("w")
    (await shop.folder("w") / "a").write_bytes(b"x")

    class Other(FakeRuntime):
        name = "other"

    moved = Workshop(shop.data, shop.records, FakeHost(), shop.blobs, shop.vault, runtime_kind=Other)
    with pytest.raises(Conflict, match="fake runtime"):
        await moved.parts.mounts.prepare("sess_000000000001", ALICE.id, [mount])
    await shop.sandboxes.kill(ALICE, sandbox.id)
    await until(lambda: _clean(shop))
    ready = await moved.parts.mounts.prepare("sess_000000000001", ALICE.id, [mount])
    assert disk(moved.host.trees.folder(ready[0].tree_id)) == {b"a": b"x"}
    await moved.workspaces.close()
    moved.host.trees.close()


async def test_a_pull_of_a_snapshot_with_its_own_key_finds_its_chunks(shop: Workshop) -> None:
    await shop.create()
    await shop.push("w", "HEAD", {b"a": b"secret"})
    snapshot = await shop.workspaces.snapshots.create(ALICE, "w", own_key=True)
    lineage = (await shop.workspaces.get(ALICE, "w")).workspace.lineage
    await shop.records.delete_chunks(lineage, [chunk_id(b"secret")], shop.now + timedelta(days=1))
    fetched = [
        one async for one in await shop.workspaces.sync.fetch(ALICE, "w", [chunk_id(b"secret"), bytes([7]) * 32])
    ]
    assert [one.size for one in fetched] == [6, 0]
    assert snapshot.lineage != lineage


async def test_each_change_goes_through_when_another_process_comes_between(shop: Workshop) -> None:
    await shop.create()
    await shop.push("w", "HEAD", {b"a": b"1"})
    await shop.workspaces.forks.fork(ALICE, "w", "f")
    await shop.push("f", "HEAD", {b"f": b"fork"})
    await shop.mount("w")
    add, between = shop.records.add_revision, [0]

    async def late(revision: Revision, workspace: Workspace, event: Event) -> Workspace:
        between[0] += 1
        if between[0] % 2:
            stored = await shop.records.get_workspace(workspace.id)
            assert stored is not None
            await shop.records.swap_workspace(replace(stored, description=f"{between[0]}"), None)
        return await add(revision, workspace, event)

    shop.records.add_revision = late  # type: ignore[method-assign]
    (await shop.folder("w") / "b").write_bytes(b"2")
    await shop.take()
    await shop.push("w", "HEAD", {b"c": b"3"})
    await shop.workspaces.merging.merge(ALICE, "w", "f")
    assert await shop.files("w") == {b"a": b"1", b"b": b"2", b"c": b"3", b"f": b"fork"}
    await shop.workspaces.restoring.restore(ALICE, "w", "2", "a")
    await shop.workspaces.restoring.restore(ALICE, "w", "2")
    assert await shop.files("w") == {b"a": b"1"} == disk(await shop.folder("w"))
    await shop.workspaces.restoring.undo(ALICE, "w")
    assert await shop.files("w") == {b"a": b"1", b"b": b"2", b"c": b"3", b"f": b"fork"}
    assert len(await shop.runtime.list_trees()) == 1
    assert between[0] >= 10
