"""The ledger is proved while the server runs, and metrics say how that went."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from atoll.domain.errors import NotFound
from atoll.services.ledger.proving import Proving
from atoll.telemetry.ledger_metrics import LedgerMetrics

T0 = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Proof:
    wrong: int
    transfers: int = 3
    problems: tuple[str, ...] = ("account a: …",)


class Shop:
    """A ledger whose proofs find so many things wrong, one after the other; None: it cannot be read."""

    def __init__(self, *found: int | None) -> None:
        self.registry = CollectorRegistry()
        self._found = list(found)
        self.asked = asyncio.Event()
        metrics = LedgerMetrics(self.registry)
        self.proving = Proving(self._prove, every_s=0.001, first_s=0, metrics=metrics, clock=self._clock)

    def _clock(self) -> datetime:
        self.asked.set()  # of the moment of a proof that was made
        return T0

    async def _prove(self) -> Proof:
        wrong = self._found.pop(0) if len(self._found) > 1 else self._found[0]
        if wrong is None:
            raise NotFound("there is no database")
        return Proof(wrong)

    def told(self) -> tuple[float | None, float | None]:
        value = self.registry.get_sample_value
        return value("ledger_problems"), value("ledger_proved_timestamp_seconds")


@pytest.mark.parametrize("wrong", [0, 2])
async def test_a_proof_is_told_with_its_moment(wrong: int) -> None:
    shop = Shop(wrong)
    assert shop.told() == (0, 0)
    assert await shop.proving.run() is (wrong == 0)
    assert shop.told() == (wrong, T0.timestamp())


async def test_what_cannot_be_read_is_no_proof_and_is_tried_again() -> None:
    shop = Shop(None, None, 1)
    assert await shop.proving.run() is None and shop.told() == (0, 0)
    await shop.proving.start()
    try:
        async with asyncio.timeout(5):
            await shop.asked.wait()
        await asyncio.sleep(0)
        assert shop.told() == (1, T0.timestamp())
    finally:
        await shop.proving.close()
        await shop.proving.close()


async def test_without_an_interval_none_is_made() -> None:
    shop = Shop(0)
    idle = Proving(shop._prove, every_s=0)
    await idle.start()
    await asyncio.sleep(0)
    assert not shop.asked.is_set()
    await idle.close()
