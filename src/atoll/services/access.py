"""Access: what the services of sandboxes share: the plug points, who may reach which sandbox, what a fault means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from atoll.domain.errors import AtollError, Conflict, Forbidden, Internal, NotFound, Unavailable
from atoll.domain.event import Event
from atoll.domain.ids import SANDBOX_ID
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.records.base import Records
from atoll.runtimes.base import Runtime
from atoll.services.background import Background
from atoll.services.charging.spending import FreeOfCharge, Spending
from atoll.services.clock import Clock
from atoll.services.deadline import deadline
from atoll.services.gates import Gates
from atoll.services.giving import Giving, NoGiving
from atoll.services.limits import Limits
from atoll.services.lives import Live, Lives
from atoll.services.mounting import Mounting, NoMounting
from atoll.services.patience import patience
from atoll.services.quotas import Quotas
from atoll.telemetry.metrics import Metrics

_log = structlog.get_logger()

UNANSWERED_MAX = 3  # times that nobody was there to be asked in a sandbox that the runtime says it has: it is lost
PING_S = 5.0
RECORDS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Access:
    """The plug points and the live sandboxes; `vanished` is told when a running sandbox turns out to be gone."""

    records: Records
    runtime: Runtime
    data: Path
    limits: Limits
    clock: Clock
    lives: Lives
    background: Background
    metrics: Metrics
    vanished: Callable[[Live], Awaitable[None]]
    quotas: Quotas
    mounting: Mounting = field(default_factory=NoMounting)
    giving: Giving = field(default_factory=NoGiving)
    spending: Spending = field(default_factory=FreeOfCharge)
    gates: Gates = field(kw_only=True)
    wake: Callable[[Sandbox], Awaitable[Live]] = field(default=lambda sandbox: _stays_asleep(sandbox))

    async def find(self, principal: Principal, sandbox_id: str, scope: Scope) -> Sandbox:
        """The principal's sandbox. Forbidden without the scope; NotFound, always the same, when it is not theirs."""
        principal.require(scope)
        live = self.lives.get(sandbox_id)
        if live is not None:
            sandbox: Sandbox | None = live.sandbox
        else:
            sandbox = await self.records.get_sandbox(sandbox_id) if SANDBOX_ID.match(sandbox_id) else None
        if sandbox is None or sandbox.removed or not principal.sees(sandbox.owner, sandbox.id):
            raise NotFound("session not found")
        principal.require(scope, sandbox.owner)
        return sandbox

    async def live(self, principal: Principal, sandbox_id: str, scope: Scope) -> Live:
        """As `find`, for one that has not ended: Conflict `session already <status>`."""
        sandbox = await self.find(principal, sandbox_id, scope)
        if not sandbox.live:
            raise Conflict(f"session already {sandbox.state}")
        return self.lives.get(sandbox_id) or self.lives.add(sandbox)

    async def running(self, principal: Principal, sandbox_id: str, scope: Scope) -> Live:
        """As `find`, for one that runs and is not paused: Conflict `session not running: status=<status>`."""
        live = await self.unended(principal, sandbox_id, scope)
        if live.paused:
            raise Conflict("session is paused: resume it first")
        return live

    async def unended(self, principal: Principal, sandbox_id: str, scope: Scope) -> Live:
        """As `running`, but paused ones too. One that is suspended is made again first."""
        sandbox = await self.find(principal, sandbox_id, scope)
        if sandbox.spec.task is not None and scope is not Scope.READ:
            await self._check_task(principal, sandbox)
        if sandbox.state in (SandboxState.SUSPENDED, SandboxState.RESUMING):
            return await self.wake(sandbox)
        if sandbox.state is not SandboxState.RUNNING:
            raise not_running(sandbox)
        return self.lives.get(sandbox_id) or self.lives.add(sandbox)

    async def acting(self, principal: Principal, sandbox_id: str, scope: Scope) -> Sandbox:
        """As `find`, for who acts inside: Forbidden in one that does a task of another credential's."""
        sandbox = await self.find(principal, sandbox_id, scope)
        if sandbox.spec.task is not None and scope is not Scope.READ:
            await self._check_task(principal, sandbox)
        return sandbox

    async def _check_task(self, principal: Principal, sandbox: Sandbox) -> None:
        """Whoever acts inside spends what the task may spend: Forbidden unless its owner, the credential that asked for
        it, or one that this came from does."""
        by = principal.credential if SANDBOX_ID.match(principal.credential) else next(iter(principal.lineage), "")
        if by in ("", sandbox.owner):
            return
        task = await self.records.get_task(sandbox.spec.task or "")
        if task is None or by not in (task.credential, *task.lineage):
            raise Forbidden("this session does a task that another credential asked for: it may be looked at only")

    @asynccontextmanager
    async def inside(self, live: Live, what: str, *, within_s: float | None) -> AsyncGenerator[None]:
        """Do something inside a running sandbox within a deadline; when it is gone meanwhile, say that instead.

        A NotFound may mean the file, the process or the whole sandbox: the runtime knows. Faults that are not our
        errors become Internal.
        """
        try:
            async with deadline(within_s, what):
                yield
        except NotFound:
            await self._still_there(live)
            raise
        except (AtollError, GeneratorExit):
            raise
        except Exception as error:
            await self._still_there(live)
            _log.exception("sandbox.fault", sandbox_id=live.sandbox.id, what=what)
            raise Internal(f"{what} failed inside the runtime") from error

    async def _still_there(self, live: Live) -> None:
        """Conflict when it does not run any more, Unavailable when it exists and does not answer."""
        answers = True
        if live.sandbox.state is SandboxState.RUNNING and not live.busy:
            answers = await self.look(live)
            if not answers and live.sandbox.state is SandboxState.RUNNING:
                # It may have ended just now: the runtime's word on that is on its way.
                await _at_most(self.limits.missing_grace_s, live.ended)
        if live.sandbox.state is not SandboxState.RUNNING:
            raise not_running(live.sandbox)
        if not answers:
            raise Unavailable("the sandbox does not answer")

    async def look(self, live: Live) -> bool:
        """Whether its sidekick answers. Tells `vanished` when the runtime has lost it, or says that it is there while
        nobody was there to be asked UNANSWERED_MAX times in a row. Who asks meanwhile is told what this look finds."""
        if live.look is None or live.look.done():
            live.look = self.background.spawn(self._look(live), f"look at {live.sandbox.id}")
        return await asyncio.shield(live.look)

    async def _look(self, live: Live) -> bool:
        try:
            there = await patience(PING_S, self._answers(live.sandbox.id), "finding the sandbox")
        except NotFound as error:
            _log.warning("sandbox.unanswered", sandbox_id=live.sandbox.id, error=error.message)
            if self._is_lost(live):
                await self.vanished(live)
            return False
        except Exception as error:
            # Silence is mostly another's fault, and the runtime says that it lives: it has deadlines for what is silent
            # for good. Nor is a sandbox to blame for a runtime that does not answer, or a server that cannot ask.
            _log.warning("sandbox.silent", sandbox_id=live.sandbox.id, error=str(error))
            return False
        live.unanswered = 0
        if not there:
            await self.vanished(live)
        return there

    async def _answers(self, sandbox_id: str) -> bool:
        """False when the runtime does not have it; NotFound when it has, and nobody is there to be asked."""
        found = await self.runtime.find(sandbox_id)
        if found is not None and not found.paused:  # what is frozen is there, and cannot say so
            await self.runtime.sidekick(sandbox_id).ping()
        return found is not None

    def _is_lost(self, live: Live) -> bool:
        """Count that nobody was there to be asked, once in a while; whether that is often enough."""
        now = asyncio.get_running_loop().time()
        if live.unanswered == 0 or now - live.unanswered_at >= self.limits.unanswered_apart_s:
            live.unanswered += 1
            live.unanswered_at = now
        return live.unanswered >= UNANSWERED_MAX

    async def layers_in_use(self) -> set[str]:
        """The baked layers of live sandboxes, and of those that rest."""
        resting = await self.records.list_sandboxes(states={SandboxState.SUSPENDED}, limit=RECORDS_MAX)
        known = [live.sandbox for live in self.lives]
        return {layer for sandbox in (*known, *resting) for layer in sandbox.spec.layers}

    def event(
        self,
        action: str,
        sandbox: Sandbox,
        *,
        actor: str = "system",
        outcome: str = "ok",
        request_id: str | None = None,
        **detail: object,
    ) -> Event:
        """An event about the sandbox, in its owner's tenant."""
        return Event(
            action=action,
            target=sandbox.id,
            tenant=sandbox.owner,
            actor=actor,
            outcome=outcome,
            request_id=request_id,
            detail={name: value for name, value in detail.items() if value is not None},
            at=self.clock(),
        )


async def _stays_asleep(sandbox: Sandbox) -> Live:
    raise not_running(sandbox)


async def _at_most(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def not_running(sandbox: Sandbox) -> Conflict:
    return Conflict(f"session not running: status={sandbox.state}")
