"""A process with a chunk store on disk that does one thing and, where the environment says so, dies within it."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from atoll.blobs.local_disk import LocalDisk
from atoll.domain.errors import AtollError
from atoll.records.sql import SqlRecords
from atoll.records.sqlite import Sqlite
from atoll.telemetry.logs import configure
from atoll.vaults.local_key import LocalKey
from tests.services.workspaces.storage import KIB, Storage, event, noise

REFUSED = 3  # the exit code for an error of ours

BEFORE = {b"f%02d" % number: noise(number, 5 * KIB) for number in range(60)}
KEPT = {path: BEFORE[path] for path in (b"f03", b"f17", b"f40")}
PUSHED = KEPT | {b"new%d" % number: noise(100 + number, 5 * KIB) for number in range(40)}


async def opened(folder: Path) -> Storage:
    """The store over what lies in the folder; its clock is three days ahead: all that is there is old."""
    records, vault = SqlRecords(Sqlite(folder / "atoll.db")), LocalKey(folder / "master.key")
    blobs = LocalDisk(folder / "blobs")
    for part in (records, vault, blobs):
        await part.start()
    return Storage(records, blobs, vault=vault, now=datetime.now(UTC) + timedelta(days=3))


async def closed(storage: Storage) -> None:
    await storage.chunks.close()
    for part in (storage.blobs, storage.vault, storage.records):
        await part.close()


async def prepare(storage: Storage) -> None:
    """Two workspaces: `w` forgot most of what it held, `gone` was deleted."""
    storage.now -= timedelta(days=3)
    workspace = await storage.workspace(BEFORE)
    first = workspace.head
    await storage.revise(workspace, KEPT)
    await storage.records.delete_revisions([first], event("revision.deleted", workspace.id))
    gone = await storage.workspace(BEFORE, "gone")
    await storage.records.swap_workspace(replace(gone, deleted_at=storage.now), event("workspace.deleted", gone.id))


async def push(storage: Storage) -> None:
    workspace = await storage.records.find_workspace("key_a", "w")
    assert workspace is not None
    await storage.revise(workspace, PUSHED)


async def collect(storage: Storage) -> None:
    await storage.collector.collect()


async def main(work: str, folder: str) -> None:
    configure()  # as a server does: a log that cannot be written stops nothing
    storage = await opened(Path(folder))
    print("begun", flush=True)
    if "ATOLL_TEST_WAIT" in os.environ:
        await asyncio.to_thread(sys.stdin.readline)
    try:
        await {"push": push, "collect": collect}[work](storage)
    except AtollError as error:
        with suppress(OSError):
            print(f"{error.code}: {error.message}", file=sys.stderr, flush=True)
        os._exit(REFUSED)
    await closed(storage)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
