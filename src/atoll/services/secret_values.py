"""Secret values: how one is sealed and opened: under a data key of its own, bound to whose it is and which it is.

The services of secrets call it. A sealed value is a nonce of 12 bytes and the AES-256-GCM text; rows that somebody
exchanges do not open.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections import OrderedDict
from dataclasses import replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from atoll.domain.errors import Corrupt, Unavailable
from atoll.domain.secret import Secret
from atoll.vaults.base import Vault

KEY_BYTES, NONCE_BYTES = 32, 12
CACHED_MAX = 256
CACHED_S = 60.0  # an unwrapped key; which one it is says the record, so that a rotation counts at once


class SecretValues:
    """Seals and opens under the vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._cached: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()

    async def seal(self, secret: Secret, value: bytes) -> Secret:
        """The record with the value, sealed under a fresh key."""
        key = secrets.token_bytes(KEY_BYTES)
        wrapped = await self._vault.wrap(key, key_context(secret))
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + AESGCM(key).encrypt(nonce, value, _bound_to(secret))
        return replace(secret, vault=self._vault.name, key=wrapped, sealed=sealed)

    async def open(self, secret: Secret) -> bytes:
        """Its value. Corrupt when a row was changed or exchanged; Unavailable when another vault has its key."""
        key = await self._key(secret)
        try:
            return AESGCM(key).decrypt(secret.sealed[:NONCE_BYTES], secret.sealed[NONCE_BYTES:], _bound_to(secret))
        except (InvalidTag, ValueError):
            raise Corrupt(f"the secret {secret.id} is not what was stored") from None

    async def _key(self, secret: Secret) -> bytes:
        if secret.vault != self._vault.name:
            raise Unavailable(
                f"{secret.id} needs the vault {secret.vault!r}; this server has {self._vault.name!r}: "
                "`atoll vault rewrap` moves what is there"
            )
        # the context too: a wrapped key that was moved to another row must not be found here
        at = key_context(secret).encode() + b"\0" + secret.key
        found = self._cached.pop(at, None)
        if found is None or time.monotonic() >= found[1]:
            found = (await self._vault.unwrap(secret.key, key_context(secret)), time.monotonic() + CACHED_S)
        self._cached[at] = found
        while len(self._cached) > CACHED_MAX:
            self._cached.popitem(last=False)
        return found[0]


async def opened(values: SecretValues, found: list[Secret]) -> list[bytes]:
    """All of them, asking the vault for several at a time."""
    return list(await asyncio.gather(*(values.open(secret) for secret in found)))


def key_context(secret: Secret) -> str:
    """What its wrapped key is bound to."""
    return f"secret {secret.owner} {secret.id} {secret.name} {secret.revision}"


def _bound_to(secret: Secret) -> bytes:
    return json.dumps(["atoll secret", secret.owner, secret.id, secret.name, secret.revision]).encode()
