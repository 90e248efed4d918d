"""Imports and exports of workspaces: what goes out comes back the same; what is refused leaves everything as it was."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import zstandard

from atoll.domain import crash
from atoll.domain.errors import (
    AtollError,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    RateLimited,
    TooLarge,
)
from atoll.domain.tree import Entry
from tests.services.conftest import ALICE, BOB

from .workshop import LIMITS, Workshop

MIB = 2**20


async def sent(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 64 * 1024):
        yield data[at : at + 64 * 1024]


def packed(fill: Callable[[tarfile.TarFile], None]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        fill(archive)
    return zstandard.compress(data.getvalue())


def files(contents: dict[str, bytes]) -> bytes:
    def fill(archive: tarfile.TarFile) -> None:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    return packed(fill)


async def exported(shop: Workshop, name: str, revision: str = "HEAD") -> bytes:
    pieces = await shop.workspaces.archives.export(ALICE, name, revision)
    return b"".join([piece async for piece in pieces])


async def import_(shop: Workshop, data: bytes, name: str = "w", **options: object) -> None:
    await shop.workspaces.archives.import_archive(ALICE, name, sent(data), **options)  # type: ignore[arg-type]


def some_of_everything(folder: bytes) -> None:
    os.mkdir(folder + b"/empty", 0o700)
    os.mkdir(folder + b"/d\xff")
    with open(folder + b"/d\xff/file", "wb") as file:
        file.write(os.urandom(3 * MIB + 7))
    os.chmod(folder + b"/d\xff/file", 0o2751)
    os.link(folder + b"/d\xff/file", folder + b"/linked")
    os.symlink(b"/anywhere/\xfe", folder + b"/to")
    os.mkfifo(folder + b"/fifo")
    with open(folder + b"/sparse", "wb") as file:
        file.seek(2 * MIB)
        file.write(b"end")
    for path in (b"/d\xff/file", b"/empty", b"/sparse"):
        os.utime(folder + path, ns=(0, 1_600_000_000_123_456_789))


def unowned(entries: list[Entry]) -> list[Entry]:
    """What is unpacked belongs to the tree's own user: of a keeper in a test that is whoever runs it."""
    return [entry._replace(uid=0, gid=0) for entry in entries]


async def test_f13_what_goes_out_comes_back_the_same(shop: Workshop) -> None:
    await shop.create()
    await shop.create("copy")
    await shop.mount("w")
    some_of_everything(os.fsencode(await shop.folder("w")))
    await shop.take()
    await import_(shop, await exported(shop, "w"), "copy", message="from w")
    assert unowned(await shop.entries("copy")) == unowned(await shop.entries("w"))
    copy = (await shop.log("copy"))[0].revision
    assert (copy.reason.value, copy.message) == ("import", "from w")
    assert await exported(shop, "w", "HEAD~1") != await exported(shop, "w")


async def test_an_import_replaces_all_and_can_be_undone(shop: Workshop) -> None:
    created = await shop.create()
    await shop.push("w", created.head.revision.id, {b"old": b"old", b"both": b"old"})
    await shop.mount("w")
    await import_(shop, files({"top/both": b"new", "top/new": b"new"}), strip=1)
    assert await shop.files("w") == {b"both": b"new", b"new": b"new"}
    folder = await shop.folder("w")
    assert sorted(os.listdir(folder)) == ["both", "new"]
    await shop.workspaces.restoring.undo(ALICE, "w")
    assert await shop.files("w") == {b"old": b"old", b"both": b"old"}


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("no zstd", b"neither zstd nor tar", InvalidInput),
        ("no tar", zstandard.compress(b"no tar" * 1_000), InvalidInput),
        ("cut", files({"a": os.urandom(100_000)})[:-500], InvalidInput),
        ("above", files({"../a": b"a"}), InvalidInput),
        ("absolute", files({"/etc/passwd": b"a"}), InvalidInput),
        ("quota", files({"a": bytes(3 * MIB)}), QuotaExceeded),
        ("bomb", zstandard.compress(bytes(512 * MIB)), AtollError),
        ("inodes", files({f"f{number}": b"" for number in range(300)}), QuotaExceeded),
    ],
)
async def test_f08_f11_f12_what_is_refused_leaves_no_trace(
    shop: Workshop, name: str, data: bytes, expected: type[AtollError]
) -> None:
    created = await shop.create(quota_bytes=2 * MIB, quota_inodes=256)
    before = await shop.push("w", created.head.revision.id, {b"kept": b"kept"})
    with pytest.raises(expected):
        await import_(shop, data)
    assert (await shop.log())[0].revision.id == before.revision.id
    assert await shop.files("w") == {b"kept": b"kept"}
    assert await shop.runtime.list_trees() == []


async def test_f11_the_bounds_of_imports_hold_below_the_quota(shop: Workshop) -> None:
    shop.limits = replace(LIMITS, import_bytes=MIB, import_entries=10)
    await shop.restart()
    await shop.create()
    for data in (files({"a": os.urandom(2 * MIB)}), files({f"f{number}": b"" for number in range(30)})):
        with pytest.raises(TooLarge):
            await import_(shop, data)
    shop.limits = replace(LIMITS, import_s=0.2)
    await shop.restart()

    async def stalled() -> AsyncIterator[bytes]:
        yield files({"a": b"a"})[:20]
        await asyncio.sleep(5)

    with pytest.raises(DeadlineExceeded):
        await shop.workspaces.archives.import_archive(ALICE, "w", stalled())
    assert await shop.runtime.list_trees() == []


async def test_who_may_not_look_or_write_gets_nothing(shop: Workshop) -> None:
    created = await shop.create()
    with pytest.raises(NotFound):
        await shop.workspaces.archives.export(BOB, created.workspace.id)
    with pytest.raises(NotFound):
        await shop.workspaces.archives.import_archive(BOB, created.workspace.id, sent(files({"a": b"a"})))
    with pytest.raises(NotFound):
        await shop.workspaces.archives.export(ALICE, "w", "HEAD~7")


@pytest.mark.parametrize("point", sorted(name for name in crash.POINTS if name.startswith("workspaces.import.")))
async def test_c01_an_import_that_is_cut_short_leaves_the_workspace_as_it_was(shop: Workshop, point: str) -> None:
    created = await shop.create()
    await shop.push("w", created.head.revision.id, {b"kept": b"kept"})

    def die(name: str) -> None:
        raise RuntimeError(name)

    with crash.armed(point, die), pytest.raises(RuntimeError):
        await import_(shop, files({"new": b"new"}))
    await shop.die()
    assert await shop.files("w") == {b"kept": b"kept"}
    await import_(shop, files({"new": b"new"}))
    assert await shop.files("w") == {b"new": b"new"}
    assert await shop.runtime.list_trees() == []


async def test_r10_archives_that_never_come_hold_a_few_trees_at_most(shop: Workshop) -> None:
    await shop.create()
    going_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield files({"f": b"x"})[:8]
        await going_on.wait()

    def begin() -> asyncio.Task[object]:
        return asyncio.create_task(shop.workspaces.archives.import_archive(ALICE, "w", slowly()))

    slow = [begin() for _ in range(LIMITS.imports_per_key)]
    await asyncio.sleep(0.2)
    with pytest.raises(RateLimited):
        await import_(shop, files({"f": b"x"}))
    assert len(await shop.runtime.list_trees()) <= LIMITS.imports_per_key
    going_on.set()
    ended = await asyncio.gather(*slow, return_exceptions=True)
    assert all(isinstance(one, InvalidInput) for one in ended)
    await import_(shop, files({"f": b"x"}))
    assert await shop.files("w") == {b"f": b"x"}
