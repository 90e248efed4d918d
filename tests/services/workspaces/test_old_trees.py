"""What programs go on writing in the files from before a restore is a revision: however they end, and whoever dies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from atoll.domain import crash
from atoll.domain.errors import Conflict
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import Sandbox
from atoll.domain.tree import DEPTH_MAX
from atoll.testing.fake_processes import FakeProcess
from tests.services.conftest import ALICE, until

from .workshop import Workshop, disk

OLD, NEW = {b"a": b"old"}, {b"a": b"new"}


class Scene(NamedTuple):
    sandbox: Sandbox
    program: FakeProcess  # at work in the folder of before the restore
    folder: Path  # that folder


def start(shop: Workshop, sandbox: Sandbox) -> FakeProcess:
    """A program whose current folder is the workspace."""
    return shop.host.sandboxes[sandbox.id].start(ProcessSpec(("cat",), cwd="/workspace", stdin=True))


@pytest.fixture
async def scene(shop: Workshop) -> Scene:
    """r2 is OLD, r3 NEW; r2 was restored as r4 under a program."""
    await shop.create()
    sandbox = await shop.mount("w")
    folder = await shop.folder("w")
    for files in (OLD, NEW):
        (folder / "a").write_bytes(files[b"a"])
        await shop.take()
    program = start(shop, sandbox)
    await shop.workspaces.restoring.restore(ALICE, "w", "2")
    assert await shop.files("w") == OLD == disk(await shop.folder("w"))
    return Scene(sandbox, program, folder)


async def end(program: FakeProcess) -> None:
    program.signal(9)
    await program.ended()


async def assert_kept(shop: Workshop, folder: Path, *late: dict[bytes, bytes]) -> None:
    """Soon each of `late` is in the log, the old tree is gone, and the head is what was restored."""
    await until(lambda: not folder.exists())
    states = [await shop.files("w", one.revision.id) for one in await shop.log()]
    assert all(state in states for state in late), states
    assert states[0] == OLD == disk(await shop.folder("w"))
    assert len(await shop.runtime.list_trees()) == 1


async def test_what_a_program_writes_until_it_ends_is_kept(shop: Workshop, scene: Scene) -> None:
    (scene.folder / "late").write_bytes(b"much later")
    await shop.parts.upkeep.reconcile()
    assert len(await shop.log()) == 4  # while it is at work it may write more
    (scene.folder / "a").write_bytes(b"last")
    await end(scene.program)
    await shop.parts.upkeep.reconcile()
    assert not scene.folder.exists()
    await assert_kept(shop, scene.folder, {b"a": b"last", b"late": b"much later"})
    kept, top = (await shop.log())[1::-1]
    assert (kept.revision.reason, top.revision.reason, top.revision.message) == ("before_restore", "restore", "r4")


async def test_the_end_of_its_sandbox_or_of_another_process_is_enough(shop: Workshop, scene: Scene) -> None:
    other = start(shop, scene.sandbox)
    await shop.workspaces.restoring.restore(ALICE, "w", "1")
    assert len(await shop.runtime.list_trees()) == 3
    (scene.folder / "late").write_bytes(b"x")
    await end(scene.program)
    await shop.sandboxes.processes.run(ALICE, scene.sandbox.id, ProcessSpec(("true",)))
    await until(lambda: not scene.folder.exists())
    assert await shop.files("w") == {}
    assert other.exit is None
    await shop.sandboxes.kill(ALICE, scene.sandbox.id)
    await until(lambda: _one_tree(shop))
    assert {**NEW, b"late": b"x"} in [await shop.files("w", one.revision.id) for one in await shop.log()]


async def test_nothing_is_lost_when_the_server_dies(shop: Workshop, scene: Scene) -> None:
    (scene.folder / "late").write_bytes(b"before")
    await shop.die()
    (scene.folder / "later").write_bytes(b"after")
    await shop.sandboxes.kill(ALICE, scene.sandbox.id)
    await assert_kept(shop, scene.folder, {**NEW, b"late": b"before", b"later": b"after"})


async def test_nothing_is_lost_when_the_machine_stops(shop: Workshop, scene: Scene) -> None:
    (scene.folder / "late").write_bytes(b"x")
    await shop.host.reboot()
    await shop.die()
    await shop.parts.upkeep.reconcile()
    await assert_kept(shop, scene.folder, {**NEW, b"late": b"x"})


async def test_nothing_is_lost_when_its_sandbox_rests(shop: Workshop, scene: Scene) -> None:
    (scene.folder / "late").write_bytes(b"x")
    await shop.sandboxes.suspend(ALICE, scene.sandbox.id)
    await assert_kept(shop, scene.folder, {**NEW, b"late": b"x"})
    await shop.sandboxes.resume(ALICE, scene.sandbox.id)
    assert await shop.files("w") == OLD == disk(await shop.folder("w"))


async def test_nothing_is_kept_where_nothing_was_written(shop: Workshop, scene: Scene) -> None:
    await shop.sandboxes.kill(ALICE, scene.sandbox.id)
    await assert_kept(shop, scene.folder)
    assert len(await shop.log()) == 4


async def test_a_cut_between_the_two_revisions_is_mended_where_no_working_tree_tells_the_second(
    shop: Workshop, scene: Scene
) -> None:
    class Died(BaseException):
        pass

    def die(_point: str) -> None:
        raise Died

    shop.host.trees.linger = True
    await shop.sandboxes.kill(ALICE, scene.sandbox.id)
    await shop.workspaces.restoring.restore(ALICE, "w", "1")
    found = await shop.records.find_workspace(ALICE.id, "w")
    assert found is not None and found.tree_id is None
    (scene.folder / "late").write_bytes(b"x")
    await until(lambda: not shop.parts.background._tasks)  # pyright: ignore[reportPrivateUsage]
    shop.host.trees.linger = False
    with crash.armed("workspaces.restore.left", die), pytest.raises(Died):
        await shop.parts.upkeep.reconcile()
    assert await shop.files("w") == {**NEW, b"late": b"x"}
    await shop.die()
    await shop.parts.upkeep.reconcile()
    assert await shop.files("w") == {}
    assert await shop.runtime.list_trees() == []


async def test_an_undo_goes_back_to_before_what_its_user_sees(shop: Workshop, scene: Scene) -> None:
    (await shop.folder("w") / "b").write_bytes(b"wrong")
    await shop.take()
    (scene.folder / "late").write_bytes(b"x")
    await end(scene.program)
    await shop.parts.upkeep.reconcile()
    assert not scene.folder.exists()
    assert await shop.files("w") == {**OLD, b"b": b"wrong"} == disk(await shop.folder("w"))
    await shop.workspaces.restoring.undo(ALICE, "w")
    assert await shop.files("w") == OLD == disk(await shop.folder("w"))


async def test_what_changed_meanwhile_and_is_no_revision_yet_stays(shop: Workshop, scene: Scene) -> None:
    (await shop.folder("w") / "b").write_bytes(b"new")
    (scene.folder / "late").write_bytes(b"x")
    await end(scene.program)
    await shop.parts.upkeep.reconcile()
    await shop.take()
    assert await shop.files("w") == {**OLD, b"b": b"new"} == disk(await shop.folder("w"))


async def test_what_no_revision_can_have_stays_and_is_told_once(shop: Workshop, scene: Scene) -> None:
    deep = scene.folder / "late" / "/".join(["d"] * DEPTH_MAX)
    deep.mkdir(parents=True)
    await end(scene.program)
    for _ in range(2):
        await shop.parts.upkeep.reconcile()
    assert deep.exists() and len(await shop.log()) == 4
    events = await shop.records.list_events(limit=1_000)
    told = [event for event in events if event.action == "workspace.old_tree_unread"]
    assert ["at most 4096 bytes and 256 parts" in str(event.detail["message"]) for event in told] == [True]
    shutil.rmtree(scene.folder / "late" / "d")
    await shop.parts.upkeep.reconcile()
    assert not scene.folder.exists()
    assert await shop.files("w", "HEAD~1") == NEW and await shop.files("w") == OLD


async def test_old_trees_are_bounded(shop: Workshop, scene: Scene) -> None:
    programs = [scene.program]
    for at in range(shop.limits.old_trees_max - 1):
        programs.append(start(shop, scene.sandbox))
        await shop.workspaces.restoring.restore(ALICE, "w", "23"[(at + 1) % 2])
    head = (await shop.log())[0]
    with pytest.raises(Conflict, match=f"programs in {scene.sandbox.id} still work in the files from before 8 earlier"):
        await shop.workspaces.restoring.restore(ALICE, "w", "1")
    assert (await shop.log())[0] == head
    await end(programs[3])
    restored = await shop.workspaces.restoring.restore(ALICE, "w", "1")
    assert restored.changed and await shop.files("w") == {}


async def test_a_deleted_workspace_takes_its_old_trees_along(shop: Workshop, scene: Scene) -> None:
    with pytest.raises(Conflict, match="mounted"):
        await shop.workspaces.delete(ALICE, "w")
    await shop.sandboxes.kill(ALICE, scene.sandbox.id)
    await shop.workspaces.delete(ALICE, "w")
    assert await shop.runtime.list_trees() == []
    await shop.parts.upkeep.reconcile()


async def _one_tree(shop: Workshop) -> bool:
    return len(await shop.runtime.list_trees()) == 1
