"""What the tests of the model gateway share: a gateway whose model is the stand-in, and a purse that counts."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import uvicorn

from atoll.domain.errors import AtollError
from atoll.domain.ids import new_id
from atoll.domain.ledger import BillingAccount, Hold, HoldState, InsufficientCredit, Payer, Settled, Use
from atoll.domain.price import ModelPrice, TokenUse
from atoll.domain.sandbox import Sandbox, SandboxSpec
from atoll.domain.secret import GivenAs, SecretUse
from atoll.gateway.models import model_streams
from atoll.services.lives import Live
from atoll.services.model_calls import ModelCalls
from atoll.services.models.blanking import Blanking
from atoll.services.models.dialects import Kind
from atoll.services.models.limits import ModelLimits
from atoll.services.models.providers import Provider, Providers
from atoll.sidekick.client import GateStream
from atoll.surfaces.transport import Http
from atoll.surfaces.websocket_transport import WebSocket
from atoll.telemetry.metrics import Metrics
from atoll.testing.model_stand_in import ModelStandIn

TASK, ACCOUNT = "task_1", "key_a11ce0000000"
REAL_KEY = "sk-the-operators-own-key"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Purse:
    """A ledger with one account, in memory: a hold resolves once, or the test fails."""

    def __init__(self, balance: int = 10**9) -> None:
        self.balance = balance
        self.holds: dict[str, Hold] = {}
        self.uses: list[Use] = []

    @property
    def held(self) -> int:
        return sum(hold.amount for hold in self.holds.values() if hold.state is HoldState.PENDING)

    async def account(self, payer: str) -> BillingAccount:
        return BillingAccount(payer, self.balance, self.held, 0, None, None, NOW, NOW)

    async def hold(self, payer: Payer, amount_micro_usd: int, *, lasts_s: float) -> Hold | None:
        if payer.internal:
            return None
        if amount_micro_usd > self.balance - self.held:
            raise InsufficientCredit(balance=self.balance)
        made = Hold(
            new_id("hold"), payer.account, amount_micro_usd, HoldState.PENDING, NOW, NOW + timedelta(seconds=lasts_s)
        )
        self.holds[made.id] = made
        return made

    async def settle(self, hold: Hold | None, use: Use) -> Settled | None:
        self.uses.append(use)
        if hold is None:
            return None
        self._resolve(hold, HoldState.POSTED)
        charged = min(use.cost.total, self.balance)
        self.balance -= charged
        return Settled(hold, await self.account(hold.account), charged)

    async def void(self, hold: Hold | None) -> None:
        if hold is not None:
            self._resolve(hold, HoldState.VOIDED)

    def _resolve(self, hold: Hold, state: HoldState) -> None:
        assert self.holds[hold.id].state is HoldState.PENDING, "resolved twice"
        self.holds[hold.id] = replace(hold, state=state)

    def of(self, _model: str) -> ModelPrice:
        return ModelPrice()


@dataclass
class Side:
    """Those who run the tasks."""

    payers: dict[str, Payer] = field(default_factory=lambda: {TASK: Payer(ACCOUNT, task=TASK)})
    told: list[tuple[Any, ...]] = field(default_factory=list[Any])

    async def payer(self, task_id: str) -> Payer | None:
        return self.payers.get(task_id)

    def used(self, task_id: str, tokens: TokenUse, cost: int) -> None:
        self.told.append(("used", task_id, tokens, cost))

    def dry(self, task_id: str, error: AtollError) -> None:
        self.told.append(("dry", task_id, type(error)))

    def hung(self, task_id: str, message: str) -> None:
        self.told.append(("hung", task_id))


@dataclass
class World:
    """A gateway, the program's client of it, and what is behind."""

    client: httpx2.AsyncClient
    model: ModelStandIn
    purse: Purse
    side: Side
    calls: ModelCalls
    port: int
    metrics: Metrics
    serving: set[asyncio.Task[Any]] = field(default_factory=set[Any])

    @property
    def used(self) -> list[TokenUse]:
        return [use.tokens for use in self.purse.uses]

    def resolved(self) -> bool:
        return all(hold.state is not HoldState.PENDING for hold in self.purse.holds.values())


async def settled(world: World) -> None:
    """Until nothing is held any more."""
    async with asyncio.timeout(10):
        while not world.resolved():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def sandbox(task: str | None = TASK, secrets: bool = False) -> Sandbox:
    given = (SecretUse("sec_1", GivenAs.ENV, "TOKEN"),) if secrets else ()
    spec = SandboxSpec(task=task, secrets=given)
    return Sandbox("sess_0123456789ab", ACCOUNT, spec, "fake", NOW)


@asynccontextmanager
async def gateway(
    *,
    purse: Purse | None = None,
    limits: ModelLimits | None = None,
    secrets: Sequence[bytes] = (),
    providers: Sequence[Provider] | None = None,
    aliases: dict[str, str] | None = None,
    base: str = "",
) -> AsyncGenerator[World]:
    """Its streams come from a listener on the loopback, in place of a sandbox's gate. `base` is another provider's
    address in place of the stand-in's."""

    async def known(_sandbox: Sandbox) -> Sequence[bytes]:
        return secrets

    async with ModelStandIn(key=REAL_KEY) as model:
        url = base or model.url
        both = [
            Provider("openai", Kind.OPENAI, f"{url}/v1", REAL_KEY),
            Provider("anthropic", Kind.ANTHROPIC, url, REAL_KEY),
        ]
        purse, metrics = purse or Purse(), Metrics()
        found = Providers(both if providers is None else providers, aliases)
        calls = ModelCalls(purse, purse, found, Blanking(known, [REAL_KEY]), limits, metrics=metrics)
        side = Side()
        calls.tasks = side
        streams = model_streams(calls, config, Http)
        live = cast(Live, SimpleNamespace(sandbox=sandbox(secrets=bool(secrets))))

        async def accepted(reader: StreamReader, writer: StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            serving.add(task)
            try:
                await streams.serve(live, GateStream("model", "", 0, reader, writer))
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                serving.discard(task)
                writer.transport.abort()

        serving: set[asyncio.Task[Any]] = set()
        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20)
        try:
            yield World(client, model, purse, side, calls, port, metrics, serving)
        finally:
            await client.aclose()
            await streams.close()
            server.close()
            await calls.close()


def config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Http,
        ws=WebSocket,
        loop="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
