"""Model calls: a program of a task asks a model; the money is set aside, the provider asked, and what it told charged.

The gateway hands them over. Every call resolves its hold exactly once, however it ends: when the program goes away,
the provider breaks off, or this server stops.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

import structlog

from atoll.domain.errors import AtollError, Unavailable
from atoll.domain.ledger import Hold, InsufficientCredit, Payer, SpendingLimitExceeded, Use
from atoll.domain.price import ModelPrice
from atoll.domain.sandbox import Sandbox
from atoll.services.clock import Clock, utc_now
from atoll.services.models.blanking import Blanking
from atoll.services.models.call import Call
from atoll.services.models.dialects import Dialect, Kind
from atoll.services.models.holding import Holding, Purse
from atoll.services.models.limits import ModelLimits
from atoll.services.models.meter import meter_of
from atoll.services.models.passing import BETA, ModelAnswer, answer_of, error_of, headers_for
from atoll.services.models.places import Places
from atoll.services.models.providers import Providers
from atoll.services.models.refusals import Because, CallRefused, ModelHangs
from atoll.services.models.requests import ModelRequest
from atoll.services.models.settling import Settling
from atoll.services.models.task_side import NoTasks, TaskSide
from atoll.services.models.upstream import Upstream, UpstreamAnswer
from atoll.telemetry.metrics import Metrics
from atoll.telemetry.spans import note, span_of

_log = structlog.get_logger()


class Prices(Protocol):
    """What models cost."""

    def of(self, model: str, /) -> ModelPrice: ...


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
        self._metrics = (metrics or Metrics()).models
        self._holding = Holding(ledger, self.limits)
        self._settling = Settling(ledger, self._holding, self._metrics, clock, self._used)
        self._prices = prices
        self._providers = providers
        self._blanking = blanking
        self._upstream = Upstream(self.limits)
        self._places = Places(self.limits, self._metrics)
        self._monotonic = monotonic

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
        await self._settling.close()
        await self._upstream.close()

    @asynccontextmanager
    async def admitted(self, sandbox: Sandbox) -> AsyncGenerator[Payer]:
        """A place among the calls of the task of this sandbox, and who pays: all that is done for a call is done
        within. CallRefused when the task is over, or has too many calls."""
        payer = await self._payer(sandbox)
        async with self._places.of_task(sandbox.spec.task or ""):
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
        async with self._places.of_all():
            payer = await self._payer(sandbox)
            passed = await headers_for(self._blanking, sandbox, headers)
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
                self.tasks.hung(call.task, message)
                raise ModelHangs(message) from None
            except CallRefused:
                raise
            except BaseException:
                call.outcome = "left"
                raise
            finally:
                self._metrics.called(call.provider.name, call.outcome)
                await self._settling.settle(call)

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
        method, passed = "POST" if body else "GET", await headers_for(self._blanking, sandbox, headers)
        async with (
            self._places.of_all(),
            asyncio.timeout(self.limits.between_s),
            self._upstream.ask(provider, method, provider.url(dialect), passed, body) as upstream,
        ):
            if 200 <= upstream.status < 300:
                yield answer_of(upstream, upstream.pieces)
            else:
                yield await error_of(self._providers, provider, upstream)

    def refused(self, because: Because) -> None:
        """Count a call that was not made, if nothing here has."""
        reasons = {Because.REQUEST: "request", Because.TOO_LARGE: "request", Because.UNKNOWN: "request"}
        reason = reasons.get(because, "task" if because is Because.TASK_OVER else "")
        if reason:
            self._metrics.refused(reason)

    async def _payer(self, sandbox: Sandbox) -> Payer:
        payer = await self.tasks.payer(sandbox.spec.task) if sandbox.spec.task else None
        if payer is None:
            raise CallRefused(Because.TASK_OVER, "the task of this sandbox is over: its model answers no more")
        return payer

    async def _let_through(self, sandbox: Sandbox, payer: Payer, asked: ModelRequest) -> Call:
        model = self._providers.named(asked.model)
        provider = self._providers.find(asked.dialect.kind, model)
        price = self._prices.of(model)
        hold, bound = await self._hold(sandbox.spec.task or "", payer, asked, price)
        meter = meter_of(asked.dialect, streamed=asked.streamed, hide_usage=False)
        try:
            body, blanked = await self._blanking.blank(sandbox, asked.encoded(model, bound))
        except BaseException:
            await self._settling.void(hold)
            raise
        if blanked:
            self._metrics.blanked(blanked)
            _log.warning("models.blanked", sandbox_id=sandbox.id, task=sandbox.spec.task, places=blanked)
        return Call(sandbox, payer, asked, provider, model, price, body, hold, meter)

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

    async def _answer(self, call: Call, upstream: UpstreamAnswer) -> ModelAnswer:
        if not call.answered:
            call.outcome = "refused"
            return await error_of(self._providers, call.provider, upstream)
        if upstream.headers.get("content-encoding", "identity") != "identity":
            call.answered = False
            raise CallRefused(Because.PROVIDER, "the model's provider answered in an encoding that was not asked for")
        streamed = "text/event-stream" in upstream.headers.get("content-type", "")
        hide = streamed and call.asked.dialect is Dialect.CHAT and not call.asked.usage_asked
        call.meter = meter_of(call.asked.dialect, streamed=streamed, hide_usage=hide)
        self._metrics.began(call.provider.name, self._monotonic() - call.begun_at)
        return answer_of(upstream, self._metered(call, upstream))

    async def _metered(self, call: Call, upstream: UpstreamAnswer) -> AsyncGenerator[bytes]:
        """It is settled before the program knows that the answer is over: what it does next finds it charged."""
        async with aclosing(upstream.pieces) as pieces:
            async for piece in pieces:
                passed = call.meter.feed(piece)
                if call.meter.over:
                    await self._settling.settle(call)
                if passed:
                    yield passed
        left = call.meter.end()
        await self._settling.settle(call)
        if left:
            yield left
        call.outcome = "answered"

    def _used(self, call: Call, use: Use) -> None:
        self.tasks.used(call.task, use.tokens, use.cost.total)
