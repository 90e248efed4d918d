"""Lives: what this server knows about its live sandboxes, in memory, so that an exec needs no database read.

One server owns a data folder, so this and the records change together: `Lives.move` does both. Used by every service.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from atoll.domain.errors import NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.quota import Bound, QuotaName, Spend, counted
from atoll.domain.sandbox import Resources, Sandbox, SandboxState, Usage
from atoll.records.base import Records

LEFT_MAX = 100_000  # ends that nobody has asked for yet
SWAPS_MAX = 16  # tries of one change against others that come between


@dataclass(slots=True, eq=False)
class Live:
    """One live sandbox: its record as stored, and what is not in the record."""

    sandbox: Sandbox
    holds: int = 0  # how many operations of this process are making or ending it: the reconciler keeps away
    paused: bool = False
    actor: str = ""  # who had it made, where that is known and may not be its owner
    look: asyncio.Task[bool] | None = None  # whether it answers: one at a time
    unanswered: int = 0  # in a row
    unanswered_at: float = 0.0  # the last of these, on the loop's clock
    watched: bool = False  # adopted by this process, its watcher (if its spec needs one) runs
    watcher: asyncio.Task[None] | None = None
    followers: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])  # of processes without clients
    made: asyncio.Event = field(default_factory=asyncio.Event)  # `runtime.make` is over, well or badly
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # its record says that it has ended
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # and nothing of it is left in the runtime
    main_clients: int = 0
    main_idle: asyncio.Event = field(default_factory=asyncio.Event)  # nobody is attached to its main process
    bytes_in: int = 0  # since the record was read; likewise the next three
    bytes_out: int = 0
    exec_count: int = 0
    gateway_bytes: int = 0  # that this server sent on for it
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # one change of the record at a time
    _counted: tuple[int, int, int, int] = (0, 0, 0, 0)  # of these, what the record already has

    def __post_init__(self) -> None:
        self.main_idle.set()

    @property
    def busy(self) -> bool:
        return self.holds > 0

    @contextmanager
    def held(self) -> Generator[None]:
        self.holds += 1
        try:
            yield
        finally:
            self.holds -= 1

    def main_attached(self) -> None:
        self.main_clients += 1
        self.main_idle.clear()

    def main_detached(self) -> None:
        self.main_clients -= 1
        if self.main_clients == 0:
            self.main_idle.set()

    @property
    def uncounted(self) -> bool:
        """Whether the record lacks some of the counters."""
        return self._counted != self.counted()

    @property
    def uncounted_egress_bytes(self) -> int:
        """What the server sent on for it and the record lacks."""
        return self.gateway_bytes - self._counted[3]

    def usage(self, measured: Usage | None) -> Usage:
        """The record's figures, the runtime's newer ones (of this life), and the counters that the record lacks."""
        known = self.sandbox.usage
        measured = measured or Usage()
        done_in, done_out, done_execs, done_gateway = self._counted
        return replace(
            known,
            duration_s=max(known.duration_s, known.earlier_duration_s + measured.duration_s),
            cpu_s=max(known.cpu_s, known.earlier_cpu_s + measured.cpu_s),
            memory_peak_bytes=max(known.memory_peak_bytes, measured.memory_peak_bytes),
            bytes_in=known.bytes_in + self.bytes_in - done_in,
            bytes_out=known.bytes_out + self.bytes_out - done_out,
            exec_count=known.exec_count + self.exec_count - done_execs,
            sent_bytes=max(known.sent_bytes, known.earlier_sent_bytes + measured.sent_bytes),
            gateway_bytes=known.gateway_bytes + self.gateway_bytes - done_gateway,
        )

    def counted(self) -> tuple[int, int, int, int]:
        return (self.bytes_in, self.bytes_out, self.exec_count, self.gateway_bytes)

    def set_counted(self, counters: tuple[int, int, int, int]) -> None:
        self._counted = counters


class Lives:
    """The live sandboxes by id, and the only way to change a stored one."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._by_id: dict[str, Live] = {}
        self._told: set[str] = set()
        self._left: deque[str] = deque(maxlen=LEFT_MAX)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Live]:
        return iter(list(self._by_id.values()))

    def get(self, sandbox_id: str) -> Live | None:
        return self._by_id.get(sandbox_id)

    def add(self, sandbox: Sandbox) -> Live:
        """Know it from now on; the one that is known already when there is one."""
        live = self._by_id.get(sandbox.id)
        if live is None:
            live = self._by_id[sandbox.id] = Live(sandbox)
            live.made.set()
        return live

    def add_unmade(self, sandbox: Sandbox) -> Live:
        """One that this process is about to make."""
        live = self._by_id[sandbox.id] = Live(sandbox)
        return live

    def forget(self, live: Live) -> None:
        """Nothing of it is left."""
        live.made.set()
        live.ended.set()
        live.gone.set()
        self._by_id.pop(live.sandbox.id, None)

    @contextmanager
    def told(self, sandbox_id: str) -> Generator[None]:
        """While this lasts the end that the runtime told of it is on its way into the records."""
        self._told.add(sandbox_id)
        try:
            yield
        finally:
            self._told.discard(sandbox_id)

    def is_told(self, sandbox_id: str) -> bool:
        return sandbox_id in self._told

    async def move(
        self,
        live: Live,
        state: SandboxState | None,
        event: Event | None,
        *,
        measured: Usage | None = None,
        resources: Resources | None = None,
        allow: tuple[str, ...] | None = None,
        bounds: Sequence[Bound] = (),
        **changes: Any,
    ) -> Sandbox:
        """Store the next state (None: the same one) with `changes`, the usage so far and an event; `resources`, or
        `allow`, are the only part of the spec that then changes, whatever became of the others meanwhile. `bounds` are
        of one that becomes live; what it used more than its record says is counted against its owner's quotas.

        Conflict when the stored state does not allow that step; a change that came between is no error while it does.
        NotFound when one that was removed is to be removed.
        """
        async with live.lock:
            for _ in range(SWAPS_MAX):
                before = live.sandbox
                if before.removed and changes.get("removed"):
                    raise NotFound("session not found")  # somebody else was first, and there is one event of it
                counters = live.counted()
                usage = live.usage(measured)
                usage = usage.of_a_new_life() if state is SandboxState.RESUMING else usage
                fields = {**changes, "usage": usage}
                if resources is not None:
                    fields["spec"] = replace(before.spec, resources=resources)
                if allow is not None:
                    fields["spec"] = replace(before.spec, allow=allow)
                after = replace(before, **fields) if state is None else before.to(state, **fields)
                try:
                    used = charges(before, usage)
                    stored = await self._records.swap_sandbox(after, event, bounds=bounds, charges=used)
                except StaleVersion:
                    await self.reread(live)
                    continue
                live.sandbox = stored
                live.set_counted(counters)
                if not stored.live:
                    live.ended.set()
                    self._left.append(stored.id)
                return stored
        raise StaleVersion()

    def take_left(self) -> list[str]:
        """The ids of those that are not live any more since the last call."""
        found = list(dict.fromkeys(self._left))
        self._left.clear()
        return found

    async def reread(self, live: Live) -> None:
        """Take what is stored now. NotFound when there is no record any more."""
        stored = await self._records.get_sandbox(live.sandbox.id)
        if stored is None:
            raise NotFound("sandbox not found")
        live.sandbox = stored
        if not stored.live:
            live.ended.set()


def charges(before: Sandbox, after: Usage) -> list[Spend]:
    """What its record does not have yet, counted against its owner, and the key that made it."""
    used = (
        (QuotaName.CPU, counted(QuotaName.CPU, after.cpu_s) - counted(QuotaName.CPU, before.usage.cpu_s)),
        (QuotaName.EGRESS, after.egress_bytes - before.usage.egress_bytes),
    )
    subjects = (before.owner, before.credential) if before.credential else (before.owner,)
    return [Spend(subject, name, amount) for subject in subjects for name, amount in used if amount > 0]
