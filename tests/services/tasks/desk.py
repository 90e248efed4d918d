"""A tasks service over fakes: records, blobs and sandboxes in memory, working trees in real folders."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from atoll.agents.base import Agent
from atoll.agents.command import Command
from atoll.domain.errors import Unauthenticated, Unavailable
from atoll.domain.ledger import BillingAccount, Payer
from atoll.domain.principal import Principal
from atoll.domain.task import Task
from atoll.services.background import Background
from atoll.services.identity.memberships import Memberships
from atoll.services.tasks.access import TaskAccess
from atoll.services.tasks.feed import Feed
from atoll.services.tasks.layers import NoLayers
from atoll.services.tasks.requests import TaskLimits, TaskRequest
from atoll.services.tasks.tasks import Tasks
from atoll.telemetry.metrics import Metrics
from tests.services.conftest import ALICE
from tests.services.workspaces.workshop import Workshop

QUICK = TaskLimits(agent="command", stop_s=0.3, drain_s=0.5, close_s=1.0, call_s=2.0, revise_s=10.0, lease_s=0.6)


class OpenPurse:
    """Everybody has enough; `refuse` makes it otherwise."""

    refuse: Exception | None = None

    async def check(self, payer: Payer) -> None:
        if self.refuse is not None:
            raise self.refuse

    async def account(self, payer: str) -> BillingAccount:
        raise NotImplementedError


@dataclass
class Desk:
    """`restart` is what a new server process would see."""

    shop: Workshop
    limits: TaskLimits = QUICK
    agents: Mapping[str, Agent] = field(default_factory=lambda: {"command": Command()})
    money: Any = field(default_factory=OpenPurse)
    revoked: set[str] = field(default_factory=set)
    unspoken: set[str] = field(default_factory=set)
    tasks: Tasks = field(init=False)

    def __post_init__(self) -> None:
        self.build()

    async def stands(self, credential: str, owner: str) -> None:
        if credential in self.revoked:
            raise Unauthenticated

    def modelled(self, speaks: str) -> None:
        if speaks in self.unspoken:
            raise Unavailable("set a key")

    def build(self) -> None:
        shop = self.shop
        self.access = TaskAccess(
            server=lambda: "here",
            records=shop.records,
            runtime=shop.runtime,
            sandboxes=shop.sandboxes,
            workspaces=shop.workspaces,
            agents=self.agents,
            layers=NoLayers(),
            money=self.money,
            feed=Feed(shop.records),
            limits=self.limits,
            clock=shop.clock,
            metrics=Metrics(),
            background=Background(),
            roles=Memberships(shop.records).of,
            stands=self.stands,
            model_url="http://127.0.0.1:982",
            modelled=self.modelled,
        )
        self.tasks = Tasks(self.access)

    async def start(self) -> None:
        await self.tasks.start()

    async def close(self) -> None:
        await self.tasks.close()

    async def restart(self) -> None:
        await self.close()
        await self.shop.restart()
        self.build()
        await self.start()

    def cut(self) -> None:
        """Nothing of this server runs on, as of this moment."""
        queue = self.tasks._queue  # pyright: ignore[reportPrivateUsage]
        for one in (*queue._loops, *queue._tasks.values(), *self.access.background._tasks):  # pyright: ignore[reportPrivateUsage]
            one.cancel()

    async def die(self) -> None:
        """As `kill -9` would, and the next start."""
        self.cut()
        await self.shop.die()
        self.build()
        await self.start()

    async def submit(self, *command: str, principal: Principal = ALICE, **fields: Any) -> Task:
        request = TaskRequest(**({"prompt": "do it", "workspace": "w", "command": command} | fields))
        return await self.tasks.submit(principal, request)

    async def done(self, *command: str, principal: Principal = ALICE, **fields: Any) -> Task:
        task = await self.submit(*command, principal=principal, **fields)
        return await self.tasks.wait(principal, task.id)

    async def told(self, task: Task, after: int = 0) -> list[str]:
        return [one.type async for one in self.tasks.events(ALICE, task.id, after=after)]


Made = Callable[..., Any]


@pytest.fixture
async def desk(shop: Workshop) -> AsyncIterator[Desk]:
    made = Desk(shop)
    await made.start()
    yield made
    await made.close()
