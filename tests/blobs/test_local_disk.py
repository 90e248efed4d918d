"""C11 for the local disk: killed at any point, full, or shared, it has whole objects only and nothing else."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atoll.blobs import durable_folder
from atoll.blobs.local_disk import LocalDisk
from atoll.domain.errors import InvalidInput, NotFound, Unavailable

OLD, NEW = b"old" * 1_000, b"new" * 400_000

PUTTER = """
import asyncio, sys
from pathlib import Path
from atoll.blobs.local_disk import LocalDisk

async def pieces(data):
    for at in range(0, len(data), 1 << 16):
        yield data[at : at + (1 << 16)]

async def main():
    blobs = LocalDisk(Path(sys.argv[1]))
    await blobs.start()
    if sys.argv[2] == "put":
        await blobs.put("lineages/a/k", b"new" * 400_000)
    else:
        await blobs.write("lineages/a/k", pieces(b"new" * 400_000))

asyncio.run(main())
"""
REPEATER = """
import asyncio, sys
from pathlib import Path
from atoll.blobs.local_disk import LocalDisk

async def main():
    blobs = LocalDisk(Path(sys.argv[1]))
    await blobs.start()
    print("ready", flush=True)
    for number in range(1_000_000):
        await asyncio.gather(*(blobs.put(f"folder/{n}", bytes([number % 256]) * 200_000) for n in range(4)))
        await blobs.delete("folder/0")

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "blobs"


@pytest.fixture
async def blobs(folder: Path) -> AsyncIterator[LocalDisk]:
    store = LocalDisk(folder)
    await store.start()
    yield store
    await store.close()


async def put(folder: Path, key: str, data: bytes) -> None:
    store = LocalDisk(folder)
    await store.start()
    await store.put(key, data)
    await store.close()


async def everything(folder: Path) -> dict[str, bytes]:
    """What a store that starts there has; nothing partial may be left then."""
    store = LocalDisk(folder)
    await store.start()
    found = {blob.key: await store.get(blob.key) async for blob in store.list("")}
    await store.close()
    assert os.listdir(folder / "partial") == []
    return found


@pytest.mark.parametrize("call", ["put", "write"])
@pytest.mark.parametrize("crash", ["blobs.put.written", "blobs.put.synced", "blobs.put.renamed"])
def test_c11_killed_at_any_point_it_has_the_old_or_the_new(folder: Path, crash: str, call: str) -> None:
    for old in (None, OLD):
        if old is not None:
            asyncio.run(put(folder, "lineages/a/k", old))
        environ = {**os.environ, "ATOLL_CRASH_AT": crash}
        killed = subprocess.run([sys.executable, "-c", PUTTER, str(folder), call], env=environ, timeout=30)
        assert killed.returncode == -signal.SIGKILL
        if crash == "blobs.put.renamed":
            assert asyncio.run(everything(folder)) == {"lineages/a/k": NEW}
        else:
            assert len(os.listdir(folder / "partial")) == 1
            assert asyncio.run(everything(folder)) == ({} if old is None else {"lineages/a/k": old})


def test_c11_killed_at_any_time_every_object_is_whole(folder: Path) -> None:
    pauses = random.Random(7)
    for _ in range(4):
        repeater = subprocess.Popen([sys.executable, "-c", REPEATER, str(folder)], stdout=subprocess.PIPE)
        assert repeater.stdout is not None and repeater.stdout.readline() == b"ready\n"
        time.sleep(pauses.uniform(0.01, 0.2))
        repeater.kill()
        repeater.wait(10)
        repeater.stdout.close()
        for key, data in asyncio.run(everything(folder)).items():
            assert len(data) == 200_000 and len(set(data)) == 1, key


async def test_bytes_then_name_then_folders_reach_the_disk(
    blobs: LocalDisk, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(file: int) -> None:
        path = os.readlink(f"/proc/self/fd/{file}")
        fsync(file)
        done.append(f"sync {os.path.relpath(path, folder)}")

    def noted_rename(source: Any, target: Any) -> None:
        rename(source, target)
        done.append(f"rename {os.path.relpath(source, folder)} {os.path.relpath(target, folder)}")

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    await blobs.put("a/b/k", b"data")
    partial = done[0].removeprefix("sync ")
    assert partial.startswith("partial/")
    assert done == [
        f"sync {partial}",
        "sync objects",  # its new entry a
        "sync objects/a",  # ... and its new entry b
        f"rename {partial} objects/a/b/k",
        "sync objects/a/b",
    ]


async def test_c11_a_full_disk_is_unavailable_and_leaves_nothing(
    blobs: LocalDisk, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await blobs.put("k", b"old")
    room = 3

    def write(file: int, data: memoryview) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room -= 1
        return real_write(file, data[:1])

    real_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(durable_folder.os, "write", write)
        with pytest.raises(Unavailable, match="No space left on device") as refused:
            await blobs.put("k", b"newer")
        assert str(folder) not in refused.value.message  # a client is told of it, too
        with pytest.raises(Unavailable, match="No space left on device"):
            await blobs.write("other", pieces(b"newer"))
    assert os.listdir(folder / "partial") == []
    assert await blobs.get("k") == b"old"
    assert [blob.key async for blob in blobs.list("")] == ["k"]


async def test_a_start_leaves_alone_what_another_process_is_writing(blobs: LocalDisk, folder: Path) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        reached.set()
        await go_on.wait()
        yield b"second"

    (folder / "partial" / "left").write_bytes(b"by a killed one")
    writing = asyncio.create_task(blobs.write("k", slow()))
    await reached.wait()
    other = LocalDisk(folder)
    await other.start()
    assert len(os.listdir(folder / "partial")) == 1
    go_on.set()
    await writing
    assert await other.get("k") == b"firstsecond"
    await other.close()


async def test_what_is_kept_is_nobody_else_s(blobs: LocalDisk, folder: Path) -> None:
    await blobs.put("a/k", b"x")
    for path in (folder, folder / "objects", folder / "partial", folder / "objects/a"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "objects/a/k").stat().st_mode) == 0o600


async def test_a_key_in_another_key_is_refused(blobs: LocalDisk) -> None:
    await blobs.put("a/k", b"x")
    for key in ("a", "a/k/more"):
        with pytest.raises(InvalidInput, match="already another blob"):
            await blobs.put(key, b"y")
    with pytest.raises(NotFound):
        await blobs.get("a")
    assert await blobs.get("a/k") == b"x"


async def test_empty_folders_go_with_their_last_object(blobs: LocalDisk, folder: Path) -> None:
    await blobs.put("a/b/c/k", b"x")
    await blobs.put("a/l", b"x")
    await blobs.delete("a/b/c/k")
    assert os.listdir(folder / "objects/a") == ["l"]


async def test_a_folder_that_cannot_be_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="blobs cannot be kept there") as raised:
        await LocalDisk(tmp_path / "file" / "blobs").start()
    assert raised.value.field == "blobs.url"


async def test_a_folder_that_vanished_is_unavailable(blobs: LocalDisk, folder: Path) -> None:
    (folder / "partial").rmdir()
    (folder / "objects").rmdir()
    with pytest.raises(Unavailable):
        await blobs.ping()
    with pytest.raises(Unavailable):
        await blobs.put("k", b"x")


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data
