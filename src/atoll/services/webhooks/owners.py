"""Whether the owner of a webhook still stands: who is gone is told of nothing; the deliveries ask before each round."""

from __future__ import annotations

from atoll.domain.ids import GROUP_ID
from atoll.domain.key import KeyKind
from atoll.domain.user import USER_ID
from atoll.domain.webhook import Webhook
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now

ADMIN = "admin"  # the principal of the ADMIN_API_KEY, which the settings keep


class Owners:
    """Looks into the records."""

    def __init__(self, records: Records, clock: Clock = utc_now) -> None:
        self._records = records
        self._clock = clock

    async def why_not(self, webhook: Webhook) -> str | None:
        """Why the webhook may be told of nothing any more; None while it may."""
        owner = webhook.owner
        if owner == ADMIN:
            return None
        if GROUP_ID.match(owner):
            stands, admin = await self._records.get_group(owner) is not None, False
        elif USER_ID.match(owner):
            user = await self._records.get_user(owner)
            stands, admin = user is not None and user.usable, user is not None and user.admin
        else:
            now = self._clock()
            usable = [key for key in await self._records.list_keys(owner=owner) if key.usable(now)]
            stands, admin = bool(usable), any(key.kind is KeyKind.OWNER for key in usable)
        if not stands:
            return "its owner is gone, disabled or without a key"
        return "its owner administers this server no more" if webhook.everyone and not admin else None
