"""How the ledger's objects become rows and come back; `sql_ledger.py` and its neighbours read and write with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from atoll.domain.ledger import (
    BillingAccount,
    Budget,
    Hold,
    HoldState,
    Transfer,
    TransferKind,
    Use,
    UseKind,
)
from atoll.domain.price import Cost, TokenUse

Row = Mapping[str, Any]

_ACCOUNT = ("id", "balance", "held", "spent", "daily_limit", "monthly_limit", "created_at", "updated_at")
_HOLD = ("id", "account", "amount", "created_at", "expires_at", "task", "posted", "resolved_at")
_TRANSFER = ("id", "debit", "credit", "amount", "account", "balance_after", "at", "key", "hold", "description")
_USE = (
    "id", "account", "at", "model", "credential", "task", "thread", "sandbox", "workspace", "workspace_owner",
    "seconds", "internal", "charged",
)  # fmt: skip


def account_of(row: Row) -> BillingAccount:
    return BillingAccount(**{name: row[name] for name in _ACCOUNT})


def transfer_row(transfer: Transfer) -> dict[str, Any]:
    values = {name: getattr(transfer, name) for name in _TRANSFER}
    return values | {"kind": transfer.kind.value, "detail": json.dumps(dict(transfer.detail), separators=(",", ":"))}


def transfer_of(row: Row) -> Transfer:
    values = {name: row[name] for name in _TRANSFER}
    return Transfer(**values, kind=TransferKind(row["kind"]), detail=json.loads(row["detail"]))


def hold_row(hold: Hold, budgets: tuple[Budget, ...]) -> dict[str, Any]:
    values = {name: getattr(hold, name) for name in _HOLD}
    bounds = json.dumps([(budget.subject, budget.limit) for budget in budgets], separators=(",", ":"))
    return values | {"state": hold.state.value, "budgets": bounds, "use": None}


def hold_of(row: Row) -> Hold:
    subjects = tuple(budget.subject for budget in budgets_of(row))
    return Hold(**{name: row[name] for name in _HOLD}, state=HoldState(row["state"]), budgets=subjects)


def budgets_of(row: Row) -> tuple[Budget, ...]:
    """With their limits, as they were when the hold was taken."""
    return tuple(Budget(subject, limit) for subject, limit in json.loads(row["budgets"]))


def use_row(use: Use) -> dict[str, Any]:
    values = {name: getattr(use, name) for name in _USE}
    return values | {
        "kind": use.kind.value,
        "input_tokens": use.tokens.input,
        "output_tokens": use.tokens.output,
        "cached_tokens": use.tokens.cached,
        "reasoning_tokens": use.tokens.reasoning,
        "estimated": use.tokens.estimated,
        "input_cost": use.cost.input,
        "output_cost": use.cost.output,
    }


def use_of(row: Row) -> Use:
    tokens = TokenUse(*(row[f"{name}_tokens"] for name in ("input", "output", "cached", "reasoning")))
    return Use(
        **{name: row[name] for name in _USE},
        kind=UseKind(row["kind"]),
        tokens=replace(tokens, estimated=row["estimated"]),
        cost=Cost(row["input_cost"], row["output_cost"]),
    )
