"""What the tests of charging share: a ledger with prices, sandboxes that count their seconds, a clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import AtollError, Conflict
from atoll.domain.event import Event
from atoll.domain.key import DEFAULT_SCOPES, ApiKey, KeyKind
from atoll.domain.ledger import NewTransfer, TransferKind, Use, UseKind
from atoll.domain.sandbox import Sandbox, SandboxSpec, SandboxState, Usage
from atoll.records.base import Records
from atoll.records.ledger import UseQuery
from atoll.services.charging.compute import ComputeCharges
from atoll.services.ledger.ledger import Ledger
from atoll.services.ledger.prices import Prices
from atoll.testing.memory_records import MemoryRecords
from tests.records.migrated import migrated_sqlite
from tests.records.test_conformance import opened_twice

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
PAYER = "key_a11ce0000000"


@dataclass
class Seconds:
    """Sandboxes of which a test says how long each has run."""

    live: dict[str, tuple[Sandbox, float]] = field(default_factory=dict[str, tuple[Sandbox, float]])
    left: list[str] = field(default_factory=list[str])
    ended: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    async def measured(self) -> list[tuple[Sandbox, float]]:
        return list(self.live.values())

    def take_left(self) -> list[str]:
        found, self.left = self.left, []
        return found

    async def end(self, sandbox_id: str, reason: str) -> None:
        if self.live.pop(sandbox_id, None) is None:
            raise Conflict("session has ended")
        self.ended.append((sandbox_id, reason))


@dataclass
class Till:
    """Compute at 10 micro-dollars a second, storage at 1,000 for a GiB and an hour."""

    records: Records
    seconds: Seconds = field(default_factory=Seconds)
    dry: list[tuple[str, AtollError]] = field(default_factory=list[tuple[str, AtollError]])
    now: datetime = NOW
    prices: Prices = field(
        default_factory=lambda: Prices(compute_per_s=Decimal(10), storage_per_gib_hour=Decimal(1_000))
    )

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.records, self.prices, clock=lambda: self.now)
        self.restart()

    def restart(self) -> None:
        """As another life of the server begins."""
        self.compute = ComputeCharges(
            self.records,
            self.ledger,
            self.seconds,
            dry=lambda task, error: self.dry.append((task, error)),
            clock=lambda: self.now,
        )

    async def key(self, key_id: str = PAYER, kind: KeyKind = KeyKind.STANDARD, **fields: Any) -> ApiKey:
        key = ApiKey(key_id, key_id, "sk_", "k", kind, DEFAULT_SCOPES, NOW, **fields)
        await self.records.add_key(key, Event("key.created", key_id, key.owner, actor="test"))
        return key

    async def give(self, amount: int, account: str = PAYER) -> None:
        wanted = NewTransfer(account, TransferKind.PURCHASE, amount)
        await self.records.transfer(wanted, Event("billing.credited", account, account, actor="test"))

    async def sandbox(self, sandbox_id: str = "sess_000000000001", owner: str = PAYER, **fields: Any) -> Sandbox:
        made = Sandbox(sandbox_id, owner, fields.pop("spec", SandboxSpec()), "fake", NOW, **fields)
        await self.records.add_sandbox(made, Event("sandbox.created", sandbox_id, owner, actor=owner))
        return await self.records.swap_sandbox(made.to(SandboxState.RUNNING), None)

    async def ran(self, sandbox: Sandbox, seconds: float, *, passes: bool = True) -> int:
        self.seconds.live[sandbox.id] = (sandbox, seconds)
        return await self.compute.run() if passes else 0

    async def ends(self, sandbox: Sandbox, seconds: float) -> None:
        done = sandbox.to(SandboxState.STOPPED, usage=replace(Usage(), duration_s=seconds), ended_at=self.now)
        await self.records.swap_sandbox(done, None)
        self.seconds.live.pop(sandbox.id, None)
        self.seconds.left.append(sandbox.id)

    async def charged(self, account: str = PAYER) -> int:
        return (await self.ledger.account(account)).spent

    async def uses(self, kind: UseKind = UseKind.COMPUTE) -> list[Use]:
        return await self.records.list_uses(UseQuery(kind=kind, internal=None))

    def passes(self, **time: float) -> None:
        self.now += timedelta(**time)


@pytest.fixture(params=["memory", "sqlite"])
async def till(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Till]:
    if request.param == "memory":
        yield Till(MemoryRecords())
        return
    async for stores in opened_twice(await migrated_sqlite(tmp_path / "atoll.db")):
        yield Till(stores[0])
