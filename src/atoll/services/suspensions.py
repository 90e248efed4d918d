"""Suspensions: a sandbox with a workspace goes to rest, and wakes with its next use as if it had only slept.

At rest nothing of it is left in the runtime: its files are in its workspaces, its record says how to make it again, and
its ports go on listening, so that a request to one of them wakes it too. Its main process starts anew. Sandboxes calls
it; `Access.running` wakes what rests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, Forbidden, NotFound, QuotaExceeded
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.services import saved_log
from atoll.services.access import Access, not_running
from atoll.services.endings import Endings
from atoll.services.identity.principals import Principals
from atoll.services.listeners import Listeners
from atoll.services.lives import Live
from atoll.services.makings import Makings

_log = structlog.get_logger()

RECORDS_MAX = 100_000


class Suspensions:
    """One waking of a sandbox at a time; whoever comes meanwhile waits for it."""

    def __init__(self, access: Access, endings: Endings, makings: Makings, listeners: Listeners) -> None:
        self._access = access
        self._endings = endings
        self._makings = makings
        self._listeners = listeners
        self._waking: dict[str, asyncio.Task[Live]] = {}
        self.heard: list[Callable[[Sandbox], None]] = []  # of each that was made again

    async def start(self) -> None:
        """Let the ports of those that rest listen again."""
        resting = await self._access.records.list_sandboxes(states={SandboxState.SUSPENDED}, limit=RECORDS_MAX)
        for sandbox in resting:
            await self._listen(sandbox)

    async def end(self, sandbox: Sandbox, state: SandboxState, actor: str, request_id: str | None) -> Sandbox:
        """End one that rests, for good: STOPPED or KILLED. Conflict when it has ended, or wakes just now."""
        access = self._access
        live = access.lives.get(sandbox.id) or Live(sandbox)
        event = access.event(f"sandbox.{state}", sandbox, actor=actor, request_id=request_id)
        await self._endings.move(live, state, event, reason=state.value)
        await self._listeners.close(sandbox.id)
        self._endings.tell(live.sandbox)
        return live.sandbox

    async def suspend(self, live: Live, grace_s: float, actor: str, request_id: str | None) -> Sandbox:
        """TERM, wait, KILL, destroy; returns it SUSPENDED, its workspaces are revised soon after.

        Conflict without a workspace that it can write to, or when it does not run any more.
        """
        access = self._access
        if not live.sandbox.may_rest:
            raise Conflict("a session without a writable workspace cannot be suspended: nothing of it would be left")
        event = access.event("sandbox.suspending", live.sandbox, actor=actor, request_id=request_id)
        with live.held():
            await self._endings.move(live, SandboxState.SUSPENDING, event)
            crash.point("sandboxes.suspend.recorded")
            await self._endings.stop_all(live, grace_s)
            log = await self._endings.read_log(live.sandbox.id) if live.sandbox.spec.command else None
            usage = await self._endings.destroy(live)
            # not before: a sandbox that was not destroyed would have its output in both
            await self._endings.save_log(saved_log.earlier_path(access.data, live.sandbox.id), log)
            crash.point("sandboxes.suspend.destroyed")
            await self._endings.rest(live, "suspended", usage, actor, request_id)
        return live.sandbox

    async def wake(self, sandbox: Sandbox, *, actor: str | None = None) -> Live:
        """Make it again; returns it RUNNING. Errors as from making one: it then rests as before."""
        task = self._waking.get(sandbox.id)
        if task is None:
            task = self._access.background.spawn(self._wake(sandbox, actor or sandbox.owner), f"wake {sandbox.id}")
            self._waking[sandbox.id] = task
            task.add_done_callback(lambda _: self._waking.pop(sandbox.id, None))
        return await asyncio.shield(task)

    async def wake_for_port(self, sandbox_id: str) -> None:
        """Somebody connects to one of its ports: make it again if it rests."""
        live = self._access.lives.get(sandbox_id)
        if live is not None and sandbox_id not in self._waking:
            return
        sandbox = await self._access.records.get_sandbox(sandbox_id)
        if sandbox is not None and sandbox.state in (SandboxState.SUSPENDED, SandboxState.RESUMING):
            await self.wake(sandbox)

    async def _wake(self, sandbox: Sandbox, actor: str) -> Live:
        access = self._access
        stored = await access.records.get_sandbox(sandbox.id)
        if stored is None:
            raise NotFound("session not found")
        if stored.state is SandboxState.RUNNING:
            return access.lives.get(stored.id) or access.lives.add(stored)
        if not stored.may_wake:
            raise not_running(stored)
        await self._check_owner(stored)
        await access.spending.check_compute(stored.owner, stored.credential, stored.spec.maker)
        bounds = await access.quotas.bounds_of(stored)
        live = access.lives.add_unmade(stored)
        live.actor = actor
        with live.held():
            await self._keep_age(live)
            event = access.event("sandbox.resuming", stored, actor=actor)
            try:
                await self._endings.move(live, SandboxState.RESUMING, event, bounds=bounds, ended_at=None)
                crash.point("sandboxes.resume.recorded")
                await self._makings.remake(live)
                self._listeners.woken(live.sandbox.id)
            except Exception as error:
                await self._rest_again(live, stored, error)
                raise
        for heard in self.heard:
            heard(live.sandbox)
        return live

    async def _check_owner(self, sandbox: Sandbox) -> None:
        limits, records = self._access.limits, self._access.records
        if len(self._access.lives) >= limits.sandboxes_max:
            raise QuotaExceeded(f"this server holds its maximum of {limits.sandboxes_max} live sandboxes")
        if await Principals(records, self._access.clock).has_ended(sandbox.owner):
            raise Forbidden(
                "the session rests: the key of its owner was revoked or has expired, or its user is disabled"
            )

    async def _keep_age(self, live: Live) -> None:
        """Rest does not make it younger: past its age it ends for good."""
        sandbox, access = live.sandbox, self._access
        age_s = (access.clock() - sandbox.created_at).total_seconds()
        limit_s = sandbox.spec.resources.max_age_s
        if limit_s is not None and age_s >= limit_s:
            event = access.event("sandbox.ended", sandbox, reason="max_age")
            await self._endings.move(live, SandboxState.KILLED, event, reason="max_age")
            await self._listeners.close(sandbox.id)
            self._endings.forget(live)
            raise not_running(live.sandbox)

    async def _rest_again(self, live: Live, before: Sandbox, error: Exception) -> None:
        access = self._access
        await self._endings.destroy(live)
        code = error.code if isinstance(error, AtollError) else "internal"
        event = access.event("sandbox.suspended", live.sandbox, outcome=code, reason=before.reason)
        try:
            if live.sandbox.state is SandboxState.RESUMING:
                await self._endings.move(live, SandboxState.SUSPENDED, event, reason=before.reason or "suspended")
        except AtollError as fault:
            _log.warning("sandbox.rest_unrecorded", sandbox_id=before.id, error=fault.message)
        finally:
            self._endings.forget(live)

    async def _listen(self, sandbox: Sandbox) -> None:
        ports = sandbox.spec.ports
        if not ports or self._listeners.has(sandbox.id):
            return
        try:
            opened = await self._listeners.open(sandbox, ports)
            if opened != ports:
                event = self._access.event("sandbox.ports_moved", sandbox)
                moved = replace(sandbox, spec=replace(sandbox.spec, ports=opened))
                await self._access.records.swap_sandbox(moved, event)
        except AtollError as error:
            _log.warning("sandbox.ports_closed", sandbox_id=sandbox.id, error=error.message)
