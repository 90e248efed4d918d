"""Principals that have a key in the records, as everybody has who came through the door; shares need them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.domain.principal import Principal
from atoll.records.base import Records


async def introduce(records: Records, *principals: Principal) -> None:
    """Give each a key record with its id, unless it has one."""
    for one in principals:
        if await records.get_key(one.id) is None:
            digest = hashlib.sha256(one.id.encode()).hexdigest()
            now = datetime.now(UTC)
            key = ApiKey(one.id, digest, digest[:12], one.name, one.kind, one.scopes, now)
            await records.add_key(key, Event("key.created", one.id, one.id, "system", at=now))
