"""Bootstrap keys: standard keys whose texts stand in the settings, put into the records at the start.

A key whose id is made of its own hash is such a one; it opens something only where the settings still have its text.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from atoll.domain.errors import Conflict
from atoll.domain.ids import bootstrap_key_id
from atoll.domain.key import hash_key
from atoll.services.keys import Keys

_log = structlog.get_logger("atoll.keys")


async def introduce(keys: Keys, texts: Iterable[str]) -> None:
    """Put those into the records that are not there yet. One that was revoked stays so."""
    for text in texts:
        digest = hash_key(text)
        key_id = bootstrap_key_id(digest)
        if await keys.get(key_id) is not None:
            continue
        try:
            await keys.create("bootstrap", text=text, key_id=key_id)
        except Conflict:  # another server was faster, or it is a key of another kind
            _log.info("keys.bootstrap_exists", key_id=key_id)
