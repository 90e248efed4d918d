"""Sealed values: what a record keeps but nobody who reads the records may see, such as a tenant's environment.

A value lies there as base64 of its JSON, sealed as a chunk is, under the data key of a lineage.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from atoll.domain.errors import Corrupt
from atoll.domain.tree import chunk_id
from atoll.services.workspaces.storage.keys import LineageKeys
from atoll.services.workspaces.storage.sealing import Sealer


class SealedValues:
    """Seals and opens values of JSON. `label` says what one is and whose: under another one it does not open."""

    def __init__(self, keys: LineageKeys) -> None:
        self._keys = keys

    async def seal(self, lineage: str, label: str, value: Any) -> str:
        """The value as text. NotFound when the lineage's key is gone."""
        sealer = Sealer(await self._keys.key(lineage), lineage)
        return base64.b64encode(sealer.seal(chunk_id(label.encode()), json.dumps(value).encode())).decode()

    async def open(self, lineage: str, label: str, sealed: str) -> Any:
        """What `seal` sealed. NotFound when the lineage's key is gone, Corrupt."""
        sealer = Sealer(await self._keys.key(lineage), lineage)
        try:
            text = base64.b64decode(sealed, validate=True)
        except binascii.Error:
            raise Corrupt(f"the {label} is not what was stored") from None
        return json.loads(sealer.open(chunk_id(label.encode()), text))
