"""What every records store must do with a charge that somebody else gets, as tests; see `ledger_conformance`."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from atoll.domain.errors import InvalidInput
from atoll.domain.ledger import EARNED, HoldState, Payee, TransferKind, UseKind
from atoll.domain.ledger_replay import Replay
from atoll.records.base import Records
from atoll.testing.ledger_conformance import T0, Stores, credit, event, use, wanted

AUTHOR = Payee("author", "A run of summarise", {"worker": "wkr_1"})


async def replayed(records: Records) -> list[str]:
    """What is wrong, by a replay of every transfer."""
    replay = Replay()
    for one in await records.all_transfers():
        replay.add(one)
    for account in await records.all_billing_accounts():
        replay.held.pop(account.id, None)
        replay.check_account(account)
    replay.days.clear()
    replay.check_absent()
    return replay.problems


class PayeesConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    @pytest.fixture
    async def stores(self) -> Stores:
        raise NotImplementedError("give a fixture `stores`")

    @pytest.fixture
    async def records(self, stores: Stores) -> Records:
        await stores[0].transfer(credit(100), event())
        return stores[0]

    async def test_what_is_charged_is_posted_to_the_payee_in_the_same_step(self, records: Records) -> None:
        hold = await records.hold(wanted(30), T0)
        settled = await records.post_hold(hold.id, use(30, kind=UseKind.WORKER), T0, payee=AUTHOR)
        assert (settled.charged, settled.account.balance, settled.hold.state) == (30, 70, HoldState.POSTED)
        author = await records.billing_account("author", T0)
        assert (author.balance, author.spent, author.held) == (30, 0, 0)
        [paid, _] = await records.list_transfers("acc")
        assert (paid.kind, paid.amount, paid.credit, paid.description) == (
            TransferKind.USAGE, 30, EARNED, "A run of summarise",
        )  # fmt: skip
        assert paid.detail["worker"] == "wkr_1" and paid.detail["payee"] == "author"
        [earned] = await records.list_transfers("author")
        assert (earned.kind, earned.amount, earned.debit, earned.balance_after, earned.detail) == (
            TransferKind.EARNING, 30, EARNED, 30, {"worker": "wkr_1"},
        )  # fmt: skip
        assert (await records.billing_account("acc", T0)).spent == 30
        assert await replayed(records) == []

    async def test_a_payee_gets_it_once_however_often_it_is_posted(self, stores: Stores, records: Records) -> None:
        hold = await records.hold(wanted(30), T0)
        again = [stores[n % 2].post_hold(hold.id, use(30), T0, payee=AUTHOR) for n in range(6)]
        done = Counter(settled.charged for settled in await asyncio.gather(*again))
        assert done == {30: 1, 0: 5}
        assert (await records.billing_account("author", T0)).balance == 30
        assert len(await records.list_transfers("author")) == 1
        assert await replayed(records) == []

    async def test_nothing_is_posted_of_a_hold_that_was_let_go(self, records: Records) -> None:
        hold = await records.hold(wanted(30), T0)
        await records.void_hold(hold.id, T0)
        assert (await records.post_hold(hold.id, use(30), T0, payee=AUTHOR)).charged == 0
        assert await records.list_transfers("author") == []
        assert (await records.billing_account("acc", T0)).available == 100

    async def test_of_a_hold_that_expired_the_payee_gets_what_can_be_charged(self, records: Records) -> None:
        hold = await records.hold(wanted(80, expires_at=T0 + timedelta(seconds=1)), T0)
        await records.expire_holds(T0 + timedelta(seconds=2))
        await records.transfer(credit(70, kind=TransferKind.ADJUSTMENT), event())
        settled = await records.post_hold(hold.id, use(80), T0, payee=AUTHOR)
        assert (settled.charged, settled.lost) == (30, 50)
        assert (await records.billing_account("author", T0)).balance == 30
        assert await replayed(records) == []

    async def test_nobody_pays_themselves_nor_the_system(self, records: Records) -> None:
        hold = await records.hold(wanted(30), T0)
        for account in ("acc", EARNED, ""):
            with pytest.raises(InvalidInput):
                await records.post_hold(hold.id, use(30), T0, payee=Payee(account))
        assert (await records.billing_account("acc", T0)).held == 30

    async def test_two_who_pay_each_other_at_once_both_do(self, stores: Stores, records: Records) -> None:
        await records.transfer(credit(100, account="author"), event())

        async def sale(payer: str, payee: str, store: Records) -> int:
            hold = await store.hold(wanted(1, account=payer), T0)
            return (await store.post_hold(hold.id, use(1, account=payer), T0, payee=Payee(payee))).charged

        pairs = [("acc", "author"), ("author", "acc")] * 10
        sold = await asyncio.gather(*(sale(*pair, stores[n // 2 % 2]) for n, pair in enumerate(pairs)))
        assert sold == [1] * 20
        balances = [(await records.billing_account(name, T0)).balance for name in ("acc", "author")]
        assert balances == [100, 100]
        assert await replayed(records) == []

    async def test_earnings_are_not_moved_by_hand(self, records: Records) -> None:
        with pytest.raises(InvalidInput):
            await records.transfer(credit(5, kind=TransferKind.EARNING), event())
