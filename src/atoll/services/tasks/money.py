"""Money: what tasks ask of the ledger, and who pays for one; `submit` asks before, the model gateway while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from atoll.domain.key import KeyKind
from atoll.domain.ledger import BillingAccount, Budget, Payer
from atoll.domain.price import TokenUse
from atoll.domain.principal import Principal
from atoll.domain.task import Task
from atoll.records.base import Records
from atoll.records.ledger import UseQuery
from atoll.services.budgets import budgets_of_grants, budgets_of_keys


class Money(Protocol):
    """The ledger, as far as tasks know it."""

    async def check(self, payer: Payer) -> None:
        """SpendingLimitExceeded, InsufficientCredit or BudgetExceeded before anything is begun."""
        ...

    async def account(self, payer: str) -> BillingAccount: ...


@dataclass(frozen=True, slots=True)
class TaskUsage:
    """What a task used so far, or in all. `account` is the payer's now; None: it is not charged."""

    tokens: TokenUse
    cost: int  # micro-dollars
    charged: int
    account: BillingAccount | None


def is_internal(principal: Principal) -> bool:
    """Whether what it uses is metered and never charged."""
    return principal.kind is not KeyKind.STANDARD or principal.admin


async def task_total(records: Records, task_id: str) -> TaskUsage | None:
    """What the ledger has of a task; None: nothing."""
    [total] = await records.total_uses(UseQuery(task=task_id, internal=None))
    if not total.uses:
        return None
    tokens = TokenUse(total.input_tokens, total.output_tokens, total.cached_tokens)
    return TaskUsage(tokens, total.input_cost + total.output_cost, total.charged, None)


async def payer_of(records: Records, task: Task, *, workspace_owner: str | None = None) -> Payer:
    """Who pays for a task, with the budgets that bound it as they are now."""
    budgets: list[Budget] = []
    if task.spec.budget_micro_usd is not None:
        budgets.append(Budget(task.id, task.spec.budget_micro_usd))
    budgets += await budgets_of_keys(records, task.lineage)
    budgets += await budgets_of_grants(records, task.credential)
    return Payer(
        account=task.owner,
        credential=task.credential,
        internal=task.internal,
        budgets=tuple(budgets),
        task=task.id,
        thread=task.thread,
        sandbox=task.sandbox,
        workspace=task.spec.workspace,
        workspace_owner=workspace_owner,
    )
