"""Errors of agents' tasks; each has the result so far, and `output`, what the agent had said by then.

AtollError
├── TaskFailed               task_failed              the agent failed, or was lost
│   ├── TaskTimedOut         task_timeout             its time was up
│   └── TaskCancelled        task_cancelled           somebody ended it
├── InsufficientCredit       insufficient_credit      the balance is spent
│   └── BudgetExceeded       budget_exceeded          a key's or a task's budget is
├── SpendingLimitExceeded    spending_limit_exceeded  the account's limit of the day or month is reached
├── NoModelKey               no_model_key             nobody said which model's service to use
└── SyncFailed               sync_failed              the task has ended, and its files did not come back yet
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

from atoll.domain import ledger
from atoll.domain.errors import AtollError
from atoll.domain.money import MICRO_USD
from atoll.sdk.task_values import RunResult, dollars

Json = Mapping[str, Any]


class TaskFailed(AtollError):
    """The task failed."""

    code = "task_failed"

    def __init__(self, message: str | None = None, result: RunResult | None = None) -> None:
        self.result = result
        super().__init__(message)

    @property
    def output(self) -> str:
        """What the agent had said by then."""
        return self.result.final_output if self.result else ""


class TaskTimedOut(TaskFailed):
    """The task's time was up."""

    code = "task_timeout"


class TaskCancelled(TaskFailed):
    """The task was cancelled."""

    code = "task_cancelled"


class InsufficientCredit(ledger.InsufficientCredit):
    """The credit balance is insufficient.

    `result` is None when the task was not begun; amounts are dollars."""

    def __init__(
        self,
        message: str | None = None,
        result: RunResult | None = None,
        *,
        output: str = "",
        current_balance: Decimal = Decimal(0),
        total_spent: Decimal = Decimal(0),
    ) -> None:
        self.result = result
        self.output = result.final_output if result else output
        self.current_balance, self.total_spent = current_balance, total_spent
        super().__init__(message, balance=_micro(current_balance), spent=_micro(total_spent))


class BudgetExceeded(InsufficientCredit):
    """The budget is spent."""

    code = "budget_exceeded"


class SpendingLimitExceeded(ledger.SpendingLimitExceeded):
    """A spending limit is reached.

    `details` has dailyUsage, dailyLimit, monthlyUsage and monthlyLimit, in dollars."""

    def __init__(
        self,
        message: str | None = None,
        result: RunResult | None = None,
        *,
        output: str = "",
        details: Mapping[str, Decimal | None] | None = None,
    ) -> None:
        self.result = result
        self.output = result.final_output if result else output
        self.details = details or {}
        usage = [_micro(self.details.get(name) or Decimal(0)) for name in ("dailyUsage", "monthlyUsage")]
        limits = [
            None if (found := self.details.get(name)) is None else _micro(found)
            for name in ("dailyLimit", "monthlyLimit")
        ]
        super().__init__(
            message or "A spending limit is reached.",
            daily_usage=usage[0],
            daily_limit=limits[0],
            monthly_usage=usage[1],
            monthly_limit=limits[1],
        )


class NoModelKey(AtollError):
    """There is no key for a model."""

    code = "no_model_key"


class SyncFailed(TaskFailed):
    """The task has ended, but its files could not be brought back: they are in the workspace."""

    code = "sync_failed"


_Money = type[InsufficientCredit] | type[SpendingLimitExceeded]
MONEY: Mapping[str, _Money] = {cls.code: cls for cls in (InsufficientCredit, BudgetExceeded, SpendingLimitExceeded)}
_WORDS: Mapping[str, _Money] = {  # Testbase's titles
    "insufficient credits": InsufficientCredit,
    "budget exceeded": BudgetExceeded,
    "spending limit exceeded": SpendingLimitExceeded,
}
_IN_WORDS = {"spending limit": SpendingLimitExceeded.code, "budget": BudgetExceeded.code}


def money_error(status: int, problem: Json) -> AtollError | None:
    """The error of an answer that is about money; None for all others."""
    code = str(problem.get("code") or "").lower()
    title = str(problem.get("error") or "").lower()
    cls = MONEY.get(code) or _WORDS.get(title) or (InsufficientCredit if status == 402 else None)
    if cls is None:
        return None
    message = str(problem.get("message") or problem.get("error") or problem.get("detail") or "") or None
    found = problem.get("details")
    details: Json = cast("Json", found) if isinstance(found, Mapping) else {}
    output = str(problem.get("output") or "")
    if issubclass(cls, SpendingLimitExceeded):
        amounts = {name: None if value is None else dollars(value) for name, value in details.items()}
        return cls(message, output=output, details=amounts)
    balance, spent = dollars(details.get("currentBalance")), dollars(details.get("totalSpent") or details.get("spent"))
    return cls(message, output=output, current_balance=balance, total_spent=spent)


def end_error(result: RunResult, said: Json) -> AtollError | None:
    """The error of a task that ended otherwise than well; None for one that succeeded. `said` is what the server told
    of its end."""
    if result.ok:
        return None
    message = result.error or None
    code = str(said.get("code") or result.reason or "")
    if code == InsufficientCredit.code:  # which of the three it is stands in its words alone
        words = result.error.lower()
        code = next((kind for word, kind in _IN_WORDS.items() if word in words), code)
    if code in MONEY:
        found = money_error(0, {**said, "code": code, "message": message})
        if isinstance(found, (InsufficientCredit, SpendingLimitExceeded)):
            found.result, found.output = result, result.final_output
            return found
    if result.state == "cancelled":
        return TaskCancelled(message, result)
    if result.reason == "timeout":
        return TaskTimedOut(message, result)
    return TaskFailed(message, result)


def _micro(amount: Decimal) -> int:
    return int(amount * MICRO_USD)
