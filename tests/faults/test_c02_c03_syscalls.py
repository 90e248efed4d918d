"""C02, C03: the kernel kills the process at its Nth call of a kind, or refuses that call, while a revision is stored.

The process is stopped once it is ready, so that the calls that are counted are those of the push alone.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.faults.chunk_store_child import KEPT, PUSHED, REFUSED, opened
from tests.faults.test_c01_chunk_store import ROOT, check, check_collected, closed, prepared

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="faults of system calls need strace")

SYNC, RENAME, WRITE, UNLINK, OPEN = "fsync,fdatasync", "/^rename", "write,pwrite64", "/^unlink", "/^open"
SERIOUS = ("ENOSPC", "EIO", "EDQUOT")
ATTACHED_S = 20.0


async def push(folder: Path, calls: str, injected: str) -> int:
    """Do the push under that injection; how the process ended."""
    words = (sys.executable, "-m", "tests.faults.chunk_store_child", "push", folder)
    child = await asyncio.create_subprocess_exec(
        *words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ATOLL_TEST_WAIT": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        assert await child.stdout.readline() == b"begun\n"
        trace = ("strace", "-f", "-o", os.devnull, "-e", f"trace={calls}", "-e", f"inject={calls}:{injected}")
        tracer = await asyncio.create_subprocess_exec(*trace, "-p", str(child.pid), stderr=asyncio.subprocess.PIPE)
        assert tracer.stderr is not None
        async with asyncio.timeout(ATTACHED_S):
            assert b"attached" in await tracer.stderr.readline()
        _, said = await asyncio.wait_for(child.communicate(b"go\n"), 40)
        await asyncio.wait_for(tracer.wait(), 10)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode in (0, REFUSED, -signal.SIGKILL), said.decode()
    return child.returncode


async def whole(folder: Path) -> dict[bytes, bytes]:
    """What the workspace holds now: one state or the other, every byte of it; then the same push succeeds."""
    storage = await opened(folder)
    workspace = await storage.records.find_workspace("key_a", "w")
    assert workspace is not None
    found = await storage.files(workspace)
    assert found in (KEPT, PUSHED)
    await check(storage, found)
    await closed(storage)
    assert await push(folder, "uname", "error=EIO:when=60000") == 0
    storage = await opened(folder)
    await check(storage, PUSHED)
    await storage.collector.collect()
    await check_collected(storage)
    await closed(storage)
    return found


@pytest.mark.parametrize("calls", [SYNC, RENAME, WRITE])
@pytest.mark.parametrize("nth", [1, 2, 4])
async def test_c02_killed_at_the_nth_call(tmp_path: Path, calls: str, nth: int) -> None:
    await prepared(tmp_path)
    ended = await push(tmp_path, calls, f"signal=KILL:when={nth}")
    if nth == 1:
        assert ended == -signal.SIGKILL, "the call is never made"
    await whole(tmp_path)


@pytest.mark.parametrize("error", SERIOUS)
@pytest.mark.parametrize(("calls", "nth"), [(SYNC, 1), (SYNC, 3), (WRITE, 2), (RENAME, 1)])
async def test_c03_the_nth_call_fails(tmp_path: Path, calls: str, nth: int, error: str) -> None:
    """Refused with an error of ours, or done all the same; never torn."""
    await prepared(tmp_path)
    ended = await push(tmp_path, calls, f"error={error}:when={nth}")
    assert ended in (0, REFUSED)
    found = await whole(tmp_path)
    if ended == 0:
        assert found == PUSHED


@pytest.mark.parametrize("error", ["EMFILE", "ENOMEM"])
async def test_c03_nothing_can_be_opened(tmp_path: Path, error: str) -> None:
    await prepared(tmp_path)
    assert await push(tmp_path, OPEN, f"error={error}") == REFUSED
    await whole(tmp_path)
