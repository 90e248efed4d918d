"""Keys, as the settings want them: who may come in before anybody has made a key, and the owner's own.

The composition root makes them; its start prepares them before anything is served.
"""

from __future__ import annotations

from collections.abc import Sequence

from atoll.limits import bootstrap_texts, quota_limits
from atoll.records.base import Records
from atoll.services.bootstrap_keys import introduce
from atoll.services.identity.admin_key import AdminKey
from atoll.services.keys import Keys
from atoll.services.owner_key import OwnerKey, prepare
from atoll.settings import Settings
from atoll.surfaces.door import is_loopback


def make_keys(settings: Settings, records: Records) -> Keys:
    """Not started."""
    return Keys(
        records,
        cache_s=settings.keys.cache_s,
        use_queue_items=settings.keys.use_queue_items,
        bootstrap=bootstrap_texts(settings),
        plans=quota_limits(settings).plans,
    )


def make_admin_key(settings: Settings) -> AdminKey:
    text = settings.admin.api_key
    return AdminKey(None if text is None else text.get_secret_value())


async def prepare_keys(
    settings: Settings, keys: Keys, admin_key: AdminKey, listening_hosts: Sequence[str]
) -> OwnerKey | None:
    """Start them, with those of the settings, and the owner key where this server may hold one: nobody else can reach
    what it listens at."""
    await keys.start()
    await introduce(keys, bootstrap_texts(settings))
    may_mint = all(is_loopback(host) for host in (settings.server.host, *listening_hosts))
    return await prepare(keys, settings.folder.owner_key, may_mint=may_mint, administered=admin_key.configured)
