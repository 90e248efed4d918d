"""The server dies at each crash point of a workspace's life; the next one finds everything whole.

Whole: every revision is readable, the head is the state before or after the operation and nothing else, a working tree
equals the head or what a tenant wrote, no tree is left that nobody knows, and the operation can be done again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from atoll.domain import crash
from atoll.domain.errors import AtollError
from tests.services.conftest import ALICE, until

from .workshop import Workshop, disk

Operation = Callable[[Workshop], Awaitable[object]]


class Died(BaseException):
    """The process is gone: nothing after the point runs."""


OLD, NEW = {b"a": b"one", b"d/b": b"two"}, {b"a": b"changed", b"c": b"new"}


async def _write(shop: Workshop, files: dict[bytes, bytes], name: str = "w") -> None:
    folder = await shop.folder(name)
    for path in disk(folder):
        (folder / path.decode()).unlink()
    for path, data in files.items():
        at = folder / path.decode()
        at.parent.mkdir(exist_ok=True)
        at.write_bytes(data)


async def _push(shop: Workshop) -> None:
    head = await shop.workspaces.sync.head(ALICE, "w")
    await shop.push("w", head.revision.id, {b"pushed": b"x"})


LATE = b"written between the last look and the swap"


async def _restore_late(shop: Workshop) -> None:
    """A restore while a tenant writes into the old tree to the very end."""
    folder, swap = await shop.folder("w"), shop.runtime.swap_tree

    async def late(*how: Any, **options: Any) -> None:
        if folder.exists():
            (folder / "late").write_bytes(LATE)
        await swap(*how, **options)

    shop.runtime.swap_tree = late  # type: ignore[method-assign]
    await shop.workspaces.restoring.restore(ALICE, "w", "2")


CASES: dict[str, tuple[Operation, tuple[str, ...]]] = {
    "create": (
        lambda shop: shop.create("new"),
        ("create.keyed", "create.stored", "create.recorded"),
    ),
    "open": (lambda shop: shop.mount("idle"), ("tree.made", "tree.filled", "open.recorded")),
    "take": (lambda shop: shop.take(), ("take.stored", "take.recorded", "pack.stored")),
    "commit": (
        lambda shop: _push(shop),
        ("commit.stored", "commit.recorded", "follow.applied"),
    ),
    "restore": (
        lambda shop: shop.workspaces.restoring.restore(ALICE, "w", "2"),
        ("restore.hydrated", "restore.kept", "restore.recorded", "restore.swapped", "take.recorded", "tree.filled"),
    ),
    "late": (lambda shop: _restore_late(shop), ("restore.left",)),
    "undo": (lambda shop: shop.workspaces.restoring.undo(ALICE, "w"), ("restore.kept", "restore.recorded")),
    "fork": (lambda shop: shop.workspaces.forks.fork(ALICE, "w", "new"), ("fork.stored", "fork.recorded")),
    "merge": (lambda shop: shop.workspaces.merging.merge(ALICE, "w", "idle"), ("merge.stored", "follow.applied")),
    "snapshot": (
        lambda shop: shop.workspaces.snapshots.create(ALICE, "w", own_key=True),
        ("snapshot.taken", "snapshot.copied", "snapshot.recorded", "prune.chosen", "snapshot.shredded"),
    ),
    "delete": (
        lambda shop: shop.workspaces.delete(ALICE, "alone"),
        ("delete.recorded", "delete.emptied", "delete.forgotten"),
    ),
}


def test_each_point_of_ours_is_in_a_case() -> None:
    named = {f"workspaces.{point}" for _, points in CASES.values() for point in points}
    theirs = ("workspaces.collect.", "workspaces.import.")
    assert named == {one for one in crash.POINTS if one.startswith("workspaces.") and not one.startswith(theirs)}


@pytest.mark.parametrize(("case", "point"), [(case, point) for case, (_, points) in CASES.items() for point in points])
async def test_a_crash_leaves_everything_whole(shop: Workshop, case: str, point: str) -> None:
    operation = CASES[case][0]
    await shop.create()
    await shop.mount("w")
    await _write(shop, OLD)
    await shop.take()
    await shop.workspaces.forks.fork(ALICE, "w", "idle")
    await shop.push("idle", "HEAD", {b"theirs": b"theirs"})
    for number in range(6 if case == "snapshot" else 0):
        await shop.push("w", "HEAD", {b"n": b"%d" % number})
        await shop.workspaces.snapshots.create(ALICE, "w", own_key=True)
    if case == "delete":
        await shop.create("alone")
        await shop.sandboxes.kill(ALICE, (await shop.mount("alone")).id)
        await shop.parts.upkeep.reconcile()
    await _write(shop, NEW)
    heads = {name: await shop.files(name) for name in ("w", "idle")}
    reached: list[str] = []

    def die(name: str) -> None:
        reached.append(name)
        raise Died

    with crash.armed(f"workspaces.{point}", die):
        with suppress(Died):
            await operation(shop)
        assert reached, f"{point} is not reached"
    await shop.die()
    await shop.parts.upkeep.reconcile()
    await until(lambda: _whole(shop, case, heads))
    if case not in ("delete", "undo"):
        try:
            await operation(shop)
        except AtollError as error:
            assert case in ("create", "fork") and error.code == "conflict", error  # it was done
    if case == "late":
        assert await shop.files("w") == OLD == disk(await shop.folder("w"))
        assert any([LATE in (await shop.files("w", one.revision.id)).values() for one in await shop.log()])
    elif case == "delete":
        lineages = await shop.records.list_lineages()
        assert await shop.records.find_workspace(ALICE.id, "alone") is None
        assert [one.key is None for one in lineages] == [False, True]
    await shop.parts.upkeep.reconcile()
    assert await _whole(shop, case, heads)


async def _whole(shop: Workshop, case: str, heads: dict[str, dict[bytes, bytes]]) -> bool:
    """Asserts what must hold at once; False while what may take a moment is not done."""
    recorded: set[str] = set()
    for view in await shop.workspaces.list(ALICE):
        workspace = view.workspace
        for one in await shop.log(workspace.name):
            await shop.files(workspace.name, one.revision.id)
        if workspace.tree_id is not None:
            recorded.add(workspace.tree_id)
    head, there = await shop.files("w"), disk(await shop.folder("w"))
    states = {
        "commit": [heads["w"], NEW, {**NEW, b"pushed": b"x"}],
        "restore": [heads["w"], NEW, OLD],
        "late": [heads["w"], NEW, OLD, {**NEW, b"late": LATE}],
        "undo": [heads["w"], NEW],
        "merge": [heads["w"], NEW, {**NEW, b"theirs": b"theirs"}],
    }.get(case, [heads["w"], NEW])
    assert head in states, head
    if case == "commit" and head == states[2]:
        await shop.workspaces.sync.head(ALICE, "w")
        there = disk(await shop.folder("w"))
    if case == "merge" and head == states[2]:
        await shop.workspaces.sync.head(ALICE, "w")
        there = disk(await shop.folder("w"))
    assert there in states, there
    for entry in await shop.runtime.list_trees():
        if entry not in recorded:
            return False
    for sandbox in shop.host.sandboxes.values():
        for mount in sandbox.files.mounts:
            if mount.tree_id not in recorded:
                return False
    return True
