"""B09: whatever is done in whatever order, both databases hold what a pure model holds, and refuse what it refuses."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from atoll.domain.errors import Conflict, InvalidInput
from atoll.domain.event import Event
from atoll.domain.ledger import (
    Budget,
    InsufficientCredit,
    NewHold,
    NewTransfer,
    SpendingLimitExceeded,
    TransferKind,
    Use,
    UseKind,
)
from atoll.domain.price import Cost
from atoll.records.ledger_proof import prove
from atoll.records.sql import SqlRecords, open_records
from tests.records.ledger_model import Hold, Model, Refused
from tests.records.migrated import migrated_sqlite

STEPS = 50
ON_SQLITE, ON_POSTGRES = 140, 60  # examples: 10,000 steps in all
KINDS = {"credit": TransferKind.PURCHASE, "refund": TransferKind.REFUND, "take": TransferKind.ADJUSTMENT}
ACCOUNTS, BUDGETS = 2, 3
amounts = st.integers(1, 30)
limits = st.none() | st.integers(0, 60)
which = st.integers(0, 10**6)


class Machine(RuleBasedStateMachine):
    """All examples share one database: each has names of its own."""

    runner: ClassVar[asyncio.Runner]
    records: ClassVar[SqlRecords]
    examples: ClassVar[Iterator[int]]

    @initialize()
    def begin(self) -> None:
        self.example = next(self.examples)
        self.model = Model()
        self.now = datetime(2026, 1, 30, 12, tzinfo=UTC)
        self.names = (f"{self.example}_{n}" for n in itertools.count())
        self.changed = {self.account(n) for n in range(ACCOUNTS)}

    def account(self, n: int) -> str:
        return f"user_{self.example}_{n % ACCOUNTS}"

    def budgets(self, chosen: dict[int, int]) -> tuple[tuple[str, int], ...]:
        return tuple((f"task_{self.example}_{n}", limit) for n, limit in chosen.items())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Its result, or the error as the model has it."""
        try:
            return self.runner.run(work)
        except SpendingLimitExceeded as error:
            return Refused(
                type(error).__name__, error.daily_usage, error.daily_limit, error.monthly_usage, error.monthly_limit
            ).args
        except InsufficientCredit as error:
            return Refused(type(error).__name__, error.balance, error.spent).args
        except (Conflict, InvalidInput) as error:
            return (type(error).__name__,)

    def event(self, account: str) -> Event:
        return Event("billing.credited", account, account, actor="admin", at=self.now)

    @rule(n=which, kind=st.sampled_from(list(KINDS)), amount=amounts, key=st.none() | st.sampled_from("ab"))
    def give(self, n: int, kind: str, amount: int, key: str | None) -> None:
        account = self.account(n)
        self.changed.add(account)
        try:
            self.model.give(account, kind, amount, key)
            expected: Any = amount
        except Refused as refused:
            expected = refused.args
        moved = self.do(self.records.transfer(NewTransfer(account, KINDS[kind], amount, key), self.event(account)))
        assert (moved.amount if not isinstance(moved, tuple) else moved) == expected

    @rule(n=which, daily=limits, monthly=limits)
    def limit(self, n: int, daily: int | None, monthly: int | None) -> None:
        account = self.account(n)
        mine = self.model.account(account)
        mine.daily, mine.monthly = daily, monthly
        self.changed.add(account)
        self.do(self.records.set_spending_limits(account, daily=daily, monthly=monthly, event=self.event(account)))

    @rule(n=which, amount=amounts, hours=st.integers(1, 48), chosen=st.dictionaries(which, limits.filter(bool)))
    def hold(self, n: int, amount: int, hours: int, chosen: dict[int, int]) -> None:
        bounds = self.budgets({number % BUDGETS: limit for number, limit in chosen.items()})
        self.take(self.account(n), amount, self.now + timedelta(hours=hours), bounds)

    def take(self, account: str, amount: int, expires_at: datetime, bounds: tuple[tuple[str, int], ...]) -> None:
        name = f"hold_{next(self.names)}"
        self.changed.add(account)
        try:
            self.model.hold(name, Hold(account, amount, expires_at, bounds), self.now)
            expected: Any = "pending"
        except Refused as refused:
            expected = refused.args
        budgets = tuple(Budget(*one) for one in bounds)
        held = self.do(self.records.hold(NewHold(name, account, amount, expires_at, budgets), self.now))
        assert (held.state.value if not isinstance(held, tuple) else held) == expected

    @rule(n=which, times=st.integers(2, 8), amount=amounts)
    def rush(self, n: int, times: int, amount: int) -> None:
        """As many as the model grants one after the other are granted at once."""
        account, until = self.account(n), self.now + timedelta(hours=3)
        names = [f"hold_{next(self.names)}" for _ in range(times)]
        granted = 0
        for name in names:
            try:
                self.model.hold(name, Hold(account, amount, until, ()), self.now)
                granted += 1
            except Refused:
                pass
        self.changed.add(account)

        async def at_once() -> list[Any]:
            asked = [self.records.hold(NewHold(name, account, amount, until), self.now) for name in names]
            return await asyncio.gather(*asked, return_exceptions=True)

        outcomes = self.runner.run(at_once())
        real = [name for name, one in zip(names, outcomes, strict=True) if not isinstance(one, Exception)]
        assert len(real) == granted
        # Which of them was granted is chance: the model takes the names of those that were.
        mine = [self.model.holds.pop(name) for name in names if name in self.model.holds]
        self.model.holds.update(zip(real, mine, strict=True))

    @rule(n=which, cost=st.integers(0, 60))
    def post(self, n: int, cost: int) -> None:
        if not self.model.holds:
            return
        name = sorted(self.model.holds)[n % len(self.model.holds)]
        one = self.model.holds[name]
        self.changed.add(one.account)
        charged = self.model.post(name, cost, self.now)
        settled = self.do(self.records.post_hold(name, self.use(one.account, cost), self.now))
        assert (settled.charged, settled.hold.state.value) == (charged, one.state)
        assert settled.account.balance == self.model.account(one.account).balance

    @rule(n=which)
    def void(self, n: int) -> None:
        if self.model.holds:
            name = sorted(self.model.holds)[n % len(self.model.holds)]
            self.changed.add(self.model.holds[name].account)
            assert self.do(self.records.void_hold(name, self.now)).state.value == self.model.void(name)

    @rule(n=which, cost=amounts)
    def charge(self, n: int, cost: int) -> None:
        account = self.account(n)
        self.changed.add(account)
        charged = self.model.charge(account, cost, self.now)
        settled = self.do(self.records.add_use(self.use(account, cost), self.now))
        assert (settled.charged, settled.lost) == (charged, cost - charged)

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)
        mine = f"hold_{self.example}_"  # holds of examples before this one expire, too
        expired = [one for one in self.do(self.records.expire_holds(self.now)) if one.id.startswith(mine)]
        assert {one.id for one in expired} == self.model.expire(self.now)
        self.changed |= {one.account for one in expired}

    def use(self, account: str, cost: int) -> Use:
        return Use(f"use_{next(self.names)}", account, UseKind.MODEL, self.now, Cost(cost))

    @invariant()
    def all_is_equal(self) -> None:
        for name in self.changed:
            mine, stored = self.model.account(name), self.do(self.records.billing_account(name, self.now))
            assert (stored.balance, stored.held, stored.spent) == (mine.balance, self.model.held(name), mine.spent)
            assert (stored.daily_limit, stored.monthly_limit) == (mine.daily, mine.monthly)
            assert stored.available >= 0
        self.changed.clear()

    def teardown(self) -> None:
        for n in range(BUDGETS) if hasattr(self, "model") else ():
            subject = f"task_{self.example}_{n}"
            stored = self.do(self.records.budget_uses([subject])).get(subject)
            found = (stored.spent, stored.held) if stored else (0, 0)
            assert found == (self.model.budgets.get(subject, 0), self.model.budget_held(subject))


