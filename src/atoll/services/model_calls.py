"""Model calls: a program of a task asks a model; the money is set aside, the provider asked, and what it told charged.

The gateway hands them over. Every call resolves its hold exactly once, however it ends: when the program goes away,
the provider breaks off, or this server stops.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from atoll.domain.errors import AtollError, Unavailable
from atoll.domain.ids import new_id
from atoll.domain.ledger import (
    Hold,
    InsufficientCredit,
    Payer,
    SpendingLimitExceeded,
    Use,
    UseKind,
)
from atoll.domain.price import ModelPrice, TokenUse
from atoll.domain.sandbox import Sandbox
from atoll.services.clock import Clock, utc_now
from atoll.services.models.blanking import Blanking
from atoll.services.models.dialects import Dialect, Kind
from atoll.services.models.holding import Holding, Purse
from atoll.services.models.limits import ModelLimits
from atoll.services.models.meter import Meter, meter_of
from atoll.services.models.providers import Provider, Providers
from atoll.services.models.refusals import Because, CallRefused, ModelHangs
from atoll.services.models.requests import ModelRequest
from atoll.services.models.upstream import Upstream, UpstreamAnswer
from atoll.telemetry.metrics import Metrics
from atoll.telemetry.spans import note, span_of

_log = structlog.get_logger()
ERROR_BYTES_MAX = 64 * 1024
SETTLE_RETRIES_S = (0.5, 2.0, 8.0)
CLOSE_S = 10.0
BETA = "beta=true"  # the one query that goes on
PASSED_ON = ("anthropic-version", "anthropic-beta", "openai-beta")  # of a request's headers
PASSED_BACK = ("content-type", "retry-after", "x-should-retry", "request-id", "x-request-id")
HEADER_CHARS_MAX = 2_000


class Prices(Protocol):
    """What models cost."""

    def of(self, model: str, /) -> ModelPrice: ...


class TaskSide(Protocol):
    """What the calls ask and tell those who run the tasks."""

    async def payer(self, task_id: str) -> Payer | None:
        """Who pays for it; None: there is no such task, or it is over."""
        ...

    def used(self, task_id: str, tokens: TokenUse, cost: int) -> None:
        """A call is settled: the tokens are all that it used, `cost` its price in micro-dollars."""
        ...

    def dry(self, task_id: str, error: AtollError) -> None:
        """The money is spent: the task ends, its work is saved."""
        ...

    def hung(self, task_id: str, message: str) -> None:
        """Its model hangs: the task ends."""
        ...


class NoTasks:
    """Nobody runs tasks."""

    async def payer(self, task_id: str) -> Payer | None:
        return None

    def used(self, task_id: str, tokens: TokenUse, cost: int) -> None:
        return

    def dry(self, task_id: str, error: AtollError) -> None:
        return

    def hung(self, task_id: str, message: str) -> None:
        return


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What the program gets. `pieces` raises CallRefused when the answer breaks off."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncGenerator[bytes]


@dataclass(slots=True)
class _Call:
    """One call that was let through, until it is settled."""

    sandbox: Sandbox
    payer: Payer
    asked: ModelRequest
    provider: Provider
    model: str
    price: ModelPrice
    body: bytes
    hold: Hold | None
    meter: Meter
    begun_at: float = field(default_factory=time.monotonic)
    answered: bool = False  # the provider has begun an answer that costs
    settled: bool = False
    outcome: str = "broken"


class ModelCalls:
    """`tasks` is set by the composition root."""

    def __init__(
        self,
        ledger: Purse,
        prices: Prices,
        providers: Providers,
        blanking: Blanking,
        limits: ModelLimits | None = None,
        *,
        metrics: Metrics | None = None,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tasks: TaskSide = NoTasks()
        self.limits = limits or ModelLimits()
        self._ledger = ledger
        self._holding = Holding(ledger, self.limits)
        self._prices = prices
        self._providers = providers
        self._blanking = blanking
        self._upstream = Upstream(self.limits)
        self._metrics = (metrics or Metrics()).models
        self._clock = clock
        self._monotonic = monotonic
        self._places = asyncio.Semaphore(self.limits.calls_max)
        self._of_task: dict[str, asyncio.Semaphore] = {}
        self._waiting = Counter[str]()  # calls of a task, under way or waiting for a place
        self._settling: set[asyncio.Task[None]] = set()

    def check(self, speaks: str) -> None:
        """Unavailable, saying what to set, where no provider has that API; every agent need not have one ("")."""
        if not speaks:
            return
        try:
            self._providers.find(Kind(speaks))
        except CallRefused as error:
            raise Unavailable(error.message) from None

    async def close(self) -> None:
        """Let what is being settled be settled; a second call does nothing."""
        if self._settling:
            await asyncio.wait(set(self._settling), timeout=CLOSE_S)
        await self._upstream.close()

    @asynccontextmanager
    async def admitted(self, sandbox: Sandbox) -> AsyncGenerator[Payer]:
        """A place among the calls of the task of this sandbox, and who pays: all that is done for a call is done
        within. CallRefused when the task is over, or has too many calls."""
        payer = await self._payer(sandbox)
        async with self._place(sandbox.spec.task or ""):
            yield payer

    async def runs(self, sandbox: Sandbox) -> bool:
        """Whether the task of this sandbox still may ask."""
        try:
            await self._payer(sandbox)
        except AtollError:
            return False
        return True

    @asynccontextmanager
    async def call(
        self, sandbox: Sandbox, asked: ModelRequest, headers: Mapping[str, str], *, beta: bool = False
    ) -> AsyncGenerator[ModelAnswer]:
        """Ask the model, for the task of this sandbox. CallRefused when it cannot be. What was used is charged in the
        end, also where the answer is not read to its end."""
        with span_of(sandbox.spec.task or "", "model.call", **{"atoll.sandbox_id": sandbox.id}):
            async with self._asked(sandbox, asked, headers, beta=beta) as answer:
                yield answer

    @asynccontextmanager
    async def _asked(
        self, sandbox: Sandbox, asked: ModelRequest, headers: Mapping[str, str], *, beta: bool
    ) -> AsyncGenerator[ModelAnswer]:
        async with self._taken(self._places):
            payer = await self._payer(sandbox)
            passed = await self._passed_on(sandbox, headers)
            call = await self._let_through(sandbox, payer, asked)
            note("gen_ai.provider.name", call.provider.name)
            note("gen_ai.request.model", call.model[:128])
            url = call.provider.url(asked.dialect) + (f"?{BETA}" if beta else "")
            try:
                async with (
                    asyncio.timeout(self.limits.call_s),
                    self._upstream.ask(call.provider, "POST", url, passed, call.body) as upstream,
                ):
                    call.answered = 200 <= upstream.status < 300
                    yield await self._answer(call, upstream)
            except (TimeoutError, ModelHangs) as error:
                message = error.message if isinstance(error, ModelHangs) else "the model's answer took too long"
                call.outcome = "silent"
                self.tasks.hung(sandbox.spec.task or "", message)
                raise ModelHangs(message) from None
            except CallRefused:
                raise
            except BaseException:
                call.outcome = "left"
                raise
            finally:
                self._metrics.called(call.provider.name, call.outcome)
                await self._settle_behind(call)

    @asynccontextmanager
    async def look(
        self, sandbox: Sandbox, dialect: Dialect, kind: Kind, body: bytes, headers: Mapping[str, str]
    ) -> AsyncGenerator[ModelAnswer]:
        """What costs nothing: which models there are, and how many tokens a request has."""
        if dialect is Dialect.COUNT:
            asked = ModelRequest(dialect, body, self.limits)
            model = self._providers.named(asked.model)
            provider = self._providers.find(kind, model)
            body, _ = await self._blanking.blank(sandbox, asked.encoded(model, None))
        else:
            provider, body = self._providers.find(kind), b""
        method, passed = "POST" if body else "GET", await self._passed_on(sandbox, headers)
        async with (
            self._taken(self._places),
            asyncio.timeout(self.limits.between_s),
            self._upstream.ask(provider, method, provider.url(dialect), passed, body) as upstream,
        ):
            if 200 <= upstream.status < 300:
                yield ModelAnswer(upstream.status, _passed_back(upstream), upstream.pieces)
            else:
                yield await self._refused_by(provider, upstream)

    def refused(self, because: Because) -> None:
        """Count a call that was not made, if nothing here has."""
        reasons = {Because.REQUEST: "request", Because.TOO_LARGE: "request", Because.UNKNOWN: "request"}
        reason = reasons.get(because, "task" if because is Because.TASK_OVER else "")
        if reason:
            self._metrics.refused(reason)

    async def _passed_on(self, sandbox: Sandbox, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """What the program's headers have to say to the provider; no credential is among it, whatever it is called."""
        kept = [("Content-Type", "application/json")]
        for name in PASSED_ON:
            value = headers.get(name, "")
            if not 0 < len(value) < HEADER_CHARS_MAX or not (value.isascii() and value.isprintable()):
                continue
            if not (await self._blanking.blank(sandbox, value.encode()))[1]:
                kept.append((name, value))
        return kept

    async def _payer(self, sandbox: Sandbox) -> Payer:
        payer = await self.tasks.payer(sandbox.spec.task) if sandbox.spec.task else None
        if payer is None:
            raise CallRefused(Because.TASK_OVER, "the task of this sandbox is over: its model answers no more")
        return payer

    @asynccontextmanager
    async def _place(self, task: str) -> AsyncGenerator[None]:
        """A call's place among those of its task; CallRefused when there is none in time."""
        of_task = self._of_task.setdefault(task, asyncio.Semaphore(self.limits.calls_per_task))
        self._waiting[task] += 1
        try:
            async with self._taken(of_task):
                yield
        finally:
            self._waiting[task] -= 1
            if not self._waiting[task]:
                del self._waiting[task], self._of_task[task]

    @asynccontextmanager
    async def _taken(self, places: asyncio.Semaphore) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(self.limits.queue_s):
                await places.acquire()
        except TimeoutError:
            self._metrics.refused("busy")
            raise CallRefused(Because.BUSY, "too many calls of models at once", retry_after_s=5) from None
        try:
            yield
        finally:
            places.release()

    async def _let_through(self, sandbox: Sandbox, payer: Payer, asked: ModelRequest) -> _Call:
        model = self._providers.named(asked.model)
        provider = self._providers.find(asked.dialect.kind, model)
        price = self._prices.of(model)
        hold, bound = await self._hold(sandbox.spec.task or "", payer, asked, price)
        meter = meter_of(asked.dialect, streamed=asked.streamed, hide_usage=False)
        try:
            body, blanked = await self._blanking.blank(sandbox, asked.encoded(model, bound))
        except BaseException:
            await self._void_behind(hold)
            raise
        if blanked:
            self._metrics.blanked(blanked)
            _log.warning("models.blanked", sandbox_id=sandbox.id, task=sandbox.spec.task, places=blanked)
        return _Call(sandbox, payer, asked, provider, model, price, body, hold, meter)

    async def _hold(
        self, task: str, payer: Payer, asked: ModelRequest, price: ModelPrice
    ) -> tuple[Hold | None, int | None]:
        """CallRefused when the money cannot be had; where it is spent the task ends."""
        try:
            return await self._holding.take(payer, asked, price)
        except (InsufficientCredit, SpendingLimitExceeded) as error:
            self._metrics.refused("money")
            self.tasks.dry(task, error)
            raise CallRefused(Because.MONEY, error.message) from None

    async def _answer(self, call: _Call, upstream: UpstreamAnswer) -> ModelAnswer:
        if not call.answered:
            call.outcome = "refused"
            return await self._refused_by(call.provider, upstream)
        if upstream.headers.get("content-encoding", "identity") != "identity":
            call.answered = False
            raise CallRefused(Because.PROVIDER, "the model's provider answered in an encoding that was not asked for")
        streamed = "text/event-stream" in upstream.headers.get("content-type", "")
        hide = streamed and call.asked.dialect is Dialect.CHAT and not call.asked.usage_asked
        call.meter = meter_of(call.asked.dialect, streamed=streamed, hide_usage=hide)
        self._metrics.began(call.provider.name, self._monotonic() - call.begun_at)
        return ModelAnswer(upstream.status, _passed_back(upstream), self._metered(call, upstream))

    async def _metered(self, call: _Call, upstream: UpstreamAnswer) -> AsyncGenerator[bytes]:
        """It is settled before the program knows that the answer is over: what it does next finds it charged."""
        async with aclosing(upstream.pieces) as pieces:
            async for piece in pieces:
                passed = call.meter.feed(piece)
                if call.meter.over:
                    await self._settle_behind(call)
                if passed:
                    yield passed
        left = call.meter.end()
        await self._settle_behind(call)
        if left:
            yield left
        call.outcome = "answered"

    async def _refused_by(self, provider: Provider, upstream: UpstreamAnswer) -> ModelAnswer:
        """The provider's own error, without what is the operator's in it."""
        body = bytearray()
        async for piece in upstream.pieces:
            body += piece
            if len(body) > ERROR_BYTES_MAX:
                break
        if upstream.status in (401, 403):
            _log.error("models.credential_refused", provider=provider.name, status=upstream.status)
            raise CallRefused(Because.NOT_SET_UP, "the model's provider does not accept this server's key")
        if not 400 <= upstream.status < 600 or not bytes(body).strip().startswith(b"{"):
            after = upstream.headers.get("retry-after", "")
            retry_after_s = int(after) if after.isdecimal() and len(after) < 6 else None
            because = Because.BUSY if upstream.status == 429 else Because.PROVIDER
            raise CallRefused(because, f"the model's provider answered {upstream.status}", retry_after_s=retry_after_s)
        text = bytes(body)
        for one in self._providers.all:
            if one.key:
                text = text.replace(one.key.encode(), b"***")
        return ModelAnswer(upstream.status, _passed_back(upstream), _once(text))

    async def _settle_behind(self, call: _Call) -> None:
        """Once, in a task of its own: whoever asked may be cancelled, the money is settled."""
        if call.settled:
            return
        call.settled = True
        task = asyncio.create_task(self._settle(call), name="settling a model call")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        await asyncio.shield(task)

    async def _void_behind(self, hold: Hold | None) -> None:
        task = asyncio.create_task(self._ledger.void(hold), name="voiding a model call")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        await asyncio.shield(task)

    async def _settle(self, call: _Call) -> None:
        if not call.answered:
            await self._retried(lambda: self._ledger.void(call.hold), call)
            return
        tokens = call.meter.tokens(call.asked.input_tokens)
        cost = call.price.cost(tokens)
        payer = call.payer
        use = Use(
            id=new_id("use"),
            account=payer.account,
            kind=UseKind.MODEL,
            at=self._clock(),
            cost=cost,
            tokens=tokens,
            model=call.model,
            credential=payer.credential,
            task=payer.task,
            thread=payer.thread,
            sandbox=payer.sandbox,
            workspace=payer.workspace,
            workspace_owner=payer.workspace_owner,
            internal=payer.internal,
        )
        self._metrics.used(tokens)
        if call.hold is not None and cost.total > call.hold.amount:
            self._holding.went_beyond(payer.account, cost.total)
            _log.warning("models.beyond_hold", account=payer.account, model=call.model, cost=cost.total)
        if await self._retried(lambda: self._ledger.settle(call.hold, use), call):
            self.tasks.used(call.sandbox.spec.task or "", tokens, cost.total)

    async def _retried(self, resolve: Callable[[], Awaitable[object]], call: _Call) -> bool:
        """Whether it was done. The same use twice is one use, and a hold resolves once: so a store that is away for a
        moment is asked again; what is never done expires by itself."""
        for wait_s in (*SETTLE_RETRIES_S, 0.0):
            try:
                await resolve()
                return True
            except Exception as error:
                fault = not isinstance(error, AtollError | OSError)
                task = call.payer.task
                _log.warning("models.not_settled", task=task, error=str(error), again_in_s=wait_s, exc_info=fault)
            await asyncio.sleep(wait_s)
        return False


def _passed_back(upstream: UpstreamAnswer) -> dict[str, str]:
    return {name: upstream.headers[name] for name in PASSED_BACK if name in upstream.headers}


async def _once(text: bytes) -> AsyncGenerator[bytes]:
    yield text
