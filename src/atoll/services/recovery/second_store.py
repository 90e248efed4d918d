"""Second store: the job that keeps a copy of every pack in another store of blobs, and a backup of the records with it.

A pass copies what the records name and the second store has not, oldest first; what is named no more goes there too,
after the grace of the collector and once no backup in that store needs it. Nothing here ever fails a request: a store
that does not answer is asked again, later and later, and its lag is told by metrics and by health.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from atoll.blobs.base import Blobs
from atoll.domain import crash
from atoll.domain.errors import AtollError, Corrupt, NotFound, Unavailable
from atoll.domain.workspace import Pack
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.deadline import deadline
from atoll.services.recovery.backup import Backup, Dump
from atoll.services.recovery.backup_format import moment_at
from atoll.services.recovery.copy_journal import CopyJournal
from atoll.services.recovery.verified_copying import copy, each
from atoll.services.workspaces.storage.packs import PREFIX, pack_key
from atoll.telemetry.metrics import Metrics
from atoll.vaults.base import Vault

_log = structlog.get_logger()

START_S = 60.0  # for the second store to be opened
FAILURES_MAX = 8  # objects that fail, one after the other, before a pass gives up


@dataclass(frozen=True, slots=True)
class SecondStoreLimits:
    """Times in seconds. A failed object is tried again in the pass after next pause: `pause_s`, doubling."""

    every_s: float = 30.0  # between two passes
    at_once: int = 4  # objects
    pause_s: float = 1.0  # before a pass that follows a failed one; doubles
    pause_max_s: float = 300.0
    relist_s: float = 6 * 3600.0  # after which the second store is asked again what it has
    grace_s: float = 24 * 3600.0  # that an object stays which nothing refers to
    backup_every_s: float = 0.0  # 0: none
    backups_kept: int = 7


@dataclass(slots=True)
class Lag:
    """How far the second store is behind."""

    objects: int = 0
    bytes: int = 0
    seconds: float = 0.0  # since the oldest of them was stored
    lost: tuple[str, ...] = ()  # keys that the records name and neither store has
    error: str | None = None  # of the last pass
    passed_at: datetime | None = None  # the last pass that copied everything
    backup: str | None = None  # the moment of the newest whole one


@dataclass(slots=True)
class _Known:
    """What the second store holds, as far as we know."""

    there: dict[str, int] = field(default_factory=dict[str, int])
    listed_at: datetime | None = None


class SecondStore:
    """Between `start` and `close` it copies in the background; neither waits for the second store."""

    def __init__(
        self,
        first: Blobs,
        second: Blobs,
        records: Records,
        vault: Vault,
        journal: CopyJournal,
        dump: Dump,
        owner_key: Callable[[], str | None],
        *,
        scratch: Path | None = None,
        limits: SecondStoreLimits | None = None,
        clock: Clock = utc_now,
        metrics: Metrics | None = None,
    ) -> None:
        self._first = first
        self._second = second
        self._records = records
        self._journal = journal
        self._dump = dump
        self._owner_key = owner_key
        self._limits = limits or SecondStoreLimits()
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._backup = Backup(first, second, vault, scratch=scratch)
        self._opened = False
        self._known = _Known()
        self._waiting: dict[str, datetime] = {}  # key -> when its pack was first seen without a copy
        self._loop: asyncio.Task[None] | None = None
        self.lag = Lag()

    async def start(self) -> None:
        """Begin; returns at once."""
        self._loop = asyncio.create_task(self._run(), name="second store")

    async def close(self) -> None:
        """Stop; a second call does nothing."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop
        if self._opened:
            self._opened = False
            await self._second.close()

    def describe(self) -> dict[str, str]:
        """How it stands, for health: nothing of what a fault said, which may name paths and addresses."""
        lag = self.lag
        told = f"{lag.objects} objects ({lag.bytes} bytes), {lag.seconds:.0f} s behind; {len(lag.lost)} lost"
        return {"status": "healthy" if lag.error is None else "unhealthy", "detail": told}

    async def pass_(self) -> None:
        """Copy what is missing, delete what is not needed, back up when it is time. Unavailable when some of it failed;
        `lag` says what is left."""
        try:
            await self._open()
            packs = await self._packs()
            try:
                await self._copy(packs)
            finally:
                await self._delete(packs)
            await self._back_up()
        except BaseException as error:
            self.lag.error = error.message if isinstance(error, AtollError) else type(error).__name__
            self._tell()
            raise
        self.lag.error, self.lag.passed_at = None, self._clock()
        self._tell()

    async def _run(self) -> None:
        limits, failures = self._limits, 0
        while True:
            try:
                await self.pass_()
                failures = 0
            except AtollError as error:
                failures += 1
                _log.warning("second_store.behind", error=error.message, objects=self.lag.objects, tries=failures)
            except Exception:
                failures += 1
                _log.exception("second_store.failed")
            pause_s = min(limits.pause_s * 2 ** min(failures - 1, 30), limits.pause_max_s)
            await asyncio.sleep(pause_s if failures else limits.every_s)

    async def _open(self) -> None:
        if not self._opened:
            async with deadline(START_S, "opening the second store"):
                await self._second.start()
            self._opened = True
        known, now = self._known, self._clock()
        if known.listed_at is None or now - known.listed_at > timedelta(seconds=self._limits.relist_s):
            if known.listed_at is None:
                await asyncio.to_thread(self._journal.load)
            there = {blob.key: blob.bytes async for blob in self._second.list(PREFIX)}
            for key in self._journal.copied.keys() - there.keys():
                self._journal.remove(key)
            known.there, known.listed_at = there, now

    async def _packs(self) -> dict[str, Pack]:
        """Every pack that the records name, by its key."""
        packs: dict[str, Pack] = {}
        after = ""
        while page := await self._records.list_packs(after=after):
            after = page[-1].id
            packs.update((pack_key(pack.lineage, pack.id), pack) for pack in page)
        return packs

    async def _copy(self, packs: dict[str, Pack]) -> None:
        there, now = self._known.there, self._clock()
        missing = {key: pack for key, pack in packs.items() if there.get(key) != pack.bytes}
        self._waiting = {key: self._waiting.get(key, min(now, pack.created_at)) for key, pack in missing.items()}
        await asyncio.to_thread(self._adopt, packs.keys() - missing.keys())
        self._measure(missing)
        lost: list[str] = []
        failures: list[AtollError] = []
        in_a_row = 0

        async def one(key: str) -> None:
            nonlocal in_a_row
            if in_a_row >= FAILURES_MAX:
                return
            try:
                contents = await copy(self._first, self._second, key, length=packs[key].bytes)
                crash.point("backup.object_copied")
                self._journal.add(key, contents)
            except (NotFound, Corrupt):  # collected meanwhile; or lost or damaged, which verification tells
                lost.append(key)
                return
            except AtollError as error:
                in_a_row += 1
                failures.append(error)
                self._metrics.copy_failed()
                return
            except OSError as error:
                failures.append(Unavailable(f"the journal of copies: {error.strerror}"))
                return
            in_a_row = 0
            there[key] = contents.bytes
            self._waiting.pop(key, None)
            self._metrics.blob_copied(contents.bytes)
            del missing[key]
            self.lag.objects -= 1
            self.lag.bytes -= contents.bytes
            self._tell()

        await each(sorted(missing, key=lambda key: self._waiting[key]), one, self._limits.at_once)
        named = await self._packs() if lost else {}
        self.lag.lost = tuple(sorted(key for key in lost if key in named))
        for key in lost:
            missing.pop(key, None)
            self._waiting.pop(key, None)
        self._measure(missing)
        if failures:
            raise Unavailable(f"{len(missing)} objects are not copied yet: {failures[0].message}")

    def _adopt(self, keys: set[str]) -> None:
        """Copies that were there before us: of `atoll backup`, or of the machine that this one was restored from."""
        for key in keys - self._journal.copied.keys():
            self._journal.add(key, None)

    async def _delete(self, packs: dict[str, Pack]) -> None:
        now = self._clock()
        grace = timedelta(seconds=self._limits.grace_s)
        due: list[str] = []
        for key in list(self._journal.copied):
            if key in packs:
                self._journal.needed(key)
            elif self._journal.unneeded_since(key, now) + grace <= now:
                due.append(key)
        if not due:
            return
        needed: set[str] = set()
        for moment in await self._backup.list():
            try:
                needed.update(await self._backup.inventory(moment))
            except Corrupt as error:  # who could say what it needs?
                _log.warning("second_store.kept", objects=len(due), error=error.message)
                return
        for key in due:
            if key not in needed:
                await self._second.delete(key)
                crash.point("backup.object_deleted")
                self._known.there.pop(key, None)
                self._journal.remove(key)

    async def _back_up(self) -> None:
        if not self._limits.backup_every_s:
            return
        if self.lag.backup is None:
            self.lag.backup = next(iter(await self._backup.list()), None)
        every = timedelta(seconds=self._limits.backup_every_s)
        if self.lag.backup is not None and moment_at(self.lag.backup) + every > self._clock():
            return
        made = await self._backup.make(self._dump, self._owner_key(), known=self._journal.known())
        await self._backup.prune(self._limits.backups_kept)
        self.lag.backup = made.moment
        _log.info("second_store.backed_up", moment=made.moment, bytes=made.records_bytes, lost=len(made.lost))

    def _measure(self, missing: dict[str, Pack]) -> None:
        self.lag.objects = len(missing)
        self.lag.bytes = sum(pack.bytes for pack in missing.values())
        self._tell()

    def _tell(self) -> None:
        oldest = min(self._waiting.values(), default=None)
        self.lag.seconds = 0.0 if oldest is None else (self._clock() - oldest).total_seconds()
        self._metrics.set_copy_lag(self.lag.objects, self.lag.bytes, self.lag.seconds)
