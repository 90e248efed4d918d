"""Quotas: what each plan allows, when to warn, and how long answers to repeated requests are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from atoll.domain.quota import AMOUNT_MAX, KEY_PLAN, QuotaName
from atoll.settings.section import Section

KEYS = "key"  # what the plan of keys without a plan is called here
UNBOUNDED = -1
PLAN_CHARS_MAX = 64


class QuotaSettings(Section):
    plans: Mapping[str, Mapping[str, int]] = {}
    """What plans allow, where that differs from docs/quotas.md: a table for each plan (`user`, `group`, `key`, `free`,
    ...), -1 for no bound. New names are new plans. Environment: JSON."""
    warn_percent: int = Field(default=80, ge=1, le=100)
    """A quota that is used so far is warned of: an event, a metric and a header of the answer."""
    idempotency_h: float = Field(default=24.0, ge=0.1, le=24 * 30)
    """Hours that an `Idempotency-Key` is remembered, with the answer to its request."""
    idempotency_answer_bytes: int = Field(default=2**20, ge=2**10, le=2**26)
    """Largest answer that is kept for one."""
    idempotency_owner_bytes: int = Field(default=2**26, ge=2**20, le=2**40)
    """What is kept of one owner's answers larger than 4 KiB, of all their keys together."""

    @field_validator("plans", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("plans")
    @classmethod
    def _known(cls, value: Mapping[str, Mapping[str, int]]) -> Mapping[str, Mapping[str, int]]:
        names = {name.value for name in QuotaName}
        for plan, amounts in value.items():
            if not plan.isidentifier() or len(plan) > PLAN_CHARS_MAX:
                raise ValueError(f"a plan's name is a word, not {plan!r}")
            for name, amount in amounts.items():
                if name not in names:
                    raise ValueError(f"{plan}.{name}: a quota is one of {', '.join(sorted(names))}")
                if not UNBOUNDED <= amount <= AMOUNT_MAX:
                    raise ValueError(f"{plan}.{name} must be -1, for no bound, or 0 to {AMOUNT_MAX}")
        return value

    def changed(self, plans: Mapping[str, Mapping[QuotaName, int]]) -> dict[str, dict[QuotaName, int]]:
        """These plans, with what the settings say in place."""
        found = {plan: dict(amounts) for plan, amounts in plans.items()}
        for named, amounts in self.plans.items():
            plan = found.setdefault(KEY_PLAN if named == KEYS else named, {})
            for name, amount in amounts.items():
                plan[QuotaName(name)] = amount
                if amount == UNBOUNDED:
                    del plan[QuotaName(name)]
        return found
