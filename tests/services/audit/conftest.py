"""A store with events of three tenants and two checkpoints, and its vault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from atoll.domain.event import Event
from atoll.records.sql import SqlRecords, open_records
from atoll.services.audit.chain_check import Report
from atoll.services.audit.checkpoints import Checkpoints
from atoll.services.audit.verifying import verify
from atoll.testing.memory_vault import MemoryVault
from atoll.testing.records_conformance import T0, event
from tests.records.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]


@dataclass
class Trail:
    """A store, with what signs and what verifies it."""

    records: SqlRecords
    vault: MemoryVault
    anchor: Path
    url: str

    @property
    def file(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))

    async def checkpoint(self) -> None:
        """As a server that starts and ends."""
        job = Checkpoints(self.records, self.vault, self.anchor)
        await job.start()
        await job.close()

    async def write(self, count: int, tenants: int = 3) -> None:
        for n in range(count):
            await self.records.add_events([happened(n, tenants)])

    async def verify(self, tenant: str | None = None) -> Report:
        return await verify(self.records, self.vault, self.anchor, tenant)


def happened(n: int, tenants: int = 3) -> Event:
    return replace(event(f"t{n}", tenant=f"key_{n % tenants}"), at=T0 + timedelta(seconds=n), detail={"n": n, "é": 0.5})


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/atoll.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


async def opened(url: str, tmp_path: Path) -> AsyncIterator[Trail]:
    records, vault = open_records(url), MemoryVault()
    await records.start()
    await vault.start()
    made = Trail(records, vault, tmp_path / "audit.json", url)
    await made.write(20)
    await made.checkpoint()
    await made.write(10)
    await made.checkpoint()
    yield made
    await records.close()


@pytest.fixture
async def trail(tmp_path: Path) -> AsyncIterator[Trail]:
    """On SQLite."""
    async for made in opened(f"sqlite:///{tmp_path}/atoll.db", tmp_path):
        yield made


@pytest.fixture
async def any_trail(any_url: str, tmp_path: Path) -> AsyncIterator[Trail]:
    """On both databases."""
    async for made in opened(any_url, tmp_path):
        yield made
