"""When an owner, or a key, has made all the keys that it may: the rules by which every store decides as it counts."""

from __future__ import annotations

from atoll.domain.errors import QuotaExceeded
from atoll.domain.key import ApiKey


def check_own(have: int, most: int) -> None:
    """QuotaExceeded when an owner with so many keys cannot have one more."""
    if have >= most:
        raise QuotaExceeded(f"key limit reached ({have}/{most}): revoke one first")


def check_child(key: ApiKey, siblings: int, siblings_max: int, budget: int | None, given: int) -> None:
    """QuotaExceeded when a parent with that budget, of which so much is given away, cannot have one more."""
    if siblings >= siblings_max:
        raise QuotaExceeded(f"this credential has its maximum of keys that it made ({siblings}/{siblings_max})")
    if budget is not None and (key.budget_micro_usd is None or given + key.budget_micro_usd > budget):
        raise QuotaExceeded(f"budget_micro_usd must be at most {max(0, budget - given)}: what is left to give away")
