"""Bills that are read in several parts while money moves tell of each row once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.ledger import NewTransfer, TransferKind, Use, UseKind
from atoll.domain.price import Cost
from atoll.services import billing as billing_module
from atoll.services.billing import ALWAYS, Billing, CostQuery, Page
from atoll.services.ledger.ledger import Ledger
from atoll.testing.memory_records import MemoryRecords

PAYER = "user_1"
NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


class Books:
    """A bill of a few rows, read two at a time; a clock that a test moves."""

    def __init__(self) -> None:
        self.now = NOW
        self.records = MemoryRecords()
        self.ledger = Ledger(self.records, clock=lambda: self.now)
        self.billing = Billing(self.records, self.ledger, clock=lambda: self.now)

    async def spends(self, cost: int = 1) -> None:
        """A second later."""
        self.now += timedelta(seconds=1)
        task = new_id("task")
        use = Use(new_id("use"), PAYER, UseKind.MODEL, self.now, Cost(cost), task=task)
        await self.ledger.charge(use)


LISTS: dict[str, tuple[Callable[[Books, Page], AsyncIterator[Any]], Callable[[Any], Any]]] = {
    "tasks": (lambda books, page: books.billing.tasks_of(PAYER, ALWAYS, page), lambda one: one.task),
    "transfers": (lambda books, page: books.billing.transfers_of(PAYER, ALWAYS, page), lambda one: one.id),
    "costs": (lambda books, page: books.billing.costs_of(PAYER, CostQuery("task"), ALWAYS, page), lambda one: one.name),
}


@pytest.fixture
async def books(monkeypatch: pytest.MonkeyPatch) -> Books:
    monkeypatch.setattr(billing_module, "PAGE_ROWS", 2)
    made = Books()
    given = Event("billing.credited", PAYER, PAYER, actor="admin", at=NOW)
    await made.records.transfer(NewTransfer(PAYER, TransferKind.PURCHASE, 1_000_000), given)
    for _ in range(5):
        await made.spends()
    return made


@pytest.mark.parametrize("which", LISTS)
async def test_what_is_spent_while_a_whole_list_is_read_brings_no_row_twice(books: Books, which: str) -> None:
    books.now += timedelta(seconds=1)
    read, name = LISTS[which]
    names: list[Any] = []
    async for one in read(books, Page(None)):
        names.append(name(one))
        await books.spends(cost=100)
    assert len(names) == len(set(names)) == (6 if which == "transfers" else 5)


async def test_one_part_alone_tells_of_what_another_server_with_a_faster_clock_wrote(books: Books) -> None:
    books.now -= timedelta(seconds=3)
    assert len([one async for one in books.billing.transfers_of(PAYER, ALWAYS, Page(2))]) == 2
    newest = [one async for one in books.billing.transfers_of(PAYER, ALWAYS, Page(1))]
    assert newest[0].at == NOW + timedelta(seconds=5)
