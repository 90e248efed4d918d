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
from atoll.domain.errors import AtollError, Conflict, Corrupt, NotFound, Unavailable
from atoll.domain.workspace import Pack
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.deadline import deadline
from atoll.services.recovery.backup import Backup, Dump
from atoll.services.recovery.backup_format import moment_at
from atoll.services.recovery.copy_journal import CopyJournal
from atoll.services.recovery.deleting import Deleting
from atoll.services.recovery.lag import Lag
from atoll.services.recovery.ownership import claim
from atoll.services.recovery.verified_copying import copy, each
from atoll.services.workspaces.storage.packs import PREFIX, pack_key
from atoll.telemetry.metrics import Metrics
from atoll.vaults.base import Vault

_log = structlog.get_logger()

START_S = 60.0  # for the second store to be opened
LIST_S = 1_800.0  # for the list of what it holds
OBJECT_S = 300.0  # for one object to be copied
BACKUP_S = 6 * 3600.0  # for a backup, with what it copies
TELL_S = 1.0  # between two looks at the lag while objects are copied
LOST_NAMED_MAX = 10  # lost objects that the log names
FAILURES_MAX = 8  # objects that fail, one after the other, before a pass gives up


@dataclass(frozen=True, slots=True)
class SecondStoreLimits:
    """Times in seconds. A failed object is tried again in the next pass, which a failed one brings on by `pause_s`."""

    every_s: float = 30.0  # between two passes
    at_once: int = 4  # objects
    pause_s: float = 1.0  # before a pass that follows a failed one; doubles
    pause_max_s: float = 300.0
    relist_s: float = 6 * 3600.0  # after which the second store is asked again what it has
    grace_s: float = 24 * 3600.0  # that an object stays which nothing refers to
    backup_every_s: float = 0.0  # 0: none
    backups_kept: int = 7


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
        unreadable: set[str] | None = None,
    ) -> None:
        """`unreadable` are the lost packs of the healer."""
        self._first = first
        self._second = second
        self._records = records
        self._journal = journal
        self._dump = dump
        self._owner_key = owner_key
        self._limits = limits or SecondStoreLimits()
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._vault = vault
        self._backup = Backup(first, second, vault, scratch=scratch)
        grace_s = self._limits.grace_s
        self._deleting = Deleting(second, self._backup, journal, self._claim, grace_s=grace_s, clock=clock)
        self._opened = self._loaded = False
        self._known = _Known()
        self._missing: dict[str, Pack] = {}  # in the second store, the oldest first
        self._uncounted: frozenset[str] = frozenset()  # of them: what the last pass found in neither store
        self._told_at = 0.0
        self._loop: asyncio.Task[None] | None = None
        self._told_lost: set[str] = set()
        self.lag = Lag(unreadable=set() if unreadable is None else unreadable)

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
        """How it stands, for health."""
        return self.lag.describe(self._clock())

    def backup_age_s(self) -> float | None:
        """Since the newest whole backup; None: none is known."""
        if self.lag.backup is None:
            return None
        return max(0.0, (self._clock() - moment_at(self.lag.backup)).total_seconds())

    async def pass_(self) -> None:
        """Copy what is missing, delete what is not needed, back up when it is time. Unavailable when some of it failed;
        `lag` says what is left."""
        try:
            packs = await self._packs()
            await self._load()
            self._measure(packs)
            await self._open()
            self._measure(packs)
            failed: AtollError | None = None
            try:
                await self._copy(packs)
            except AtollError as error:
                failed = error
            await self._deleting.delete_unneeded(packs, self._known.there)
            if failed is not None:
                raise failed
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

    async def _load(self) -> None:
        if not self._loaded:
            await asyncio.to_thread(self._journal.load)
            self._loaded = True

    async def _open(self) -> None:
        if not self._opened:
            async with deadline(START_S, "opening the second store"):
                await self._second.start()
            self._opened = True
        known, now = self._known, self._clock()
        if known.listed_at is None or now - known.listed_at > timedelta(seconds=self._limits.relist_s):
            await self._claim()
            async with deadline(LIST_S, "listing the second store"):
                there = {blob.key: blob.bytes async for blob in self._second.list(PREFIX)}
            await asyncio.to_thread(self._journal.remove, list(self._journal.copied.keys() - there.keys()))
            known.there, known.listed_at = there, now

    async def _claim(self) -> None:
        self.lag.taken = False
        try:
            async with deadline(START_S, "reading whose the second store is"):
                await claim(self._second, self._vault)
        except Conflict:
            self.lag.taken = True
            self._known.listed_at = None  # nothing goes there before it was asked again
            raise

    async def _packs(self) -> dict[str, Pack]:
        """Every pack that the records name, by its key."""
        packs: dict[str, Pack] = {}
        after = ""
        while page := await self._records.list_packs(after=after):
            after = page[-1].id
            packs.update((pack_key(pack.lineage, pack.id), pack) for pack in page)
        return packs

    async def _copy(self, packs: dict[str, Pack]) -> None:
        there, missing = self._known.there, self._missing
        # What `atoll backup` copied, or this machine before it was restored, is ours too.
        before = {key: None for key in packs if key not in missing and key not in self._journal.copied}
        await asyncio.to_thread(self._journal.add, before)
        lost: list[str] = []
        failures: list[AtollError] = []
        in_a_row = 0

        async def one(key: str) -> None:
            nonlocal in_a_row
            if in_a_row >= FAILURES_MAX:
                return
            try:
                async with deadline(OBJECT_S, "copying an object to the second store"):
                    contents = await copy(self._first, self._second, key, length=packs[key].bytes)
                crash.point("backup.object_copied")
                await asyncio.to_thread(self._journal.add, {key: contents})
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
            self._metrics.blob_copied(contents.bytes)
            self._forget(key)

        await each(list(missing), one, self._limits.at_once)
        named = await self._packs() if lost else {}
        untried = self._uncounted & missing.keys() - set(lost)
        self._lose(tuple(sorted({key for key in lost if key in named} | untried)))
        for key in lost:
            self._forget(key)
        if failures:
            raise Unavailable(f"{len(missing)} objects are not copied yet: {failures[0].message}")

    def _lose(self, keys: tuple[str, ...]) -> None:
        self.lag.lost = keys
        lost = self.lag.all_lost
        if news := sorted(lost - self._told_lost):
            _log.error("second_store.lost", objects=len(news), keys=news[:LOST_NAMED_MAX])
        self._told_lost = lost

    async def _back_up(self) -> None:
        if not self._limits.backup_every_s:
            return
        if self.lag.backup is None:
            async with deadline(LIST_S, "listing the backups"):
                self.lag.backup = await self._backup.newest()
        every = timedelta(seconds=self._limits.backup_every_s)
        if self.lag.backup is not None and moment_at(self.lag.backup) + every > self._clock():
            return
        known = await asyncio.to_thread(self._journal.known)
        async with deadline(BACKUP_S, "the backup into the second store"):
            made = await self._backup.make(self._dump, self._owner_key(), known=known)
            await self._backup.prune(self._limits.backups_kept)
        self.lag.backup = made.moment
        _log.info("second_store.backed_up", moment=made.moment, bytes=made.records_bytes, lost=len(made.lost))

    def _measure(self, packs: dict[str, Pack]) -> None:
        """What is missing. Until the second store has said what it holds, the journal's word is taken."""
        known, journal, self._uncounted = self._known, self._journal.copied, frozenset(self.lag.lost)
        self.lag.unreadable.intersection_update(packs)
        if known.listed_at is None:
            missing = [(key, pack) for key, pack in packs.items() if key not in journal]
        else:
            missing = [(key, pack) for key, pack in packs.items() if known.there.get(key) != pack.bytes]
        missing.sort(key=lambda one: one[1].created_at)
        self._missing = dict(missing)
        waiting = [pack.bytes for key, pack in missing if key not in self._uncounted]
        self.lag.objects, self.lag.bytes = len(waiting), sum(waiting)
        self._tell()

    def _forget(self, key: str) -> None:
        """It is missing no more, or nowhere."""
        size = self._missing.pop(key).bytes
        if key not in self._uncounted:
            self.lag.objects -= 1
            self.lag.bytes -= size
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= TELL_S:
            self._tell()
            self._told_at = now

    def _tell(self) -> None:
        lag = self.lag
        oldest = next((pack for key, pack in self._missing.items() if key not in self._uncounted), None)
        lag.oldest = None if oldest is None else oldest.created_at
        self._metrics.set_copy_lag(lag.objects, lag.bytes, lag.seconds(self._clock()), len(lag.all_lost))
