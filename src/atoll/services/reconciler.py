"""The reconciler: compares records with what exists in the runtime, at start and on a timer, and makes them agree.

What is recorded and exists is adopted, what is recorded and does not exist gets an honest end, what exists without a
live record is destroyed; a recorded end always wins. Sandboxes runs it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import structlog

from atoll.domain.errors import AtollError, Conflict, NotFound
from atoll.domain.ids import SANDBOX_ID
from atoll.domain.sandbox import HOST_RESTARTED, LIVE, Sandbox, SandboxState
from atoll.runtimes.base import Found, Handle
from atoll.services import saved_log
from atoll.services.access import Access
from atoll.services.deadline import deadline
from atoll.services.endings import Endings
from atoll.services.lives import Live
from atoll.services.templates import Templates

_log = structlog.get_logger()

RECORDS_MAX = 100_000
# What was cut short: a sandbox that exists runs on.
UNDECIDED = frozenset({SandboxState.PENDING, SandboxState.BUILDING, SandboxState.SUSPENDING, SandboxState.RESUMING})
AT_ONCE = 100
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class Outcome:
    """What one pass did, by sandbox id."""

    adopted: list[str] = field(default_factory=list[str])
    ended: list[str] = field(default_factory=list[str])
    destroyed: list[str] = field(default_factory=list[str])


class Reconciler:
    """One pass at a time. `adopt` is called for each live sandbox that exists and is not watched yet."""

    def __init__(
        self,
        access: Access,
        endings: Endings,
        templates: Templates,
        adopt: Callable[[Live, Handle], Awaitable[None]],
        *,
        boot_id: Callable[[], str] | None = None,
    ) -> None:
        self._access = access
        self._endings = endings
        self._templates = templates
        self._adopt = adopt
        self._boot_id = boot_id or _boot_id
        self._orphans: dict[str, float] = {}  # when each was first seen, on the monotonic clock

    async def run(self) -> Outcome:
        """One pass. Raises when records or runtime do not answer; nothing is changed then."""
        access, outcome = self._access, Outcome()
        # Records first: what is made in between is found without a record, and orphans are given time.
        recorded = {
            sandbox.id: sandbox
            for sandbox in await access.records.list_sandboxes(states=LIVE, removed=None, limit=RECORDS_MAX)
        }
        async with deadline(access.limits.call_s, "listing the runtime's sandboxes"):
            found = {item.id: item for item in await access.runtime.list()}
        steps: list[Awaitable[None]] = []
        for sandbox in recorded.values():
            live = access.lives.get(sandbox.id)
            if live is not None and (live.busy or not live.made.is_set()):
                continue  # this process is at it
            live = live or access.lives.add(sandbox)
            if sandbox.id in found:
                steps.append(self._claim(live, found[sandbox.id], outcome))
            else:
                steps.append(self._end_missing(live, outcome))
        steps += [self._refresh(live) for live in access.lives if live.sandbox.id not in recorded]
        steps += [self._reap(sandbox_id, outcome) for sandbox_id in found.keys() - recorded.keys()]
        await _each(steps)
        self._orphans = {key: seen for key, seen in self._orphans.items() if key in found}
        return outcome

    async def flush_usage(self) -> int:
        """Store the counters of live sandboxes that used something since; at most `usage_flush_max` of them."""
        flushed = 0
        for live in self._access.lives:
            if flushed >= self._access.limits.usage_flush_max:
                break
            if live.uncounted and live.sandbox.state is SandboxState.RUNNING and not live.busy:
                await self._access.lives.move(live, None, None, measured=await self._endings.measure(live))
                flushed += 1
        return flushed

    async def prune(self) -> None:
        """Forget what is older than its keep: ended records with their logs, key uses, template layers."""
        access = self._access
        now, limits = access.clock(), access.limits
        await access.records.prune_sandboxes(now - timedelta(seconds=limits.ended_kept_s))
        await access.records.prune_sandbox_tokens(now)
        await access.records.prune_spent(now)
        await access.records.prune_requests(now - timedelta(seconds=limits.requests_kept_s), kept=limits.requests_max)
        await access.records.prune_key_use(now - timedelta(seconds=limits.key_use_kept_s))
        logs = await asyncio.to_thread(saved_log.older, access.data, now.timestamp() - limits.ended_kept_s)
        for sandbox_id, paths in logs.items():  # one that rests may have written its log long ago, and needs it
            if await access.records.get_sandbox(sandbox_id) is None:
                await asyncio.to_thread(saved_log.remove, paths)
        await self._templates.prune(await access.layers_in_use())

    async def _refresh(self, live: Live) -> None:
        """What this process holds for live and the records did not list: a write may have landed that looked failed."""
        if live.busy or not live.made.is_set():
            return
        try:
            await self._access.lives.reread(live)
        except NotFound:
            self._access.lives.forget(live)
            return
        if not live.sandbox.live:
            await self._endings.clear(live)

    async def _claim(self, live: Live, found: Found, outcome: Outcome) -> None:
        """Take over a sandbox that is recorded as live and exists."""
        handle = found.handle
        state = live.sandbox.state
        try:
            if state is SandboxState.STOPPING:
                await self._endings.finish_stop(live, 0, "system", None)
                outcome.ended.append(live.sandbox.id)
                return
            if state in UNDECIDED:
                event = self._access.event("sandbox.adopted", live.sandbox)
                await self._access.lives.move(live, SandboxState.RUNNING, event, handle=handle)
            elif live.watched:
                return
            live.paused = found.paused
            await self._adopt(live, handle)
            outcome.adopted.append(live.sandbox.id)
        except Conflict:
            pass  # it ended meanwhile

    async def _end_missing(self, live: Live, outcome: Outcome) -> None:
        """Record the end of a sandbox that does not exist."""
        sandbox = live.sandbox
        if live.busy or not sandbox.live:
            return
        if sandbox.state in (SandboxState.PENDING, SandboxState.BUILDING):
            await self._endings.gone(live, SandboxState.FAILED, "interrupted", None)
        elif sandbox.state is SandboxState.STOPPING:
            await self._endings.finish_stop(live, 0, "system", None)
        elif sandbox.state in (SandboxState.SUSPENDING, SandboxState.RESUMING):
            await self._endings.rest(live, sandbox.reason or "suspended", None)
        elif self._rebooted(sandbox):
            await self._endings.gone(live, SandboxState.FAILED, HOST_RESTARTED, None)
        elif not await self._exists(sandbox.id):
            await self._endings.lost(live)
        if not live.sandbox.live:
            outcome.ended.append(sandbox.id)

    async def _exists(self, sandbox_id: str) -> bool:
        async with deadline(self._access.limits.call_s, "finding the sandbox"):
            return await self._access.runtime.find(sandbox_id) is not None

    def _rebooted(self, sandbox: Sandbox) -> bool:
        made_at = (sandbox.handle or {}).get("boot_id")
        return made_at is not None and made_at != self._boot_id()

    async def _reap(self, sandbox_id: str, outcome: Outcome) -> None:
        """Destroy what exists without a live record: at once when its end is recorded, else after a grace."""
        access = self._access
        live = access.lives.get(sandbox_id)
        if live is not None and (live.busy or live.sandbox.live):
            return
        if sandbox_id in self._templates.builders or not await self._may_go(sandbox_id):
            return
        _log.info("sandbox.reaped", sandbox_id=sandbox_id)
        async with deadline(access.limits.destroy_s, "destroying an orphan"):
            await access.runtime.destroy(sandbox_id)
        outcome.destroyed.append(sandbox_id)

    async def _may_go(self, sandbox_id: str) -> bool:
        record = await self._access.records.get_sandbox(sandbox_id) if SANDBOX_ID.match(sandbox_id) else None
        if record is not None:
            return not record.live
        first = self._orphans.setdefault(sandbox_id, time.monotonic())
        return time.monotonic() - first >= self._access.limits.orphan_grace_s


async def _each(steps: Sequence[Awaitable[None]]) -> None:
    """All of them, a bounded number at a time; one that fails does not keep the others from their turn."""
    for at in range(0, len(steps), AT_ONCE):
        await asyncio.gather(*(quietly(step, "one sandbox") for step in steps[at : at + AT_ONCE]))


async def quietly(work: Awaitable[object], what: str) -> None:
    """A pass that fails is logged and tried again with the next one."""
    try:
        await work
    except AtollError as error:
        _log.warning("reconcile.failed", what=what, error=error.message)
    except Exception:
        _log.exception("reconcile.failed", what=what)


def _boot_id() -> str:
    return BOOT_ID.read_text().strip()
