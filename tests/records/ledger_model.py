"""The pure model that the ledger is compared with: a few dictionaries, from the rules and not from the stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


class Refused(Exception):
    """The error's class, and the figures that it carries."""

    def __init__(self, name: str, *figures: int | None) -> None:
        super().__init__(name, *figures)


@dataclass
class Account:
    balance: int = 0
    spent: int = 0
    refunded: int = 0
    daily: int | None = None
    monthly: int | None = None
    days: dict[str, int] = field(default_factory=dict)


@dataclass
class Hold:
    account: str
    amount: int
    expires_at: datetime
    budgets: tuple[tuple[str, int], ...]
    state: str = "pending"
    charged: int | None = None


class Model:
    """Names of accounts, holds and budgets are the caller's."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.holds: dict[str, Hold] = {}
        self.budgets: dict[str, int] = {}  # spent
        self.keys: dict[tuple[str, str], tuple[str, int]] = {}

    def account(self, name: str) -> Account:
        return self.accounts.setdefault(name, Account())

    def held(self, account: str) -> int:
        return sum(one.amount for one in self.holds.values() if one.account == account and one.state == "pending")

    def budget_held(self, subject: str) -> int:
        pending = [one for one in self.holds.values() if one.state == "pending"]
        return sum(one.amount for one in pending if subject in dict(one.budgets))

    def today(self, account: str, now: datetime) -> int:
        return self.account(account).days.get(now.strftime("%Y-%m-%d"), 0)

    def month(self, account: str, now: datetime) -> int:
        return sum(n for day, n in self.account(account).days.items() if day[:7] == now.strftime("%Y-%m"))

    def give(self, account: str, kind: str, amount: int, key: str | None) -> None:
        """`kind`: credit, refund or take."""
        if key is not None and (account, key) in self.keys:
            if self.keys[account, key] != (kind, amount):
                raise Refused("Conflict")
            return
        mine = self.account(account)
        if kind == "take" and amount > mine.balance - self.held(account):
            raise Refused("InsufficientCredit", mine.balance, mine.spent)
        if kind == "refund":
            if amount > mine.spent - mine.refunded:
                raise Refused("InvalidInput")
            mine.refunded += amount
        mine.balance += -amount if kind == "take" else amount
        if key is not None:
            self.keys[account, key] = kind, amount

    def hold(self, name: str, asked: Hold, now: datetime) -> None:
        mine, held = self.account(asked.account), self.held(asked.account)
        today, month = self.today(asked.account, now), self.month(asked.account, now)
        for limit, used in ((mine.daily, today), (mine.monthly, month)):
            if limit is not None and used + held + asked.amount > limit:
                raise Refused("SpendingLimitExceeded", today, mine.daily, month, mine.monthly)
        if asked.amount > mine.balance - held:
            raise Refused("InsufficientCredit", mine.balance, mine.spent)
        for subject, limit in asked.budgets:
            spent = self.budgets.get(subject, 0)
            if spent + self.budget_held(subject) + asked.amount > limit:
                raise Refused("BudgetExceeded", max(0, limit - spent), spent)
        self.holds[name] = asked

    def post(self, name: str, cost: int, now: datetime) -> int:
        """What is charged."""
        one = self.holds[name]
        if one.state in ("posted", "voided") or one.charged is not None:
            return 0
        kept = one.amount if one.state == "pending" else 0
        if one.state == "pending":
            one.state = "posted"
        rooms = [limit - self.budgets.get(subject, 0) - self.budget_held(subject) for subject, limit in one.budgets]
        most = max(kept, min(rooms, default=cost), 0)  # beyond what was held only as far as every budget reaches
        one.charged = self.charge(one.account, min(cost, most), now)
        for subject, _ in one.budgets:
            self.budgets[subject] = self.budgets.get(subject, 0) + one.charged
        return one.charged

    def charge(self, account: str, cost: int, now: datetime) -> int:
        mine = self.account(account)
        charged = min(cost, max(0, mine.balance - self.held(account)))
        mine.balance -= charged
        mine.spent += charged
        day = now.strftime("%Y-%m-%d")
        mine.days[day] = mine.days.get(day, 0) + charged
        return charged

    def void(self, name: str) -> str:
        one = self.holds[name]
        if one.state == "pending":
            one.state = "voided"
        return one.state

    def expire(self, now: datetime) -> set[str]:
        due = {name for name, one in self.holds.items() if one.state == "pending" and one.expires_at <= now}
        for name in due:
            self.holds[name].state = "expired"
        return due
