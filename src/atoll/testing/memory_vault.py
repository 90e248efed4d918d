"""A vault in memory, for tests: its master key dies with it; `available` and `new_master_key` break it on demand."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import ClassVar

from atoll.domain.errors import Corrupt, InvalidInput, Unavailable
from atoll.vaults.base import KEY_BYTES_MAX, KEY_BYTES_MIN, Vault

_NONCE_BYTES = _TAG_BYTES = 32


class MemoryVault(Vault):
    """Not for secrets: a keystream of BLAKE2b under HMAC, so that tests need no cipher."""

    name: ClassVar[str] = "memory"

    def __init__(self) -> None:
        self.available = True
        self._master = secrets.token_bytes(32)

    def new_master_key(self) -> None:
        """From now on nothing that was wrapped before can be unwrapped."""
        self._master = secrets.token_bytes(32)

    async def start(self) -> None:
        self._check()

    async def close(self) -> None:
        pass

    async def wrap(self, key: bytes, context: str) -> bytes:
        self._check()
        if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
            raise InvalidInput(f"a data key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes, not {len(key)}", field="key")
        nonce = secrets.token_bytes(_NONCE_BYTES)
        body = nonce + self._hidden(key, nonce)
        return body + self._tag(body, context)

    async def unwrap(self, wrapped: bytes, context: str) -> bytes:
        self._check()
        body, tag = wrapped[:-_TAG_BYTES], wrapped[-_TAG_BYTES:]
        if len(body) < _NONCE_BYTES + KEY_BYTES_MIN or not hmac.compare_digest(tag, self._tag(body, context)):
            raise Corrupt("the wrapped key is damaged, or not of this vault and context")
        return self._hidden(body[_NONCE_BYTES:], body[:_NONCE_BYTES])

    def _check(self) -> None:
        if not self.available:
            raise Unavailable("the vault does not answer")

    def _hidden(self, key: bytes, nonce: bytes) -> bytes:
        stream = hashlib.blake2b(nonce, key=self._master, digest_size=64).digest()
        return bytes(a ^ b for a, b in zip(key, stream, strict=False))

    def _tag(self, body: bytes, context: str) -> bytes:
        return hmac.digest(self._master, body + b"\0" + context.encode(), "blake2s")
