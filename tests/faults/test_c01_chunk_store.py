"""C01, C02: a process is killed at each crash point of the chunk store and of the collector; the next one is whole."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.domain import crash
from atoll.services.workspaces.storage.packs import PREFIX, lineage_and_pack
from tests.services.workspaces.storage import Storage

from .chunk_store_child import BEFORE, KEPT, PUSHED, closed, opened, prepare

ROOT = Path(__file__).parents[2]
COLLECTING = sorted(name for name in crash.POINTS if name.startswith("workspaces.collect."))


def child(work: str, folder: Path, point: str = "") -> int:
    run = subprocess.run(
        [sys.executable, "-m", "tests.faults.chunk_store_child", work, folder],
        cwd=ROOT,
        env={**os.environ, "ATOLL_CRASH_AT": point, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert run.returncode in (0, -signal.SIGKILL), run.stderr
    return run.returncode


async def prepared(folder: Path) -> None:
    storage = await opened(folder)
    await prepare(storage)
    await closed(storage)


async def check(storage: Storage, contents: dict[bytes, bytes]) -> None:
    """The workspace holds that, and each record has its object."""
    workspace = await storage.records.find_workspace("key_a", "w")
    assert workspace is not None
    assert await storage.files(workspace) == contents
    assert (await storage.verifier.verify(workspace)).corrupt == []
    objects = {place async for blob in storage.blobs.list(PREFIX) if (place := lineage_and_pack(blob.key))}
    recorded = {(pack.lineage, pack.id) for pack in await storage.records.list_packs(workspace.lineage)}
    assert recorded <= objects


async def check_collected(storage: Storage) -> None:
    """Nothing is left over."""
    objects = {place async for blob in storage.blobs.list(PREFIX) if (place := lineage_and_pack(blob.key))}
    assert objects == {(pack.lineage, pack.id) for pack in await storage.records.list_packs()}
    assert len(await storage.records.list_lineages()) == 1


@pytest.mark.parametrize("point", COLLECTING)
async def test_c01_the_collector_is_killed(tmp_path: Path, point: str) -> None:
    await prepared(tmp_path)
    assert await asyncio.to_thread(child, "collect", tmp_path, point) == -signal.SIGKILL, f"{point} is not reached"
    storage = await opened(tmp_path)
    await check(storage, KEPT)
    await storage.collector.collect()
    await check(storage, KEPT)
    await check_collected(storage)
    await closed(storage)


async def test_c01_a_push_is_killed_between_object_and_record(tmp_path: Path) -> None:
    await prepared(tmp_path)
    killed = await asyncio.to_thread(child, "push", tmp_path, "workspaces.pack.stored")
    assert killed == -signal.SIGKILL
    storage = await opened(tmp_path)
    await check(storage, KEPT)
    await storage.collector.collect()
    await check_collected(storage)
    await closed(storage)
    assert await asyncio.to_thread(child, "push", tmp_path) == 0
    storage = await opened(tmp_path)
    await check(storage, PUSHED)
    await closed(storage)


async def test_c02_a_push_is_killed_at_any_moment(tmp_path: Path) -> None:
    """However far it came: the old revision or the new one, whole."""
    await prepared(tmp_path)
    seen: set[int] = set()
    for delay_s in (0.0, 0.01, 0.03, 0.06, 0.1):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.chunk_store_child", "push", tmp_path),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begun\n"
        await asyncio.sleep(delay_s)
        if process.returncode is None:
            process.kill()
        await process.communicate()
        storage = await opened(tmp_path)
        workspace = await storage.records.find_workspace("key_a", "w")
        assert workspace is not None
        found = await storage.files(workspace)
        assert found in (KEPT, PUSHED)
        seen.add(len(found))
        await storage.collector.collect()
        await check(storage, found)
        await closed(storage)
    assert len(BEFORE) not in seen
