"""What a key may be like: its name, prefix, scopes, expiry, description, metadata and rate; the keys service asks."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from atoll.domain.errors import InvalidInput
from atoll.domain.key import Scope
from atoll.domain.rate import Rate

NAME_CHARS_MAX = 255
DESCRIPTION_CHARS_MAX = 1_024
METADATA_BYTES_MAX = 4_096
EXPIRES_IN_DAYS_MAX = 3_650.0
RATE_MAX = 1_000_000
PLAN = re.compile(r"[a-z][a-z0-9_-]{0,31}|")
# Shorter than what of a key is kept to recognise it by: the rest of that is random.
KEY_PREFIX = re.compile(r"[a-z][a-z0-9_]{0,7}_")
SCOPES = ", ".join(scope.value for scope in Scope)


def check_key(
    *,
    name: str | None = None,
    scopes: frozenset[Scope] | None = None,
    expires_in_days: float | None = None,
    prefix: str | None = None,
    plan: str = "",
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    rate: Rate | None = None,
) -> None:
    """InvalidInput names the field that is wrong; what is None is not looked at."""
    if name is not None and (not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable()):
        raise InvalidInput(f"name must be 1 to {NAME_CHARS_MAX} printable characters", field="name")
    if scopes is not None and not scopes:
        raise InvalidInput(f"scopes must be some of {SCOPES}", field="scopes")
    if expires_in_days is not None and not 0 < expires_in_days <= EXPIRES_IN_DAYS_MAX:
        raise InvalidInput(
            f"expires_in_days must be above 0 and at most {EXPIRES_IN_DAYS_MAX:g}", field="expires_in_days"
        )
    if prefix is not None and not KEY_PREFIX.fullmatch(prefix):
        raise InvalidInput(
            "prefix must be a letter, at most 7 lower-case letters, digits and underscores, and an underscore",
            field="prefix",
        )
    if not PLAN.fullmatch(plan):
        raise InvalidInput("plan must be at most 32 lower-case letters, digits, - and _", field="plan")
    if description is not None and len(description) > DESCRIPTION_CHARS_MAX:
        raise InvalidInput(f"description must be at most {DESCRIPTION_CHARS_MAX} characters", field="description")
    if metadata is not None and len(json.dumps(dict(metadata))) > METADATA_BYTES_MAX:
        raise InvalidInput(f"metadata must be at most {METADATA_BYTES_MAX} bytes as JSON", field="metadata")
    if rate is not None and not (0 < rate.per_s <= RATE_MAX and 1 <= rate.burst <= RATE_MAX):
        raise InvalidInput(f"rate must be above 0 and at most {RATE_MAX} a second and at once", field="rate")


def check_plan(plan: str, plans: Collection[str] | None) -> None:
    """InvalidInput for a plan that there is not: it would bound nothing. Every plan may be where `plans` is None."""
    if plan and plans is not None and plan not in plans:
        named = ", ".join(sorted(name for name in plans if name))
        raise InvalidInput(f"plan must be one of {named}, or empty; not {plan!r}", field="plan")
