"""The records contract of the ledger: accounts, transfers, holds, budgets and uses.

`services/ledger` calls it; `atoll.testing.ledger_conformance` holds every store to these docstrings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from atoll.domain.event import Event
from atoll.domain.ledger import (
    BillingAccount,
    Budget,
    BudgetUse,
    Hold,
    NewHold,
    NewTransfer,
    Payee,
    Settled,
    Transfer,
    TransferKind,
    Use,
    UseKind,
)

KEEP: Final = "keep"
LimitChange = int | Literal["keep"] | None  # KEEP: a limit that is left as it is


@dataclass(frozen=True, slots=True)
class UseQuery:
    """Which uses are wanted; None: whatever it is. `since` <= at < `until`."""

    account: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    task: str | None = None
    sandbox: str | None = None
    workspace: str | None = None
    workspace_owner: str | None = None
    kind: UseKind | None = None
    internal: bool | None = False


@dataclass(frozen=True, slots=True)
class UseTotal:
    """Sums over uses that have one name in common: a task's id, a workspace's, ..., or none at all (`name` "")."""

    name: str
    uses: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    input_cost: int
    output_cost: int
    charged: int
    first_at: datetime | None
    last_at: datetime | None
    tasks: int = 0  # how many there were that used something
    seconds: float = 0.0  # of compute


class LedgerRecords(ABC):
    """Money. What moves it is one transaction, and durable: a power cut after the answer takes nothing back.

    An account is made by the first call that needs it, with balance 0.
    """

    @abstractmethod
    async def billing_account(self, account: str, now: datetime) -> BillingAccount:
        """The account as it is, made when there is none."""

    @abstractmethod
    async def transfer(self, wanted: NewTransfer, event: Event) -> Transfer:
        """Move it, once for each key. InsufficientCredit when an adjustment takes more than is available."""

    @abstractmethod
    async def set_spending_limits(
        self, account: str, *, daily: LimitChange, monthly: LimitChange, event: Event
    ) -> BillingAccount:
        """In place of what was set; None: no limit, KEEP: as it is in that moment."""

    @abstractmethod
    async def hold(self, wanted: NewHold, now: datetime) -> Hold:
        """Set the amount aside. SpendingLimitExceeded, then InsufficientCredit, then BudgetExceeded: nothing is held.

        Looking and holding are one atomic step: 64 concurrent holds of 1 on a balance of 10 grant exactly 10. Needs no
        sync: what is lost with a power cut had not been used.
        """

    @abstractmethod
    async def post_hold(self, hold_id: str, use: Use, now: datetime, *, payee: Payee | None = None) -> Settled:
        """Charge `use.cost.total` and let the rest of the hold go. What goes beyond the hold is charged as far as the
        account's available money and every budget reach, never below zero; the remainder is `lost`. The use is stored
        in the same step, with what was charged. A hold that has expired is charged all the same, from what is
        available; one that was posted or voided stays as it is and nothing is charged or stored. A `payee` gets what is
        charged in the same step. NotFound when there is none.
        """

    @abstractmethod
    async def void_hold(self, hold_id: str, now: datetime, *, expired: bool = False) -> Hold:
        """Let it go; no error when it is resolved already. NotFound when there is none. `expired`: as if its moment had
        come, so that a use which arrives late is charged all the same."""

    @abstractmethod
    async def get_hold(self, hold_id: str) -> Hold | None: ...

    @abstractmethod
    async def expire_holds(self, now: datetime, *, limit: int = 1000) -> list[Hold]:
        """Let those go that are past their moment; which they were. Each expires once, whoever else asks."""

    @abstractmethod
    async def pending_holds(self, *, task: str | None = None, limit: int = 1000) -> list[Hold]:
        """Oldest first."""

    @abstractmethod
    async def add_use(self, use: Use, now: datetime, *, budgets: tuple[Budget, ...] = ()) -> Settled | None:
        """A use for which nothing was held: charged from what is available, as `post_hold` does with an empty hold
        (its id is the use's), or only stored when it is internal or costs nothing: None. Once for each use's id. What
        is charged is counted under the budgets, and refused by none: it is used already."""

    @abstractmethod
    async def budget_uses(self, subjects: Collection[str]) -> dict[str, BudgetUse]:
        """Those of which anything was spent or held."""

    @abstractmethod
    async def spent_since(self, account: str, since: datetime) -> int:
        """What it was charged since that midnight (UTC)."""

    @abstractmethod
    async def list_transfers(
        self,
        account: str,
        *,
        kind: TransferKind | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Transfer]:
        """Newest first."""

    @abstractmethod
    async def list_uses(self, query: UseQuery, *, limit: int = 100, offset: int = 0) -> list[Use]:
        """Newest first."""

    @abstractmethod
    async def total_uses(self, query: UseQuery, *, by: str = "", limit: int = 100, offset: int = 0) -> list[UseTotal]:
        """Sums by `task`, `workspace`, `sandbox`, `workspace_owner`, `account`, `model`, `kind` or `day` (UTC), the
        dearest first, a day's newest first; by "" the one sum of all, which is there even of nothing."""

    @abstractmethod
    async def all_transfers(self, *, after: int = 0, limit: int = 10_000) -> Sequence[Transfer]:
        """Everybody's in order of id, for the proof."""

    @abstractmethod
    async def all_billing_accounts(self, *, after: str = "", limit: int = 10_000) -> Sequence[BillingAccount]:
        """Everybody's and the system's in order of id, for the proof."""
