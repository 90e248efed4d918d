"""Storage is charged by the hour, each hour once for each owner; who cannot pay stores nothing new."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.domain.errors import Conflict
from atoll.domain.key import KeyKind
from atoll.domain.ledger import BudgetExceeded, InsufficientCredit, Use, UseKind
from atoll.domain.workspace import Lineage, Pack
from atoll.services.charging.spending import PricedSpending
from atoll.services.charging.storage import GIB, StorageCharges
from atoll.services.ledger.prices import Prices
from tests.services.charging.conftest import NOW, PAYER, Till


async def stores(till: Till, size: int, owner: str = PAYER) -> None:
    lineage = Lineage(f"lin_{owner}", owner, "memory", b"key", NOW)
    await till.records.add_lineage(lineage)
    await till.records.add_pack(Pack(f"pack_{owner}", lineage.id, size, NOW), [])


async def test_each_hour_is_charged_once_whoever_looks(till: Till) -> None:
    await till.key()
    await till.give(1_000_000)
    await stores(till, 3 * GIB // 2)
    charges = StorageCharges(till.records, till.ledger, clock=lambda: till.now)
    other = StorageCharges(till.records, till.ledger, clock=lambda: till.now)
    assert [await charges.run(), await charges.run(), await other.run()] == [1, 0, 1]
    assert await till.charged() == 1_500
    till.passes(minutes=20)
    assert await charges.run() == 0
    till.passes(minutes=20)
    assert await charges.run() == 1
    assert await till.charged() == 3_000
    assert {(one.workspace_owner, one.account) for one in await till.uses(UseKind.STORAGE)} == {(PAYER, PAYER)}


async def test_internal_keys_store_for_nothing(till: Till) -> None:
    await till.key(kind=KeyKind.INTERNAL)
    await stores(till, GIB)
    await StorageCharges(till.records, till.ledger, clock=lambda: till.now).run()
    (use,) = await till.uses(UseKind.STORAGE)
    assert (use.internal, use.cost.total, await till.charged()) == (True, 1_000, 0)


async def test_what_has_no_price_is_not_looked_at(till: Till) -> None:
    till.ledger.prices = Prices()
    await till.key()
    await stores(till, GIB)
    assert await StorageCharges(till.records, till.ledger, clock=lambda: till.now).run() == 0
    await PricedSpending(till.records, till.ledger).check_storage(PAYER)


async def test_an_empty_account_stores_nothing_new(till: Till) -> None:
    await till.key()
    spending = PricedSpending(till.records, till.ledger)
    with pytest.raises(InsufficientCredit):
        await spending.check_storage(PAYER)
    await till.give(1)
    await spending.check_storage(PAYER)


async def test_what_is_stored_counts_under_the_budget_that_is_asked_before(till: Till) -> None:
    await till.key(budget_micro_usd=1_000)
    await till.give(1_000_000)
    await stores(till, GIB)
    spending = PricedSpending(till.records, till.ledger)
    await spending.check_storage(PAYER)
    await StorageCharges(till.records, till.ledger, clock=lambda: till.now).run()
    with pytest.raises(BudgetExceeded):
        await spending.check_storage(PAYER)


async def test_an_owner_who_cannot_be_charged_keeps_no_other_from_it(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "key_b00000000000"
    for owner in (PAYER, other):
        await till.key(owner)
        await till.give(1_000_000, owner)
        await stores(till, GIB, owner)
    charge = till.ledger.charge

    async def picky(use: Use, **more: Any) -> Any:
        if use.account == PAYER:
            raise Conflict
        return await charge(use, **more)

    monkeypatch.setattr(till.ledger, "charge", picky)
    await StorageCharges(till.records, till.ledger, clock=lambda: till.now).run()
    assert (await till.charged(), await till.charged(other)) == (0, 1_000)
