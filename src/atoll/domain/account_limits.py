"""What the holder of an account sets for themselves: bounds below those of the plan, and who is told of money."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from atoll.domain.errors import InvalidInput
from atoll.domain.quota import QuotaName

DAILY, CONCURRENT = "daily_requests_limit", "concurrent_requests_limit"
COST, ALERT, EMAIL, TIMEZONE = "monthly_cost_limit_cents", "alert_threshold", "billing_email", "timezone"
NAMES = (DAILY, CONCURRENT, COST, ALERT, EMAIL, TIMEZONE)
ALERT_PERCENT, ZONE = 80, "UTC"  # where nothing is set
MOST = 2**53
# Which quota a bound of one's own narrows.
QUOTAS = {DAILY: QuotaName.DAILY, CONCURRENT: QuotaName.SANDBOXES}

_EMAIL = re.compile(r"[^@\s\x00-\x20\x7f]{1,64}@[^@\s\x00-\x20\x7f]{1,190}")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")


def changed(limits: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """With what is given in place; None takes away. InvalidInput names the field that is wrong."""
    for name, value in given.items():
        if value is not None:
            _check(name, value)
    merged = {**limits, **given}
    return {name: value for name, value in merged.items() if value is not None}


def narrowed(amounts: Mapping[QuotaName, int], limits: Mapping[str, Any]) -> dict[QuotaName, int]:
    """The bounds of a plan with those of the holder's own that are below them."""
    found = dict(amounts)
    for name, quota in QUOTAS.items():
        if name in limits:
            found[quota] = min(found.get(quota, limits[name]), limits[name])
    return found


def email_of(text: str, field: str = "email") -> str:
    """An address as it is compared. InvalidInput for what is none."""
    text = text.strip()
    if not _EMAIL.fullmatch(text):
        raise InvalidInput(f"{field} must be an e-mail address", field=field)
    return text.lower()


def _check(name: str, value: Any) -> None:
    if name == EMAIL:
        email_of(value, EMAIL)
    elif name == TIMEZONE:
        if not _ZONE.fullmatch(value):
            raise InvalidInput("timezone must be a name such as Europe/Berlin", field=name)
    else:
        least, most = (1 if name in QUOTAS else 0), (100 if name == ALERT else MOST)
        if not least <= value <= most:
            raise InvalidInput(f"{name} must be {least} to {most}", field=name)