@contextmanager
def compared(url: str, runner: asyncio.Runner) -> Iterator[type[Machine]]:
    """A machine on that database, whose ledger is proved in the end."""
    records = open_records(url)
    runner.run(records.start())
    names = {"runner": runner, "records": records, "examples": itertools.count()}
    try:
        yield type("Compared", (Machine,), names)
        proof = runner.run(prove(url))
        assert (proof.wrong, proof.problems) == (0, ())
    finally:
        runner.run(records.close())


def run(url: str, runner: asyncio.Runner, examples: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    chosen = settings(
        max_examples=examples, stateful_step_count=STEPS, deadline=None, suppress_health_check=checks, database=None
    )
    with compared(url, runner) as machine:
        run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.timeout(300)
def test_b09_sqlite_is_as_the_model(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        run(runner.run(migrated_sqlite(tmp_path / "atoll.db")), runner, ON_SQLITE)


@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_b09_postgres_is_as_the_model(postgres_server: str, postgres_template: str) -> None:
    from tests.records.postgres import new_database

    async def opened() -> AsyncIterator[str]:
        async with new_database(postgres_server, postgres_template) as url:
            yield url

    with asyncio.Runner() as runner:
        database = opened()
        url = runner.run(anext(database))
        try:
            run(url, runner, ON_POSTGRES)
        finally:
            runner.run(database.aclose())
