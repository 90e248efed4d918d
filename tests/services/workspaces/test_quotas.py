"""Quotas: what fits by one way fits by every other; what makes a workspace smaller is never refused."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from atoll.domain.errors import Conflict, InvalidInput, QuotaExceeded
from atoll.domain.process import ProcessSpec
from atoll.domain.tree import Entry, EntryKind
from atoll.domain.tree_size import TreeSize, size_of, with_slack
from atoll.domain.workspace import Quota
from atoll.services.workspaces.quotas import changed_quota, check_possible, fitting, new_quota
from atoll.services.workspaces.views import Changes
from tests.services.conftest import ALICE

from .test_importing import exported, files, import_
from .workshop import Workshop

MIB = 2**20
GIB = 2**30
LARGE = os.urandom(3 * MIB)


async def over_quota(shop: Workshop) -> None:
    """Workspaces `w`, of 3 MiB and a small file where 2 MiB are allowed by now, and `larger`, a fork with 5 MiB."""
    await shop.create(quota_bytes=8 * MIB)
    await shop.push("w", "HEAD", {b"small": b"1"})
    await shop.push("w", "HEAD", {b"large": LARGE})
    await shop.workspaces.forks.fork(ALICE, "w", "larger")
    await shop.push("larger", "HEAD", {b"more": os.urandom(2 * MIB)})
    await shop.workspaces.change(ALICE, "w", Changes(quota_bytes=2 * MIB))


async def push_more(shop: Workshop) -> object:
    return await shop.push("w", "HEAD", {b"more": b"1"})


async def push_larger(shop: Workshop) -> object:
    return await shop.push("w", "HEAD", {b"large": os.urandom(3 * MIB + 1)})


async def merge(shop: Workshop) -> object:
    return await shop.workspaces.merging.merge(ALICE, "w", "larger")


async def import_more(shop: Workshop) -> object:
    return await import_(shop, files({"a": os.urandom(4 * MIB)}))


async def import_what_is_larger(shop: Workshop) -> object:
    return await import_(shop, await exported(shop, "larger"))


GROWING = [push_more, push_larger, merge, import_more, import_what_is_larger]


@pytest.mark.parametrize("mounted", [False, True], ids=["at rest", "mounted"])
@pytest.mark.parametrize("way", GROWING)
async def test_over_its_quota_a_workspace_does_not_grow(
    shop: Workshop, way: Callable[[Workshop], Awaitable[object]], mounted: bool
) -> None:
    await over_quota(shop)
    if mounted:
        await shop.mount("w")
    before = await shop.log()
    with pytest.raises(QuotaExceeded, match=r"quotaBytes|cannot hold"):
        await way(shop)
    assert await shop.log() == before


async def test_over_its_quota_a_workspace_may_be_opened_and_become_smaller_but_not_what_it_was(shop: Workshop) -> None:
    await over_quota(shop)
    await shop.mount("w")  # a tree that holds it
    assert shop.host.trees.quotas[(await shop.folder_id("w"))].bytes > 3 * MIB
    await shop.push("w", "HEAD", {b"large": os.urandom(3 * MIB)})  # no more than before
    await shop.push("w", "HEAD", {b"large": os.urandom(MIB * 5 // 2)})
    await shop.push("w", "HEAD", {b"large": None})
    with pytest.raises(QuotaExceeded, match="at most 2097152 bytes, and this takes"):
        await shop.workspaces.restoring.undo(ALICE, "w")
    with pytest.raises(QuotaExceeded):
        await shop.workspaces.restoring.restore(ALICE, "w", "3")
    with pytest.raises(QuotaExceeded):
        await shop.workspaces.restoring.restore(ALICE, "w", "3", "large")
    await shop.workspaces.restoring.restore(ALICE, "w", "2")
    await shop.workspaces.change(ALICE, "w", Changes(quota_bytes=4 * MIB))
    await shop.workspaces.restoring.restore(ALICE, "w", "3")
    assert await shop.files("w") == {b"large": LARGE, b"small": b"1"}


async def test_what_is_over_a_quota_of_inodes_shrinks_by_a_push_of_all_that_goes(shop: Workshop) -> None:
    await shop.create(quota_bytes=MIB)
    await shop.push("w", "HEAD", {b"f%d" % number: b"" for number in range(60)})
    await shop.workspaces.change(ALICE, "w", Changes(quota_inodes=20))
    with pytest.raises(QuotaExceeded, match=r"quotaInodes: .* 20 files and folders, .* holds 61 now"):
        await shop.push("w", "HEAD", {b"one more": b""})
    await shop.push("w", "HEAD", {b"f%d" % number: None for number in range(30)})
    with pytest.raises(QuotaExceeded):
        await shop.push("w", "HEAD", {b"one more": b""})
    await shop.push("w", "HEAD", {b"f%d" % number: None for number in range(30, 50)})
    await shop.push("w", "HEAD", {b"one more": b""})


async def test_a_tree_without_room_on_the_way_is_changed_for_another(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.create(quota_bytes=4 * MIB)
    await shop.push("w", "HEAD", {b"large": LARGE})
    await shop.mount("w")
    old = await shop.folder_id("w")

    async def nearly_full(_keeper: object) -> TreeSize:
        return TreeSize(MIB, 10)

    monkeypatch.setattr("atoll.sidekick.keeper_client.KeeperClient.free", nearly_full)
    await shop.push("w", "HEAD", {b"large": LARGE[:-1] + b"!"})
    assert await shop.folder_id("w") != old
    assert (await shop.folder("w") / "large").read_bytes()[-1:] == b"!"
    assert await shop.reasons() == ["created", "sync", "sync"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"quota_bytes": MIB - 1}, r"quotaBytes must be between 1048576 \(1 MiB\) and 107374182400 \(100 GiB\)"),
        ({"quota_bytes": 101 * GIB}, "quotaBytes must be between"),
        (
            {"quota_bytes": 5 * MIB, "quota_inodes": 1281},
            r"quotaInodes must be between 16 and 1280 with quotaBytes 5242880 \(5 MiB\)",
        ),
        (
            {"quota_inodes": 1279},
            r"quotaInodes must be between 1280 and 2621440 with quotaBytes 10737418240 \(10 GiB\)",
        ),
        ({"quota_inodes": 15, "quota_bytes": MIB}, "quotaInodes must be between 16 and 256"),
    ],
)
async def test_a_quota_that_cannot_be_kept_is_refused_with_what_can(
    shop: Workshop, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        await shop.create(**fields)
    assert refused.value.field == said.partition(" ")[0]


def test_inodes_that_nobody_asked_for_go_with_the_bytes() -> None:
    small = changed_quota(Quota(), Quota(), 5 * MIB, None)
    assert small == Quota(5 * MIB, 1280)
    assert changed_quota(small, Quota(), 10 * GIB, None) == Quota()
    assert changed_quota(Quota(GIB, 500), Quota(), 16 * GIB, None) == Quota(16 * GIB, 2048)
    assert changed_quota(Quota(GIB, 500), Quota(), None, None) == Quota(GIB, 500)
    assert fitting(Quota(1000, 5)) == Quota(MIB, 16)


def test_size_is_counted_as_a_file_system_does() -> None:
    root = Entry(b"", EntryKind.DIRECTORY)

    def files(*sizes: int) -> list[Entry]:
        return [root, *(Entry(b"%d" % at, EntryKind.FILE, size=size) for at, size in enumerate(sizes))]

    assert size_of([root]) == (0, 1)
    assert size_of(files(0, 1, 4096, 4097)) == ((0 + 1 + 1 + 2) * 4096, 5)
    holes = Entry(b"f", EntryKind.FILE, size=GIB, holes=((1, 8191), (8193, GIB - 8193)))
    assert size_of([root, holes]) == (2 * 4096, 2)
    assert size_of([root, Entry(b"d", EntryKind.DIRECTORY), Entry(b"l", EntryKind.HARDLINK, target=b"x")]) == (4096, 2)
    assert size_of([root, Entry(b"l", EntryKind.SYMLINK, target=b"x" * 60)]) == (4096, 2)
    assert with_slack(TreeSize(0, 1)) > TreeSize(0, 1)


def test_a_server_that_allows_few_inodes_allows_those_that_there_are_anyway() -> None:
    most = Quota(100 * GIB, 256)
    check_possible(new_quota(Quota(10 * GIB, 256), None, None), most)
    with pytest.raises(InvalidInput, match="quotaInodes must be between 1280 and 1280"):
        check_possible(Quota(10 * GIB, 256), most)


async def test_a_push_that_takes_another_tree_keeps_to_the_bound_of_old_trees(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.limits = replace(shop.limits, old_trees_max=1)
    await shop.restart()
    await shop.create(quota_bytes=4 * MIB)
    await shop.push("w", "HEAD", {b"large": LARGE})
    sandbox = await shop.mount("w")

    async def nearly_full(_keeper: object) -> TreeSize:
        return TreeSize(MIB, 10)

    monkeypatch.setattr("atoll.sidekick.keeper_client.KeeperClient.free", nearly_full)
    program = shop.host.sandboxes[sandbox.id].start(ProcessSpec(("cat",), cwd="/workspace", stdin=True))
    await shop.push("w", "HEAD", {b"large": LARGE[:-1] + b"1"})
    with pytest.raises(Conflict, match="from before 1 earlier restores"):
        await shop.push("w", "HEAD", {b"large": LARGE[:-1] + b"2"})
    assert await shop.reasons() == ["created", "sync", "sync"]
    program.signal(9)
    await program.ended()
    await shop.push("w", "HEAD", {b"large": LARGE[:-1] + b"2"})
    assert (await shop.folder("w") / "large").read_bytes()[-1:] == b"2"
    assert len(await shop.runtime.list_trees()) == 1
