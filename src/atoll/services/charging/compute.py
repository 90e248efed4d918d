"""ComputeCharges: the seconds that sandboxes run are charged, each once, every minute and at their end.

A charge is named by where it begins among the sandbox's seconds: after a crash, or with two servers, the same second
is not charged twice. A sandbox that nobody can pay for any more is warned, and ended a minute later; of a task's, the
task ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Protocol

import structlog

from atoll.domain.errors import AtollError, Conflict, Unavailable
from atoll.domain.event import Event
from atoll.domain.ledger import Payer, Settled, Use, UseKind
from atoll.domain.sandbox import ENDED, Sandbox, SandboxState
from atoll.records.base import Records
from atoll.records.ledger import UseQuery
from atoll.services.charging.payers import payer_of_sandbox
from atoll.services.clock import Clock, utc_now
from atoll.services.ledger.ledger import REFUSALS, Ledger

_log = structlog.get_logger()

SLICE_MS = 60_000  # what is charged at once of one that goes on
SWEPT = timedelta(hours=1)  # before this server began: ends whose last charge a crash may have cut off
SWEPT_MAX = 10_000
LEFT_MAX = 100_000
WARNING, REASON = "sandbox.credit_spent", "insufficient_credit"


class Running(Protocol):
    """What charging needs of the sandboxes."""

    async def measured(self) -> list[tuple[Sandbox, float]]:
        """Those that are live here, and how many seconds each has run in all."""
        ...

    def take_left(self) -> list[str]:
        """The ids of those that have ended or rest since the last call."""
        ...

    async def end(self, sandbox_id: str, reason: str) -> None:
        """Conflict when it has ended."""
        ...


class ComputeCharges:
    """One server's sandboxes. Nothing happens where compute has no price. `dry` ends a task whose money is spent."""

    def __init__(
        self,
        records: Records,
        ledger: Ledger,
        running: Running,
        *,
        dry: Callable[[str, AtollError], None] | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._records = records
        self._ledger = ledger
        self._running = running
        self._end_task = dry
        self._clock = clock
        self._charged_ms: dict[str, int] = {}  # of live ones, as the ledger has it
        self._left: dict[str, None] = {}  # that are to be charged for the last time
        self._dry: set[str] = set()  # that were warned

    async def start(self) -> None:
        """Look for ends that were not charged: those within the last hour."""
        if not self._ledger.prices.compute_per_s:
            return
        since = self._clock() - SWEPT
        states = ENDED | {SandboxState.SUSPENDED}
        for sandbox in await self._records.list_sandboxes(states=states, removed=None, limit=SWEPT_MAX):
            if (sandbox.ended_at or sandbox.created_at) >= since:
                self._left[sandbox.id] = None

    async def run(self) -> int:
        """One pass, to the first that the database does not take; how many charges there were."""
        left = self._running.take_left()
        if not self._ledger.prices.compute_per_s:
            return 0
        self._left.update(dict.fromkeys(left[-LEFT_MAX:]))
        live = await self._running.measured()
        ids = {sandbox.id for sandbox, _ in live}
        self._dry &= ids
        count = 0
        for sandbox, seconds in live:
            done = await self._charge(sandbox, seconds, most_left_ms=SLICE_MS - 1)
            if done < 0:
                return count
            count += done
        for sandbox_id in [one for one in self._left if one not in ids]:
            done = await self._finish(sandbox_id)
            if done < 0:
                return count
            count += done
        return count

    async def _finish(self, sandbox_id: str) -> int:
        """The rest of one that has ended; as `_charge`."""
        sandbox = await self._records.get_sandbox(sandbox_id)
        count = 0
        for _ in range(1 if sandbox is None else 2):  # again, where the first found that others had charged a part
            done = 0 if sandbox is None else await self._charge(sandbox, sandbox.usage.duration_s, most_left_ms=0)
            if done < 0:
                return done
            count += done
        self._left.pop(sandbox_id, None)
        self._charged_ms.pop(sandbox_id, None)
        return count

    async def _charge(self, sandbox: Sandbox, seconds: float, *, most_left_ms: int) -> int:
        """1 when something was charged, 0 when nothing was due or it was refused, -1 when the database did not answer:
        the next pass tries again, and others would wait for it as long."""
        try:
            done_ms = self._charged_ms.get(sandbox.id)
            if done_ms is None:
                done_ms = self._charged_ms[sandbox.id] = await self._charged(sandbox.id)
            due_ms = int(seconds * 1000) - done_ms
            if due_ms <= most_left_ms or due_ms <= 0:
                return 0
            payer = await payer_of_sandbox(self._records, sandbox)
            use = await self._use(sandbox, payer, done_ms, due_ms)
            settled = await self._ledger.charge(use, budgets=payer.budgets)
            if settled is not None and settled.charged:
                self._charged_ms[sandbox.id] = done_ms + due_ms
            else:  # it may be that another, shorter charge from there on came first
                self._charged_ms[sandbox.id] = await self._charged(sandbox.id)
        except Exception as error:
            self._charged_ms.pop(sandbox.id, None)  # what the ledger has is looked up again
            if not isinstance(error, AtollError):
                _log.exception("compute.not_charged", sandbox_id=sandbox.id)
                return 0
            _log.warning("compute.not_charged", sandbox_id=sandbox.id, error=error.message)
            return -1 if isinstance(error, Unavailable) else 0
        try:
            await self._look(sandbox, payer, settled)
        except AtollError as error:
            _log.warning("compute.not_ended", sandbox_id=sandbox.id, error=error.message)
        return 1

    async def _charged(self, sandbox_id: str) -> int:
        query = UseQuery(sandbox=sandbox_id, kind=UseKind.COMPUTE, internal=None)
        return round((await self._records.total_uses(query))[0].seconds * 1000)

    async def _use(self, sandbox: Sandbox, payer: Payer, done_ms: int, due_ms: int) -> Use:
        seconds = Decimal(due_ms) / 1000
        mount = next(iter(sandbox.spec.workspaces), None)
        workspace = None if mount is None else await self._records.get_workspace(mount.workspace)
        return Use(
            use_id("compute", sandbox.id, done_ms),
            payer.account,
            UseKind.COMPUTE,
            self._clock(),
            self._ledger.prices.compute(seconds),
            credential=payer.credential,
            task=payer.task,
            thread=payer.thread,
            sandbox=sandbox.id,
            workspace=None if mount is None else mount.workspace,
            workspace_owner=sandbox.owner if workspace is None else workspace.owner,
            seconds=float(seconds),
            internal=payer.internal,
        )

    async def _look(self, sandbox: Sandbox, payer: Payer, settled: Settled | None) -> None:
        """Warn, and end at the next charge, a sandbox that nobody can pay for any more; end its task at once."""
        if settled is None or not sandbox.live:
            return
        bounded = any(one.after >= one.limit for one in settled.spent)
        if sandbox.spec.task is not None:
            # What its model calls have set aside is the task's own, and no reason to end it.
            if bounded or settled.account.balance <= 0:
                await self._look_at_task(sandbox.spec.task, payer)
            return
        if settled.account.available > 0 and not bounded:
            self._dry.discard(sandbox.id)
            return
        if sandbox.id not in self._dry:
            detail = {"account": settled.account.id, "ends_in_s": SLICE_MS // 1000}
            event = Event(WARNING, sandbox.id, sandbox.owner, actor="system", detail=detail, at=self._clock())
            await self._records.add_event(event)
            self._dry.add(sandbox.id)
            return
        try:
            await self._running.end(sandbox.id, REASON)
        except Conflict:
            pass
        self._dry.discard(sandbox.id)

    async def _look_at_task(self, task_id: str, payer: Payer) -> None:
        """End it with what the ledger would answer it now."""
        try:
            await self._ledger.check(payer)
        except REFUSALS as error:
            if self._end_task is not None:
                self._end_task(task_id, error)


def use_id(*named: object) -> str:
    """The id of the one use of that name, whoever charges it."""
    return "use_" + hashlib.sha256("\0".join(map(str, named)).encode()).hexdigest()[:24]
