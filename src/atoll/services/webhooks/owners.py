"""Whether a webhook may still be told of its owner's events: its owner stands, and who made it may read them still.

The deliveries ask before each call, so that whoever left or lost a credential hears of nothing more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from atoll.domain.errors import Unauthenticated
from atoll.domain.key import Scope
from atoll.domain.webhook import Webhook
from atoll.records.base import Records
from atoll.services.identity.principals import Principals

ScopesLeft = Callable[[str, str], Awaitable[frozenset[Scope]]]  # of a credential of somebody's; Unauthenticated: none


class Owners:
    """Asks who the principals are, and what their credentials still open."""

    def __init__(self, records: Records, principals: Principals, scopes_left: ScopesLeft) -> None:
        self._records = records
        self._principals = principals
        self._scopes_left = scopes_left

    async def why_not(self, webhook: Webhook) -> str | None:
        """Why the webhook may be told of nothing any more; None while it may."""
        if await self._principals.has_ended(webhook.owner):
            return "its owner is gone, disabled or without a key"
        if webhook.everyone and not await self._principals.administers(webhook.owner):
            return "its owner administers this server no more"
        if not await self._reads(webhook):
            return f"{webhook.credential}, with which it was made or enabled, has ended or may read no more"
        if webhook.maker != webhook.owner:
            member = await self._records.get_member(webhook.owner, webhook.maker)
            if member is None or Scope.READ not in member.role.scopes:
                return f"{webhook.maker}, who made or enabled it, does not belong to the group any more"
        return None

    async def _reads(self, webhook: Webhook) -> bool:
        try:
            return Scope.READ in await self._scopes_left(webhook.credential, webhook.maker)
        except Unauthenticated:
            return False
