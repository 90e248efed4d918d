"""Replay: every transfer again from nothing, and what the stored sums have to be then.

`atoll ledger verify` compares a database with it; tests compare the stores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.domain.ledger import EARNED, ISSUED, SYSTEM_ACCOUNTS, BillingAccount, Hold, HoldState, Transfer, TransferKind
from atoll.domain.ledger_rules import day_of, legs, sale_key
from atoll.domain.money import usd

PROBLEMS_MAX = 100  # told in words; more are counted


def _counts() -> dict[str, int]:
    return defaultdict(int)


@dataclass(slots=True)
class Replay:
    """Give it all transfers in order of their ids, then what is stored beside them; `problems` says what is wrong."""

    transfers: int = 0
    balances: dict[str, int] = field(default_factory=_counts)
    spent: dict[str, int] = field(default_factory=_counts)
    days: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict[tuple[str, str], int](int))
    budgets: dict[str, int] = field(default_factory=_counts)
    held: dict[str, int] = field(default_factory=_counts)
    unpaid: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])  # by payee and sale
    budgets_held: dict[str, int] = field(default_factory=_counts)
    problems: list[str] = field(default_factory=list[str])
    wrong: int = 0

    def problem(self, text: str) -> None:
        """Something does not match."""
        self.wrong += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)

    def add(self, one: Transfer) -> None:
        """The next transfer."""
        expected = self.transfers + 1
        if one.id != expected:
            missing = f"{expected}" if one.id == expected + 1 else f"{expected} to {one.id - 1}"
            self.problem(f"transfer {one.id}: {missing} before it is missing")
        self.transfers = one.id
        if one.amount <= 0:
            self.problem(f"transfer {one.id}: its amount is {one.amount}")
        if (one.debit, one.credit) != legs(one.kind, one.account) or one.account in SYSTEM_ACCOUNTS:
            self.problem(f"transfer {one.id}: a {one.kind.value} does not go from {one.debit} to {one.credit}")
        self.balances[one.debit] -= one.amount
        self.balances[one.credit] += one.amount
        balance = self.balances[one.account]
        if balance != one.balance_after:
            self.problem(
                f"transfer {one.id}: the balance of {one.account} after it is {_usd(balance)}, "
                f"not {_usd(one.balance_after)}"
            )
        if balance < 0:
            self.problem(f"transfer {one.id}: the balance of {one.account} is below zero after it: {_usd(balance)}")
        self._follow_sale(one)
        if one.kind is TransferKind.USAGE:
            self.spent[one.account] += one.amount
            self.days[one.account, day_of(one.at)] += one.amount
            for subject in one.detail.get("budgets", ()):
                self.budgets[subject] += one.amount

    def _follow_sale(self, one: Transfer) -> None:
        """What somebody is charged for a worker says what its author gets, who gets that next and nothing else."""
        if one.kind is TransferKind.USAGE and one.detail.get("earned"):
            self.unpaid[str(one.detail.get("payee")), sale_key(one.hold or "")] = one.detail["earned"]
        if one.kind is TransferKind.EARNING:
            due = self.unpaid.pop((one.account, one.key or ""), 0)
            if due != one.amount:
                self.problem(
                    f"transfer {one.id}: {one.account} got {_usd(one.amount)} of a sale that gives it {_usd(due)}"
                )

    def add_hold(self, hold: Hold) -> None:
        """One of the holds, in any order."""
        if hold.state is HoldState.PENDING:
            self.held[hold.account] += hold.amount
            for subject in hold.budgets:
                self.budgets_held[subject] += hold.amount

    def check_account(self, account: BillingAccount) -> None:
        """A stored account, once each; then `check_absent`."""
        for word, stored, replayed in (
            ("balance", account.balance, self.balances.pop(account.id, 0)),
            ("spent", account.spent, self.spent.pop(account.id, 0)),
            ("held", account.held, self.held.pop(account.id, 0)),
        ):
            if stored != replayed:
                self.problem(f"account {account.id}: {word} is {_usd(stored)}, and should be {_usd(replayed)}")
        if account.id != ISSUED and account.id != EARNED and account.balance < account.held:
            self.problem(
                f"account {account.id}: its balance {_usd(account.balance)} does not cover what is held, "
                f"{_usd(account.held)}"
            )

    def check_day(self, account: str, day: str, spent: int) -> None:
        """A stored day of an account, once each."""
        replayed = self.days.pop((account, day), 0)
        if spent != replayed:
            self.problem(f"account {account}: spent on {day} is {_usd(spent)}, and should be {_usd(replayed)}")

    def check_budget(self, subject: str, spent: int, held: int) -> None:
        """A stored budget, once each."""
        for word, stored, replayed in (
            ("spent", spent, self.budgets.pop(subject, 0)),
            ("held", held, self.budgets_held.pop(subject, 0)),
        ):
            if stored != replayed:
                self.problem(f"budget {subject}: {word} is {_usd(stored)}, and should be {_usd(replayed)}")

    def check_absent(self) -> None:
        """At the end: what should be stored and is not."""
        for (payee, sale), due in sorted(self.unpaid.items()):
            self.problem(f"account {payee}: what {sale.removeprefix('sale:')} gives it, {_usd(due)}, was not posted")
        lacking: list[tuple[str, Mapping[str, int]]] = [
            ("account {}: its balance", self.balances),
            ("account {}: what it spent", self.spent),
            ("account {}: what is held", self.held),
            ("budget {}: what was spent", self.budgets),
            ("budget {}: what is held", self.budgets_held),
            ("account {}", {f"{account}: what it spent on {day}": n for (account, day), n in self.days.items()}),
        ]
        for words, sums in lacking:
            for name, amount in sorted(sums.items()):
                if amount:
                    self.problem(f"{words.format(name)} is not stored: {_usd(amount)}")


def _usd(micro: int) -> str:
    return f"{usd(micro):f} USD"
