"""A chunk store with a second store beside it, and how long tests let the job between them wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atoll.records.dump import dump_records, packs_in
from atoll.services.recovery.copy_journal import CopyJournal
from atoll.services.recovery.second_store import SecondStore, SecondStoreLimits
from atoll.services.workspaces.storage.healing import Healer
from atoll.services.workspaces.storage.packs import pack_key
from atoll.telemetry.metrics import Metrics
from atoll.testing.memory_blobs import MemoryBlobs
from tests.services.workspaces.storage import DAY, KIB, Storage, noise

FILES = {b"f%02d" % number: noise(number, 5 * KIB) for number in range(40)}
LIMITS = SecondStoreLimits(every_s=0.01, pause_s=0.01, relist_s=3600, grace_s=DAY.total_seconds())


class Ground:
    """A chunk store with a second store beside it."""

    def __init__(self, folder: Path, storage: Storage, second: Any = None) -> None:
        self.folder, self.storage = folder, storage
        self.first = storage.blobs
        self.second: Any = second or MemoryBlobs()
        self.metrics = Metrics()
        self.unreadable: set[str] = set()
        self.job = self.new_job()

    def new_job(self, limits: SecondStoreLimits = LIMITS, store: str = "s3://b") -> SecondStore:
        """As after a restart."""
        self.job = SecondStore(
            self.first,
            self.second,
            self.storage.records,
            self.storage.vault,
            CopyJournal(self.folder / "copied.jsonl", store),
            self.dumped,
            lambda: "the owner's key",
            limits=limits,
            clock=self.storage.clock,
            metrics=self.metrics,
            unreadable=self.unreadable,
        )
        return self.job

    async def dumped(self, file: Path) -> dict[str, int]:
        await dump_records(f"sqlite:///{self.folder}/atoll.db", file)
        return {pack_key(lineage, pack): size for lineage, pack, size in packs_in(file)}

    def copied(self) -> dict[str, bytes]:
        return {key: data for key, data in self.second.objects.items() if key.startswith("lineages/")}

    def heal(self) -> None:
        self.storage.chunks.healer = self.new_healer()

    def new_healer(self) -> Healer:
        return Healer(self.first, self.second, self.storage.records, self.metrics, self.unreadable)

    def metric(self, name: str) -> float:
        line = next(one for one in self.metrics.render().decode().splitlines() if one.startswith(f"{name} "))
        return float(line.split()[1])
