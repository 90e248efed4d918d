"""Ledger: accounts, transfers that never change, and holds that are posted, voided or expire exactly once.

Double entry: each transfer takes its amount from one account and gives it to another, so that all balances add up to
zero. Amounts are whole micro-dollars above zero. The records keep it, `services/ledger` decides with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from atoll.domain.errors import AtollError, QuotaExceeded
from atoll.domain.price import NO_TOKENS, Cost, TokenUse

ISSUED = "issued"  # the account that credits come from: its balance is minus all that was ever given out
EARNED = "earned"  # the account that charges go to
SYSTEM_ACCOUNTS = (ISSUED, EARNED)


class TransferKind(StrEnum):
    """Why money moved; Testbase's types of transactions."""

    PURCHASE = "credit_purchase"
    ADJUSTMENT = "credit_adjustment"  # what an administrator takes back
    USAGE = "usage_deduction"
    REFUND = "refund"
    EARNING = "worker_earning"  # what an author gets of what somebody was charged for a run of a worker


class HoldState(StrEnum):
    """PENDING is followed by exactly one of the others."""

    PENDING = "pending"
    POSTED = "posted"
    VOIDED = "voided"
    EXPIRED = "expired"


class UseKind(StrEnum):
    """What was used."""

    MODEL = "model"
    COMPUTE = "compute"
    STORAGE = "storage"
    WORKER = "worker"  # a run of somebody's worker, for the price that its author set


@dataclass(frozen=True, slots=True)
class BillingAccount:
    """One payer's account; its id is the payer's: a user's, or that of a key which belongs to nobody.

    `available` is what a new hold may take: the balance less all pending holds.
    """

    id: str
    balance: int
    held: int
    spent: int  # ever
    daily_limit: int | None
    monthly_limit: int | None
    created_at: datetime
    updated_at: datetime

    @property
    def available(self) -> int:
        return self.balance - self.held


@dataclass(frozen=True, slots=True)
class Transfer:
    """One movement of money; never changed, never removed. `id` counts from 1 in the order of the commits."""

    id: int
    debit: str  # the account that gives
    credit: str  # the account that gets
    amount: int
    kind: TransferKind
    account: str  # the payer's, which is one of the two
    balance_after: int  # the payer's
    at: datetime
    key: str | None = None  # idempotency key, unique within the account
    hold: str | None = None
    description: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)


@dataclass(frozen=True, slots=True)
class NewTransfer:
    """A transfer that somebody asks for. With a `key` that the account has seen, nothing moves and the first one is
    returned; Conflict when that was another amount or kind."""

    account: str
    kind: TransferKind
    amount: int  # above 0: of an adjustment what is taken, of all others what is given
    key: str | None = None
    description: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on what is spent under one name, whoever pays: a task's, a key's, a sandbox's capability's."""

    subject: str
    limit: int


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """What was spent and is held under that name."""

    subject: str
    spent: int
    held: int


@dataclass(frozen=True, slots=True)
class NewHold:
    """An amount to set aside before something is used. It lies within the balance, the account's limits by day and
    month (UTC) and every budget, or is refused whole."""

    id: str  # hold_ and 24 hex digits: the same id again changes nothing and returns what the first became
    account: str
    amount: int
    expires_at: datetime
    budgets: tuple[Budget, ...] = ()
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """What became of it."""

    id: str
    account: str
    amount: int
    state: HoldState
    created_at: datetime
    expires_at: datetime
    budgets: tuple[str, ...] = ()  # subjects
    task: str | None = None
    posted: int = 0  # what was charged when it was posted
    resolved_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Payer:
    """Who pays for what a task uses, within which budgets, and what its uses are told apart by."""

    account: str
    credential: str = ""
    internal: bool = False
    budgets: tuple[Budget, ...] = ()
    task: str | None = None
    thread: str | None = None
    sandbox: str | None = None
    workspace: str | None = None
    workspace_owner: str | None = None


@dataclass(frozen=True, slots=True)
class Payee:
    """Who gets what a hold is charged: it is posted to that account in the transaction of the charge, once."""

    account: str
    description: str = ""  # of both transfers
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)  # ... and theirs


@dataclass(frozen=True, slots=True)
class Use:
    """Something that was used, charged or not; one row, never changed. `workspace_owner` may be a group."""

    id: str  # use_ and 24 hex digits: the same id again changes nothing
    account: str
    kind: UseKind
    at: datetime
    cost: Cost
    tokens: TokenUse = NO_TOKENS
    model: str = ""
    credential: str = ""
    task: str | None = None
    thread: str | None = None
    sandbox: str | None = None
    workspace: str | None = None
    workspace_owner: str | None = None
    seconds: float = 0.0  # of compute
    internal: bool = False  # an internal or owner key's: metered for the operator, never charged, in no bill
    charged: int = 0  # what the ledger took for it: less than `cost` when the account ran dry


@dataclass(frozen=True, slots=True)
class Spent:
    """How far one bound was used up before and after a charge: whoever warns compares the two."""

    bound: str  # "daily", "monthly", or a budget's subject
    limit: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Settled:
    """A hold that is resolved, with the account as it is then."""

    hold: Hold
    account: BillingAccount
    charged: int  # now; 0 when it had been resolved before
    lost: int = 0  # what was used beyond what the account had: the operator's
    spent: tuple[Spent, ...] = ()


class InsufficientCredit(AtollError):
    """Your credit balance is insufficient. Please add credits to continue."""

    code = "insufficient_credit"

    def __init__(self, message: str | None = None, *, balance: int = 0, spent: int = 0) -> None:
        self.balance, self.spent = balance, spent  # micro-dollars
        super().__init__(message)


class BudgetExceeded(InsufficientCredit):
    """The budget is spent."""

    code = "budget_exceeded"

    def __init__(self, message: str | None = None, *, subject: str, limit: int, spent: int) -> None:
        self.subject, self.limit = subject, limit
        super().__init__(message, balance=max(0, limit - spent), spent=spent)


class SpendingLimitExceeded(QuotaExceeded):
    """A spending limit is reached."""

    code = "spending_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        daily_usage: int,
        daily_limit: int | None,
        monthly_usage: int,
        monthly_limit: int | None,
        retry_after_s: int | None = None,
    ) -> None:
        self.daily_usage, self.daily_limit = daily_usage, daily_limit
        self.monthly_usage, self.monthly_limit = monthly_usage, monthly_limit
        super().__init__(message, quota="spending", retry_after_s=retry_after_s)
