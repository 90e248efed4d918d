"""Runs of workers: a fresh sandbox of the caller's does what the author published, and its price goes to the author.

The price is set aside before and posted once the command has begun and is over, however it ended and whoever ended it,
in one transaction with what the author gets. The sandbox is its caller's, and so is the risk of what becomes of it: it
could be broken at will else, for runs that cost nothing. What could not begin is free, and so is what this server cuts
short when it stops or is killed: the hold is voided, or expires by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from atoll.domain.event import Event
from atoll.domain.ids import SANDBOX_ID, new_id
from atoll.domain.key import Scope
from atoll.domain.ledger import BudgetExceeded, Hold, InsufficientCredit, Payee, Payer, Use, UseKind
from atoll.domain.money import usd
from atoll.domain.price import Cost
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec, RunResult
from atoll.domain.sandbox import NetworkMode, Resources, Sandbox, SandboxSpec
from atoll.domain.worker import Worker
from atoll.domain.workspace import MOUNT_POINT, WorkspaceMount
from atoll.records.base import Records
from atoll.services.background import Background
from atoll.services.charging.compute import use_id
from atoll.services.charging.payers import payer_of
from atoll.services.clock import Clock
from atoll.services.ledger.ledger import Ledger
from atoll.services.marketplace.persons import person_of
from atoll.services.sandboxes import Sandboxes
from atoll.services.tasks.money import is_internal

_log = structlog.get_logger()

MAKING_S = 900.0  # that a sandbox may take to be made, with its template: a hold and a deadline outlast it
ENDING_S = 60.0
CLOSE_S = 10.0


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller asks of a worker. Nothing of the author's but template and command gets into the sandbox."""

    args: tuple[str, ...] = ()  # after the author's own words
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float = 60.0
    workspace: str | None = None  # one of the caller's, mounted where the command works
    network: NetworkMode = NetworkMode.NONE
    price_max_micro_usd: int | None = None
    version: str | None = None  # that was asked for by name, whose price stays; a price needs one of these two


@dataclass(frozen=True, slots=True)
class WorkerRun:
    """How it went. `charged` is what the caller paid for it."""

    id: str
    worker: Worker
    sandbox: Sandbox
    result: RunResult
    charged: int


class EndpointOnly(Conflict):
    """This worker has an endpoint and no command: call it there, it cannot be run here."""

    code = "endpoint_only"


