"""What every records store must do with money, as tests; see `records_conformance` for how a store gives them its
fixture `stores`. Battery rows B01 and B02."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atoll.domain.errors import Conflict, InvalidInput, NotFound
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.ledger import (
    EARNED,
    ISSUED,
    Budget,
    BudgetExceeded,
    Hold,
    HoldState,
    InsufficientCredit,
    NewHold,
    NewTransfer,
    SpendingLimitExceeded,
    Spent,
    Transfer,
    TransferKind,
    Use,
    UseKind,
)
from atoll.domain.price import Cost, TokenUse
from atoll.records.base import Records
from atoll.records.ledger import KEEP, UseQuery

T0 = datetime(2026, 3, 15, 12, 0, 0, tzinfo=UTC)
LATER = T0 + timedelta(hours=1)
Stores = tuple[Records, Records]


def event(action: str = "billing.credited", at: datetime = T0) -> Event:
    return Event(action, "acc", "acc", actor="admin", at=at)


def credit(amount: int, *, account: str = "acc", **fields: Any) -> NewTransfer:
    return NewTransfer(account, fields.pop("kind", TransferKind.PURCHASE), amount, **fields)


def wanted(amount: int = 10, *, account: str = "acc", **fields: Any) -> NewHold:
    values: dict[str, Any] = {"id": new_id("hold"), "expires_at": LATER, **fields}
    return NewHold(account=account, amount=amount, **values)


def use(cost: int | Cost = 10, *, account: str = "acc", **fields: Any) -> Use:
    price = Cost(cost) if isinstance(cost, int) else cost
    values: dict[str, Any] = {"id": new_id("use"), "kind": UseKind.MODEL, "at": T0, "cost": price, **fields}
    return Use(account=account, **values)


class LedgerConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    @pytest.fixture
    async def stores(self) -> Stores:
        raise NotImplementedError("give a fixture `stores`")

    @pytest.fixture
    async def records(self, stores: Stores) -> Records:
        await stores[0].transfer(credit(100), event())
        return stores[0]

    # accounts and transfers

    async def test_an_account_is_made_by_the_first_question(self, stores: Stores) -> None:
        made = await stores[0].billing_account("new", T0)
        assert (made.balance, made.held, made.spent, made.daily_limit) == (0, 0, 0, None)
        assert (made.created_at, await stores[1].billing_account("new", LATER)) == (T0, made)

    async def test_the_systems_own_accounts_are_nobodys(self, records: Records) -> None:
        for name in (ISSUED, EARNED, ""):
            with pytest.raises(InvalidInput):
                await records.billing_account(name, T0)
            with pytest.raises(InvalidInput):
                await records.transfer(credit(1, account=name), event())
            with pytest.raises(InvalidInput):
                await records.hold(wanted(account=name), T0)

    async def test_a_credit_comes_from_what_is_issued_and_has_its_event(self, records: Records) -> None:
        moved = await records.transfer(credit(50, description="thanks", detail={"order": 7}), event())
        assert (moved.id, moved.debit, moved.credit, moved.balance_after) == (2, ISSUED, "acc", 150)
        assert (moved.description, moved.detail, moved.at) == ("thanks", {"order": 7}, T0)
        assert (await records.list_transfers("acc"))[0] == moved
        assert len(await records.list_events(tenant="acc")) == 2
        await self.check_sums(records)

    async def test_an_adjustment_takes_what_is_available_and_no_more(self, records: Records) -> None:
        await records.hold(wanted(70), T0)
        with pytest.raises(InsufficientCredit) as refused:
            await records.transfer(credit(31, kind=TransferKind.ADJUSTMENT), event())
        assert refused.value.balance == 100
        taken = await records.transfer(credit(30, kind=TransferKind.ADJUSTMENT), event())
        assert (taken.debit, taken.credit, taken.balance_after) == ("acc", ISSUED, 70)
        assert len(await records.list_events(tenant="acc")) == 2, "what was refused has no event"
        await self.check_sums(records)

    async def test_a_refund_comes_from_what_was_earned(self, records: Records) -> None:
        await records.add_use(use(40), T0)
        back = await records.transfer(credit(15, kind=TransferKind.REFUND), event())
        account = await records.billing_account("acc", T0)
        assert (back.debit, back.balance_after, account.spent) == (EARNED, 75, 40)
        await self.check_sums(records)

    async def test_no_more_is_given_back_than_was_charged(self, stores: Stores, records: Records) -> None:
        with pytest.raises(InvalidInput, match="at most 0 dollars"):
            await records.transfer(credit(1, kind=TransferKind.REFUND), event())
        await records.add_use(use(10), T0)
        asked = [stores[n % 2].transfer(credit(3, kind=TransferKind.REFUND, key=f"k{n}"), event()) for n in range(6)]
        outcomes = Counter(type(one) for one in await asyncio.gather(*asked, return_exceptions=True))
        assert outcomes == {Transfer: 3, InvalidInput: 3}
        with pytest.raises(InvalidInput, match=r"at most 0\.000001 dollars") as refused:
            await records.transfer(credit(2, kind=TransferKind.REFUND), event())
        assert refused.value.field == "amount"
        assert (await records.billing_account("acc", T0)).balance == 99
        await self.check_sums(records)

    async def test_a_key_moves_money_once_in_its_account(self, stores: Stores) -> None:
        first = await stores[0].transfer(credit(5, key="k"), event())
        assert await stores[1].transfer(credit(5, key="k"), event()) == first
        with pytest.raises(Conflict):
            await stores[0].transfer(credit(6, key="k"), event())
        with pytest.raises(Conflict):
            await stores[0].transfer(credit(5, key="k", kind=TransferKind.REFUND), event())
        other = await stores[0].transfer(credit(6, account="other", key="k"), event())
        assert other.amount == 6
        same = await asyncio.gather(*[one.transfer(credit(9, key="j"), event()) for one in stores * 5])
        assert len({one.id for one in same}) == 1
        assert (await stores[0].billing_account("acc", T0)).balance == 14
        assert len(await stores[0].list_events(tenant="acc")) == 3

    @pytest.mark.parametrize("amount", [0, -1, 10**15 + 1])
    async def test_b05_only_whole_amounts_above_nothing_move(self, records: Records, amount: int) -> None:
        for move in (
            records.transfer(credit(amount), event()),
            records.hold(wanted(amount), T0),
        ):
            with pytest.raises(InvalidInput):
                await move
        assert (await records.billing_account("acc", T0)).balance == 100

    async def test_no_balance_outgrows_what_is_counted_exactly(self, records: Records) -> None:
        with pytest.raises(InvalidInput, match="more than"):
            await records.transfer(credit(10**15), event())

    # holds

    async def test_b01_of_64_holds_on_a_balance_for_10_exactly_10_are_granted(self, stores: Stores) -> None:
        await stores[0].transfer(credit(10), event())
        asked = [stores[n % 2].hold(wanted(1), T0) for n in range(64)]
        outcomes = Counter(type(one) for one in await asyncio.gather(*asked, return_exceptions=True))
        assert outcomes == {Hold: 10, InsufficientCredit: 54}
        account = await stores[1].billing_account("acc", T0)
        assert (account.balance, account.held, account.available) == (10, 10, 0)

    @pytest.mark.parametrize(
        ("cost", "balance", "lost"), [(4, 96, 0), (10, 90, 0), (25, 75, 0), (130, 0, 30), (0, 100, 0)]
    )
    async def test_b02_a_hold_is_charged_what_was_used_and_no_more_than_there_is(
        self, records: Records, cost: int, balance: int, lost: int
    ) -> None:
        hold = await records.hold(wanted(10), T0)
        settled = await records.post_hold(hold.id, use(cost), LATER)
        assert (settled.account.balance, settled.account.held, settled.lost) == (balance, 0, lost)
        assert settled.charged == settled.hold.posted == 100 - balance == settled.account.spent
        assert (settled.hold.state, settled.hold.resolved_at) == (HoldState.POSTED, LATER)
        assert settled.hold == await records.get_hold(hold.id)
        assert [one.charged for one in await records.list_uses(UseQuery())] == [settled.charged]
        assert settled.account == await records.billing_account("acc", T0)
        await self.check_sums(records)

    async def test_b02_what_others_hold_is_not_charged(self, records: Records) -> None:
        await records.hold(wanted(80), T0)
        mine = await records.hold(wanted(10), T0)
        settled = await records.post_hold(mine.id, use(50), T0)
        assert (settled.charged, settled.lost, settled.account.balance, settled.account.held) == (20, 30, 80, 80)

    async def test_b02_a_hold_resolves_once(self, stores: Stores) -> None:
        await stores[0].transfer(credit(100), event())
        posted, voided = await stores[0].hold(wanted(), T0), await stores[0].hold(wanted(), T0)
        await stores[0].post_hold(posted.id, use(10), T0)
        await stores[1].void_hold(voided.id, T0)
        again = await stores[1].post_hold(posted.id, use(10), T0)
        late = await stores[0].post_hold(voided.id, use(10), T0)
        assert (again.charged, late.charged, again.hold.state, late.hold.state) == (0, 0, "posted", "voided")
        assert (await stores[0].void_hold(posted.id, LATER)).state is HoldState.POSTED
        assert await stores[0].expire_holds(LATER + timedelta(days=1)) == []
        account = await stores[1].billing_account("acc", T0)
        assert (account.balance, account.held) == (90, 0)
        assert len(await stores[0].list_uses(UseQuery())) == 1
        await self.check_sums(stores[0])

    async def test_b02_at_once_one_of_post_void_and_expire_wins(self, stores: Stores) -> None:
        await stores[0].transfer(credit(100), event())
        for _ in range(4):
            hold = await stores[0].hold(wanted(10, expires_at=T0), T0)
            before = await stores[0].billing_account("acc", T0)
            posts = [one.post_hold(hold.id, use(3), T0) for one in stores * 3]
            settled = await asyncio.gather(*posts, stores[0].void_hold(hold.id, T0), stores[1].expire_holds(T0))
            charged = sum(one.charged for one in settled[: len(posts)])  # type: ignore[union-attr]
            after = await stores[0].billing_account("acc", T0)
            assert (charged in (0, 3), before.balance - after.balance, after.held) == (True, charged, 0)
        await self.check_sums(stores[0])

    async def test_b02_a_use_beyond_its_hold_is_charged_as_far_as_budgets_reach(self, records: Records) -> None:
        budgets = (Budget("key_a", 30), Budget("key_b", 80))
        hold = await records.hold(wanted(10, budgets=budgets), T0)
        other = await records.hold(wanted(5, budgets=budgets[:1]), T0)
        settled = await records.post_hold(hold.id, use(60), T0)
        assert (settled.charged, settled.lost) == (25, 35), "five of key_a's thirty are held by another call"
        assert (await records.post_hold(other.id, use(9), T0)).charged == 5
        await self.check_sums(records)

    async def test_b02_an_expired_hold_is_charged_once_from_what_is_available(self, records: Records) -> None:
        hold = await records.hold(wanted(60), T0)
        assert await records.expire_holds(LATER - timedelta(seconds=1)) == []
        assert [one.id for one in await records.expire_holds(LATER)] == [hold.id]
        assert await records.expire_holds(LATER) == []
        await records.hold(wanted(95), T0)
        settled = await records.post_hold(hold.id, use(60), LATER)
        assert (settled.charged, settled.lost, settled.hold.state) == (5, 55, HoldState.EXPIRED)
        assert (await records.post_hold(hold.id, use(60), LATER)).charged == 0
        assert (await records.billing_account("acc", T0)).balance == 95
        await self.check_sums(records)

    async def test_a_hold_that_is_charged_nothing_is_resolved(self, stores: Stores) -> None:
        await stores[0].transfer(credit(1), event())
        hold = await stores[0].hold(wanted(1, expires_at=T0), T0)
        await stores[0].expire_holds(T0)
        await stores[0].add_use(use(1), T0)
        assert (await stores[0].post_hold(hold.id, use(7), T0)).lost == 7
        await stores[0].transfer(credit(100), event())
        assert (await stores[1].post_hold(hold.id, use(7), T0)).charged == 0

    async def test_the_same_hold_asked_for_again_is_one(self, records: Records) -> None:
        asked = wanted(30)
        first = await records.hold(asked, T0)
        assert await records.hold(asked, LATER) == first
        await records.void_hold(first.id, LATER)
        assert (await records.hold(asked, LATER)).state is HoldState.VOIDED
        assert (await records.billing_account("acc", T0)).held == 0

    async def test_a_hold_that_nobody_took_is_not_found(self, records: Records) -> None:
        for call in (records.post_hold("hold_0", use(), T0), records.void_hold("hold_0", T0)):
            with pytest.raises(NotFound):
                await call
        assert await records.get_hold("hold_0") is None
        assert await records.list_uses(UseQuery()) == []

    async def test_pending_holds_are_listed_by_task(self, records: Records) -> None:
        first = await records.hold(wanted(1, task="task_1"), T0)
        other = await records.hold(wanted(1, task="task_2"), LATER)
        gone = await records.hold(wanted(1, task="task_1"), LATER)
        await records.void_hold(gone.id, LATER)
        assert await records.pending_holds() == [first, other]
        assert await records.pending_holds(task="task_1") == [first]
        assert await records.pending_holds(limit=1) == [first]

    # bounds

    async def test_limits_then_balance_then_budgets_refuse(self, records: Records) -> None:
        spent = Budget("task_1", 5)
        for daily, amount, error in (
            (50, 101, SpendingLimitExceeded),
            (None, 101, InsufficientCredit),
            (None, 6, BudgetExceeded),
        ):
            await records.set_spending_limits("acc", daily=daily, monthly=None, event=event("billing.limited"))
            with pytest.raises(error) as refused:
                await records.hold(wanted(amount, budgets=(spent,)), T0)
            assert type(refused.value) is error
        assert (await records.billing_account("acc", T0)).held == 0
        assert await records.pending_holds() == []
        assert await records.budget_uses(["task_1"]) == {}

    async def test_limits_bound_what_is_spent_and_held_by_utc_day_and_month(self, records: Records) -> None:
        night = datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC)
        await records.set_spending_limits("acc", daily=10, monthly=25, event=event("billing.limited"))
        await records.add_use(use(8), night - timedelta(days=1))
        await records.add_use(use(8), night)
        with pytest.raises(SpendingLimitExceeded) as refused:
            await records.hold(wanted(3), night)
        error = refused.value
        assert error.message == "Daily spending limit exceeded ($0.00001)"
        assert (error.daily_usage, error.daily_limit, error.monthly_usage, error.monthly_limit) == (8, 10, 16, 25)
        assert error.retry_after_s in (1, 2)
        await records.hold(wanted(2), night)
        with pytest.raises(SpendingLimitExceeded):
            await records.hold(wanted(1), night)
        await records.add_use(use(5), night)
        with pytest.raises(SpendingLimitExceeded, match="Daily"):
            await records.hold(wanted(2), night)
        assert await records.spent_since("acc", night) == 13
        assert await records.spent_since("acc", night.replace(day=1)) == 21
        await records.hold(wanted(8), night + timedelta(seconds=1))
        assert await records.spent_since("acc", night + timedelta(seconds=1)) == 0

    async def test_the_monthly_limit_refuses_until_the_month_is_over(self, records: Records) -> None:
        await records.set_spending_limits("acc", daily=None, monthly=10, event=event("billing.limited"))
        await records.add_use(use(10), datetime(2026, 3, 1, tzinfo=UTC))
        with pytest.raises(SpendingLimitExceeded, match="Monthly") as refused:
            await records.hold(wanted(1), datetime(2026, 3, 31, tzinfo=UTC))
        assert refused.value.retry_after_s in (86_400, 86_401)
        await records.hold(wanted(1), datetime(2026, 4, 1, tzinfo=UTC))

    async def test_a_budget_bounds_what_is_spent_and_held_under_its_name(self, records: Records) -> None:
        budgets = (Budget("key_b", 30), Budget("task_a", 20))
        first = await records.hold(wanted(12, budgets=budgets), T0)
        with pytest.raises(BudgetExceeded) as refused:
            await records.hold(wanted(9, budgets=budgets), T0)
        assert (refused.value.subject, refused.value.limit, refused.value.spent) == ("task_a", 20, 0)
        settled = await records.post_hold(first.id, use(11), T0)
        assert settled.spent == (Spent("key_b", 30, 0, 11), Spent("task_a", 20, 0, 11))
        second = await records.hold(wanted(9, budgets=budgets), T0)
        uses = await records.budget_uses(["key_b", "task_a", "unknown"])
        assert {name: (one.spent, one.held) for name, one in uses.items()} == {"key_b": (11, 9), "task_a": (11, 9)}
        await records.void_hold(second.id, T0)
        assert (await records.budget_uses(["key_b"]))["key_b"].held == 0
        await records.hold(wanted(19, budgets=budgets[:1]), T0)
        with pytest.raises(BudgetExceeded):
            await records.hold(wanted(1, budgets=budgets), T0)

    async def test_of_many_holds_at_once_a_budget_grants_what_it_has(self, stores: Stores) -> None:
        await stores[0].transfer(credit(100), event())
        budgets = (Budget("task_1", 7), Budget("key_1", 50))
        asked = [stores[n % 2].hold(wanted(1, budgets=budgets), T0) for n in range(20)]
        outcomes = Counter(type(one) for one in await asyncio.gather(*asked, return_exceptions=True))
        assert outcomes == {Hold: 7, BudgetExceeded: 13}

    async def test_how_far_the_limits_are_used_up_is_told(self, records: Records) -> None:
        await records.set_spending_limits("acc", daily=20, monthly=40, event=event("billing.limited"))
        await records.add_use(use(6), T0 - timedelta(days=1))
        settled = await records.add_use(use(5), T0)
        assert settled is not None
        assert settled.spent == (Spent("daily", 20, 0, 5), Spent("monthly", 40, 6, 11))
        account = await records.set_spending_limits("acc", daily=None, monthly=None, event=event("billing.limited"))
        assert (account.daily_limit, account.balance) == (None, 89)
        assert account == await records.billing_account("acc", T0)

    async def test_who_changes_one_limit_keeps_the_other_as_it_is_then(self, stores: Stores) -> None:
        for n in range(4):
            a_day = stores[0].set_spending_limits("acc", daily=n, monthly=KEEP, event=event("billing.limited"))
            a_month = stores[1].set_spending_limits("acc", daily=KEEP, monthly=n, event=event("billing.limited"))
            await asyncio.gather(a_day, a_month)
            account = await stores[0].billing_account("acc", T0)
            assert (account.daily_limit, account.monthly_limit) == (n, n)
        kept = await stores[1].set_spending_limits("acc", daily=KEEP, monthly=None, event=event("billing.limited"))
        assert (kept.daily_limit, kept.monthly_limit) == (3, None)
        assert kept == await stores[0].billing_account("acc", T0)

    # uses

    async def test_a_use_is_charged_once_whatever_it_was_of(self, stores: Stores) -> None:
        await stores[0].transfer(credit(100), event())
        compute = use(30, kind=UseKind.COMPUTE, seconds=12.5, sandbox="sess_1")
        first = await stores[0].add_use(compute, T0)
        again = await asyncio.gather(*[one.add_use(compute, T0) for one in stores * 3])
        assert first is not None and (first.charged, first.hold.id) == (30, compute.id)
        assert {one.charged for one in again if one is not None} == {0}
        beyond = await stores[1].add_use(use(100), T0)
        assert beyond is not None and (beyond.charged, beyond.lost, beyond.account.balance) == (70, 30, 0)
        await self.check_sums(stores[0])

    async def test_what_nothing_was_held_for_counts_under_budgets_and_is_refused_by_none(
        self, records: Records
    ) -> None:
        budgets = (Budget("key_b", 30), Budget("key_a", 10))
        await records.add_use(use(8), T0, budgets=budgets)
        settled = await records.add_use(use(8), T0, budgets=budgets)
        assert settled is not None
        assert settled.spent == (Spent("key_b", 30, 8, 16), Spent("key_a", 10, 8, 16))
        assert {one.spent for one in (await records.budget_uses(["key_a", "key_b"])).values()} == {16}
        with pytest.raises(BudgetExceeded):
            await records.hold(wanted(1, budgets=budgets), T0)

    async def test_what_is_free_or_internal_is_stored_and_not_charged(self, records: Records) -> None:
        assert await records.add_use(use(0, model="m"), T0) is None
        internal = use(50, internal=True, account="owner")
        assert await records.add_use(internal, T0) is None
        assert await records.add_use(internal, T0) is None
        assert [one.model for one in await records.list_uses(UseQuery())] == ["m"]
        assert [one.id for one in await records.list_uses(UseQuery(internal=True))] == [internal.id]
        assert len(await records.list_uses(UseQuery(internal=None))) == 2
        assert len(await records.all_transfers()) == 1

    async def test_a_use_is_what_was_stored(self, records: Records) -> None:
        whole = use(
            kind=UseKind.MODEL,
            cost=Cost(3, 4),
            tokens=TokenUse(10, 20, 5, 6, estimated=True),
            model="gpt",
            credential="key_1",
            task="task_1",
            thread="thr_1",
            sandbox="sess_1",
            workspace="ws_1",
            workspace_owner="grp_1",
            seconds=0.25,
            charged=7,
        )
        await records.add_use(whole, T0)
        assert await records.list_uses(UseQuery()) == [whole]

    async def test_uses_are_found_and_summed_by_what_they_have_in_common(self, records: Records) -> None:
        def tokens(n: int) -> dict[str, Any]:
            return {"tokens": TokenUse(n, 2 * n, 1), "cost": Cost(n, 0)}

        late = T0 + timedelta(days=1)
        uses = [
            use(task="task_1", workspace="ws_1", model="a", **tokens(1)),
            use(task="task_1", workspace="ws_2", model="b", at=late, **tokens(2)),
            use(task="task_2", workspace="ws_2", model="b", at=late, workspace_owner="grp_1", **tokens(4)),
            use(account="other", kind=UseKind.STORAGE, cost=Cost(8, 0)),
        ]
        await records.transfer(credit(100, account="other"), event())
        for one in uses:
            await records.add_use(one, T0)

        async def totals(by: str, query: UseQuery | None = None, **more: Any) -> list[tuple[str, int, int]]:
            found = await records.total_uses(query or UseQuery(account="acc"), by=by, **more)
            return [(one.name, one.uses, one.input_cost) for one in found]

        assert await totals("task") == [("task_2", 1, 4), ("task_1", 2, 3)]
        assert await totals("task", limit=1, offset=1) == [("task_1", 2, 3)]
        assert await totals("workspace") == [("ws_2", 2, 6), ("ws_1", 1, 1)]
        assert await totals("workspace_owner") == [("grp_1", 1, 4)]
        assert await totals("day") == [("2026-03-16", 2, 6), ("2026-03-15", 1, 1)]
        assert await totals("", UseQuery()) == [("", 4, 15)]
        assert await totals("", UseQuery(account="nobody")) == [("", 0, 0)]
        assert await totals("", UseQuery(since=late)) == [("", 2, 6)]
        assert await totals("", UseQuery(until=late, account="acc")) == [("", 1, 1)]
        assert await totals("", UseQuery(kind=UseKind.STORAGE)) == [("", 1, 8)]
        assert await totals("model", UseQuery(workspace="ws_2")) == [("b", 2, 6)]
        whole = (await records.total_uses(UseQuery(task="task_1")))[0]
        assert (whole.input_tokens, whole.output_tokens, whole.cached_tokens, whole.charged) == (3, 6, 2, 3)
        assert (whole.first_at, whole.last_at, whole.tasks) == (T0, late, 1)
        newest = await records.list_uses(UseQuery(account="acc"), limit=2)
        assert {one.id for one in newest} == {uses[1].id, uses[2].id}
        assert [one.id for one in await records.list_uses(UseQuery(account="acc"), offset=2)] == [uses[0].id]
        with pytest.raises(InvalidInput):
            await records.total_uses(UseQuery(), by="credential")

    async def test_transfers_are_listed_newest_first(self, records: Records) -> None:
        await records.transfer(credit(1, account="other"), event())
        await records.add_use(use(5, model="m", task="task_1"), LATER)
        mine = await records.list_transfers("acc")
        assert [(one.id, one.kind, one.amount) for one in mine] == [
            (3, TransferKind.USAGE, 5),
            (1, TransferKind.PURCHASE, 100),
        ]
        assert mine[0].detail["task"] == "task_1"
        assert await records.list_transfers("acc", kind=TransferKind.USAGE) == mine[:1]
        assert await records.list_transfers("acc", since=LATER) == mine[:1]
        assert await records.list_transfers("acc", until=LATER) == mine[1:]
        assert await records.list_transfers("acc", limit=1, offset=1) == mine[1:]
        assert [one.id for one in await records.all_transfers(after=1)] == [2, 3]

    async def test_text_that_no_database_can_hold_is_refused(self, records: Records) -> None:
        if type(records).__module__.startswith("atoll.testing"):
            return  # holds any text
        for call in (
            records.transfer(credit(1, description="\0"), event()),
            records.transfer(credit(1, account="a\0"), event()),
            records.hold(wanted(1, task="\0"), T0),
            records.add_use(use(1, model="\ud800"), T0),
        ):
            with pytest.raises(InvalidInput):
                await call

    async def check_sums(self, records: Records) -> None:
        """All balances are what the transfers say, and add up to nothing."""
        balances: Counter[str] = Counter()
        for transfer in await records.all_transfers():
            balances[transfer.debit] -= transfer.amount
            balances[transfer.credit] += transfer.amount
        stored = {one.id: one.balance for one in await records.all_billing_accounts() if one.balance}
        assert stored == {name: amount for name, amount in balances.items() if amount}
        assert sum(stored.values()) == 0
