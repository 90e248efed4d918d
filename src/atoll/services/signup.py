"""Signup: strangers who ask for a key, or for more than a plan gives; served only where the settings say so.

Whoever calls it has bounded how often one address may; here the whole is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.domain.account import Account, QuotaRequest
from atoll.domain.account_limits import email_of
from atoll.domain.event import Event
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.key_rules import check_key
from atoll.services.new_keys import NewKey, new_key

TIER = "free"
STRANGER = "anonymous"  # the actor of what somebody without a credential does


class Signup:
    """`keys_max` and `requests_max` bound what all strangers together get."""

    def __init__(self, records: Records, *, keys_max: int, requests_max: int, clock: Clock = utc_now) -> None:
        self._records = records
        self._keys_max = keys_max
        self._requests_max = requests_max
        self._clock = clock

    async def join(self, email: str, name: str | None = None) -> NewKey:
        """A standard key of the plan `free`. Conflict for an address that has one; QuotaExceeded when all are given."""
        address, now = email_of(email), self._clock()
        check_key(name=name)
        made = new_key(name or "waitlist", now, plan=TIER)
        key = made.key
        detail = {"name": key.name, "plan": TIER, "prefix": key.prefix}
        event = Event("key.created", key.id, key.id, STRANGER, detail=detail, at=now)
        await self._records.add_account_key(Account(key.id, now, address), key, event, most=self._keys_max)
        return made

    async def ask(self, email: str, detail: Mapping[str, Any]) -> QuotaRequest:
        """Keep a request for the operator to read. QuotaExceeded when too many wait."""
        now = self._clock()
        request = QuotaRequest(email_of(email), now, detail=detail)
        # whose address it is does not stand in the audit log: what was asked is found by its number
        event = Event("quota.requested", "", STRANGER, STRANGER, at=now)
        return await self._records.add_quota_request(request, event, most=self._requests_max)
