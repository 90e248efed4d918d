"""What the account's routes answer: a plain builder and a model for the document, side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from pydantic import Field

from atoll.domain import account_limits
from atoll.domain.key import ApiKey
from atoll.domain.quota import MIB, QuotaName, QuotaUse
from atoll.services.account_keys import AccountKey
from atoll.services.account_usage import Used
from atoll.services.accounts import AccountView, History
from atoll.surfaces.models import AnswerModel

UNLIMITED = -1
PREVIEW_CHARS = 7
Json = dict[str, Any]


class AccountAnswer(AnswerModel):
    tier: str
    email: str | None = None
    api_key_id: str | None = Field(None, description="of the key that asks, where it is one")
    api_key_preview: str | None = None
    created_at: datetime | None = None
    tier_expires_at: datetime | None = None


class AccountUsageAnswer(AnswerModel):
    """What is used; -1 stands for what nothing bounds."""

    sessions_today: int
    active_sessions: int
    quota_used: int
    quota_remaining: int
    tier: str
    concurrent_limit: int
    daily_limit: int
    max_duration_seconds: int
    max_memory_mb: int


class HourAnswer(AnswerModel):
    hour: datetime
    executions: int
    cost_cents: int
    errors: int


class DayAnswer(AnswerModel):
    date: date
    executions: int
    duration_ms: int
    cost_cents: int
    errors: int


class EnhancedUsageAnswer(AccountUsageAnswer):
    account_id: str
    hourly_usage: list[HourAnswer]
    daily_history: list[DayAnswer]
    cost_estimate_cents: int
    monthly_cost_limit_cents: int | None = None
    alert_threshold: int


class AccountLimitsAnswer(AnswerModel):
    """What its holder may have: bounds of their own, else the plan's; -1 stands for what nothing bounds."""

    daily_requests_limit: int
    concurrent_requests_limit: int
    monthly_cost_limit_cents: int | None = None
    alert_threshold: int
    billing_email: str | None = None
    timezone: str


class AccountKeyAnswer(AnswerModel):
    id: str = Field(pattern=r"^key_[0-9a-f]{12}$")
    name: str
    description: str | None = None
    key_preview: str
    is_active: bool
    expires_at: datetime | None = None
    custom_daily_limit: int | None = None
    custom_concurrent_limit: int | None = None
    created_at: datetime
    last_used_at: datetime | None = None


class AccountNewKeyAnswer(AccountKeyAnswer):
    key: str = Field(description="its text: shown now, and never again")


class AccountKeysAnswer(AnswerModel):
    keys: list[AccountKeyAnswer]


class WaitlistAnswer(AnswerModel):
    id: str
    key: str
    tier: str
    message: str


class QuotaRequestAnswer(AnswerModel):
    id: int
    status: str
    message: str
    created_at: datetime


def account(view: AccountView) -> Json:
    answer: Json = {"tier": view.tier, "email": view.email}
    if view.key is not None:
        answer |= {"api_key_id": view.key.id, "api_key_preview": preview(view.key), "created_at": view.key.created_at}
    return _present(answer)


def usage(tier: str, uses: Mapping[QuotaName, QuotaUse]) -> Json:
    daily, concurrent = uses[QuotaName.DAILY], uses[QuotaName.SANDBOXES]
    memory = uses[QuotaName.SANDBOX_MEMORY].limit
    return {
        "sessions_today": daily.used,
        "active_sessions": concurrent.used,
        "quota_used": daily.used,
        "quota_remaining": _bound(daily.remaining),
        "tier": tier,
        "concurrent_limit": _bound(concurrent.limit),
        "daily_limit": _bound(daily.limit),
        "max_duration_seconds": _bound(uses[QuotaName.SANDBOX_S].limit),
        "max_memory_mb": UNLIMITED if memory is None else memory // MIB,
    }


def enhanced(owner: str, used: Json, history: History, limits: Mapping[str, Any]) -> Json:
    hours = [
        {"hour": hour, "executions": one.executions, "cost_cents": one.cost_cents, "errors": one.errors}
        for hour, one in history.hours.items()
    ]
    return used | _present(
        {
            "account_id": owner,
            "hourly_usage": hours,
            "daily_history": days(history.days),
            "cost_estimate_cents": history.cost_cents,
            "monthly_cost_limit_cents": limits.get(account_limits.COST),
            "alert_threshold": limits.get(account_limits.ALERT, account_limits.ALERT_PERCENT),
        }
    )


def days(history: Mapping[date, Used]) -> list[Json]:
    return [
        {
            "date": day,
            "executions": one.executions,
            "duration_ms": one.duration_ms,
            "cost_cents": one.cost_cents,
            "errors": one.errors,
        }
        for day, one in history.items()
    ]


def days_csv(history: Mapping[date, Used]) -> str:
    """The same as a table; nothing in it is anybody's own text, so that no cell is a formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(DayAnswer.model_fields))
    writer.writeheader()
    writer.writerows(days(history))
    return text.getvalue()


def limits(set_: Mapping[str, Any], uses: Mapping[QuotaName, QuotaUse]) -> Json:
    bounds = {name: _bound(uses[quota].limit) for name, quota in account_limits.QUOTAS.items()}
    return bounds | _present(
        {
            account_limits.COST: set_.get(account_limits.COST),
            account_limits.ALERT: set_.get(account_limits.ALERT, account_limits.ALERT_PERCENT),
            account_limits.EMAIL: set_.get(account_limits.EMAIL),
            account_limits.TIMEZONE: set_.get(account_limits.TIMEZONE, account_limits.ZONE),
        }
    )


def key(one: AccountKey) -> Json:
    found = one.key
    return _present(
        {
            "id": found.id,
            "name": found.name,
            "description": found.description or None,
            "key_preview": preview(found),
            "is_active": found.usable(),
            "expires_at": found.expires_at,
            **one.bounds,
            "created_at": found.created_at,
            "last_used_at": found.last_used_at,
        }
    )


def preview(found: ApiKey) -> str:
    """Its beginning; of its end nothing is kept."""
    return found.prefix[:PREVIEW_CHARS] + "..."


def _bound(most: int | None) -> int:
    return UNLIMITED if most is None else most


def _present(answer: Json) -> Json:
    return {name: value for name, value in answer.items() if value is not None}