class WorkerRuns:
    """Each is one sandbox that is killed at its end, whatever becomes of the caller or of this server."""

    def __init__(
        self,
        records: Records,
        sandboxes: Sandboxes,
        ledger: Ledger,
        *,
        run_s_max: float,
        output_bytes_max: int,
        clock: Clock,
    ) -> None:
        self._records = records
        self._sandboxes = sandboxes
        self._ledger = ledger
        self._run_s_max = run_s_max
        self._output_bytes_max = output_bytes_max
        self._clock = clock
        self._background = Background()
        self._draining = False

    def drain(self) -> None:
        """The server stops: a run that is cancelled from now on is not its caller's doing."""
        self._draining = True

    async def close(self) -> None:
        await self._background.close(CLOSE_S)

    async def run(self, principal: Principal, worker: Worker, asked: RunRequest, resources: Resources) -> WorkerRun:
        """Run it to its end. Needs `execute`.

        EndpointOnly for a worker without a command; InvalidInput when it has a price and the caller named neither a
        bound nor a version; Conflict when it costs more than `price_max_micro_usd`; InsufficientCredit, BudgetExceeded,
        SpendingLimitExceeded; all else as from `Sandboxes.create` and `Processes.run`. Nothing is charged for what
        could not begin, or the end of the server cut short; all else is, whether or not its end was heard of.
        """
        caller = principal.owning(Scope.EXECUTE)
        if not worker.command:
            raise EndpointOnly
        self._check(worker, asked)
        run_id = new_id("run")
        payer = await self._payer(principal, caller)
        free = not worker.price_micro_usd or worker.author == payer.account
        if not (free or payer.internal):
            _check_price(worker, asked)
        lasts_s = MAKING_S + asked.timeout_s + ENDING_S
        hold = None if free else await self._hold(payer, worker, lasts_s)
        begun = asyncio.Event()

        async def settle(sandbox: Sandbox) -> int:
            nonlocal hold
            if free:
                return 0
            paid, hold = hold, None  # it is settled from here on, also when whoever asks goes away
            settling = self._settle(paid, payer, worker, run_id, sandbox)
            return await self._background.finish(settling, f"settle {run_id}")

        try:
            sandbox = await self._sandboxes.create(principal, _spec(worker, asked, resources))
            try:
                try:
                    result = await self._result(principal, sandbox, worker, asked, begun.set)
                except (Exception, asyncio.CancelledError) as error:
                    if begun.is_set() and not self._is_ours(error):
                        await settle(sandbox)
                    raise
                crash.point("marketplace.ran")
                charged = await settle(sandbox) if begun.is_set() else 0
                await self._note(worker, principal, run_id, sandbox, result)
                return WorkerRun(run_id, worker, sandbox, result, charged)
            finally:
                await self._background.finish(self._end(principal, sandbox.id), f"end {run_id}")
        finally:
            if hold is not None:
                await self._background.finish(self._ledger.void(hold), f"void {run_id}")

    def _check(self, worker: Worker, asked: RunRequest) -> None:
        if not 0 < asked.timeout_s <= self._run_s_max:
            raise InvalidInput(f"timeout must be above 0 and at most {self._run_s_max:g} s", field="timeout")
        if asked.price_max_micro_usd is not None and worker.price_micro_usd > asked.price_max_micro_usd:
            raise Conflict(f"{_price(worker)}, more than max_price ({usd(asked.price_max_micro_usd):f})")

    def _is_ours(self, error: BaseException) -> bool:
        """Whether it was cut short by the end of this server. Who leaves while that ends pays nothing either."""
        return self._draining and isinstance(error, asyncio.CancelledError)

    async def _payer(self, principal: Principal, caller: str) -> Payer:
        """Whose key it came with or from pays, within that one's budgets, those above it, and those of sandboxes."""
        maker = principal.credential if SANDBOX_ID.match(principal.credential) else ""
        credential = next(iter(principal.lineage), principal.credential)
        payer = await payer_of(self._records, caller, credential, maker)
        return replace(payer, internal=True, budgets=()) if is_internal(principal) else payer

    async def _hold(self, payer: Payer, worker: Worker, lasts_s: float) -> Hold | None:
        """The price, set aside. Who cannot pay is told what it is, and what they have."""
        try:
            return await self._ledger.hold(payer, worker.price_micro_usd, lasts_s=lasts_s)
        except BudgetExceeded:  # not the balance
            raise
        except InsufficientCredit as error:
            held = ", of which other work holds a part" if error.balance >= worker.price_micro_usd else ""
            said = f"{_price(worker)}, and your balance is {usd(error.balance):f}{held}: an administrator adds credits"
            raise InsufficientCredit(said, balance=error.balance, spent=error.spent) from error

    async def _result(
        self, principal: Principal, sandbox: Sandbox, worker: Worker, asked: RunRequest, begun: Callable[[], None]
    ) -> RunResult:
        spec = ProcessSpec(
            (*worker.command, *asked.args),
            env=dict(asked.env),
            cwd=MOUNT_POINT if asked.workspace is not None else None,
            timeout_s=asked.timeout_s,
        )
        processes = self._sandboxes.processes
        most = self._output_bytes_max
        return await processes.run(principal, sandbox.id, spec, stdin=asked.stdin, max_output_bytes=most, begun=begun)

    async def _note(
        self, worker: Worker, principal: Principal, run_id: str, sandbox: Sandbox, result: RunResult
    ) -> None:
        detail = {
            "run": run_id, "version": worker.version, "author": worker.author, "sandbox": sandbox.id,
            "exit_code": result.exit.code,
        }  # fmt: skip
        event = Event("worker.ran", worker.id, principal.id, actor=principal.id, detail=detail, at=self._clock())
        with suppress(NotFound):  # it was taken back meanwhile
            who = await person_of(self._records, principal)
            await self._records.note_worker_run(worker, who, self._clock(), event)

    async def _settle(self, hold: Hold | None, payer: Payer, worker: Worker, run_id: str, sandbox: Sandbox) -> int:
        mount = next(iter(sandbox.spec.workspaces), None)
        use = Use(
            use_id("worker", run_id),
            payer.account,
            UseKind.WORKER,
            self._clock(),
            Cost(worker.price_micro_usd),
            credential=payer.credential,
            sandbox=sandbox.id,
            workspace=None if mount is None else mount.workspace,
            internal=payer.internal,
        )
        detail = {"worker": worker.id, "version": worker.version, "run": run_id}
        payee = Payee(worker.author, f"A run of {worker.name} {worker.version}", detail)
        try:
            settled = await self._ledger.settle(hold, use, payee=payee)
        except Unavailable:  # it is charged when the database answers
            _log.warning("marketplace.settled_late", run=run_id)
            return worker.price_micro_usd
        return 0 if settled is None else settled.charged

    async def _end(self, principal: Principal, sandbox_id: str) -> None:
        try:
            await self._sandboxes.kill(principal, sandbox_id)
        except (Conflict, NotFound, Forbidden):
            return  # it has ended by itself, or its caller may do nothing any more: its deadline ends it
        except AtollError as error:
            _log.warning("marketplace.not_ended", sandbox_id=sandbox_id, error=error.message)


def _check_price(worker: Worker, asked: RunRequest) -> None:
    """InvalidInput unless the caller knows what it costs: an author may publish another price at any time."""
    if asked.price_max_micro_usd is None and asked.version is None:
        raise InvalidInput(f"{_price(worker)}: say so with max_price, or name the version", field="max_price")


def _price(worker: Worker) -> str:
    return f"a run of {worker.name} {worker.version} costs {usd(worker.price_micro_usd):f} dollars"


def _spec(worker: Worker, asked: RunRequest, resources: Resources) -> SandboxSpec:
    """A sandbox that ends by itself when nobody ends it."""
    mounts = () if asked.workspace is None else (WorkspaceMount(asked.workspace, MOUNT_POINT),)
    bounds = replace(resources, timeout_s=asked.timeout_s + ENDING_S, idle_s=None)
    return SandboxSpec(image=worker.template, network=asked.network, workspaces=mounts, resources=bounds)
