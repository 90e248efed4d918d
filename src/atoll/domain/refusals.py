"""Refusals for money as plain values: a task that ran dry keeps its own, and every surface says the same of it later.

`services/tasks` stores one with the task, the surfaces make an error of it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.domain.errors import AtollError
from atoll.domain.ledger import BudgetExceeded, InsufficientCredit, SpendingLimitExceeded

Refusal = InsufficientCredit | SpendingLimitExceeded


def refusal_value(error: AtollError) -> dict[str, Any]:
    """What a record holds of it; empty for an error that is about no money."""
    if isinstance(error, SpendingLimitExceeded):
        value: dict[str, Any] = {
            "daily_usage": error.daily_usage,
            "daily_limit": error.daily_limit,
            "monthly_usage": error.monthly_usage,
            "monthly_limit": error.monthly_limit,
        }
    elif isinstance(error, BudgetExceeded):
        value = {"subject": error.subject, "limit": error.limit, "spent": error.spent}
    elif isinstance(error, InsufficientCredit):
        value = {"balance": error.balance, "spent": error.spent}
    else:
        return {}
    return {"code": error.code, "message": error.message} | value


def refusal_of(value: Mapping[str, Any]) -> Refusal:
    """The error again."""
    told = dict(value)
    code, message = told.pop("code", ""), told.pop("message", None)
    for kind in (SpendingLimitExceeded, BudgetExceeded):
        if code == kind.code:
            return kind(message, **told)
    return InsufficientCredit(message, **told)
