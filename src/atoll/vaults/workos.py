"""WorkOS Vault: data keys come from its HTTP API, each encrypted by a key of its that never leaves it.

To wrap a key it is asked for a data key, under which ours is encrypted here; unwrapping asks it to decrypt that data
key again. A wrapped key is: version (1 byte), length of the encrypted data key (2), that, a nonce (12), and
AES-256-GCM of our key with all before it and the context as associated data. The API is described at
workos.com/docs/reference/vault/key.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import struct
from collections.abc import Mapping
from typing import Any, ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from atoll.domain.errors import Corrupt, InvalidInput, Unavailable
from atoll.vaults.base import KEY_BYTES_MAX, KEY_BYTES_MIN, Vault
from atoll.vaults.http import Reply, VaultHttp

VERSION = b"\x01"
_LENGTH = struct.Struct("!H")
_HEAD_BYTES = len(VERSION) + _LENGTH.size
NONCE_BYTES, TAG_BYTES = 12, 16
DATA_KEY_BYTES = (16, 24, 32)  # that AES takes


class Workos(Vault):
    """`key_context` is by what WorkOS finds its key: the organization, say. It is no secret."""

    name: ClassVar[str] = "workos"

    def __init__(self, url: str, api_key: str, key_context: Mapping[str, str], *, timeout_s: float = 10.0) -> None:
        if not key_context:
            raise InvalidInput("vault.workos.context must name at least one value", field="vault.workos.context")
        self._http = VaultHttp(url, "vault.workos.url", timeout_s=timeout_s)
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._key_context = dict(key_context)

    async def start(self) -> None:
        """Get ready, and prove that a key can be wrapped and unwrapped."""
        try:
            await self._http.start()
            probe = secrets.token_bytes(KEY_BYTES_MIN)
            if await self.unwrap(await self.wrap(probe, "probe"), "probe") != probe:
                raise Unavailable("the vault does not give back what it wrapped")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._http.close()

    async def wrap(self, key: bytes, context: str) -> bytes:
        if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
            raise InvalidInput(f"a data key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes, not {len(key)}", field="key")
        reply = await self._ask("data-key", {"context": self._key_context})
        data_key = self._data_key(reply)
        encrypted = _decoded(reply.value.get("encrypted_keys"))
        if not encrypted or len(encrypted) >= 2**16:
            raise self._refused(reply)
        nonce = secrets.token_bytes(NONCE_BYTES)
        head = VERSION + _LENGTH.pack(len(encrypted)) + encrypted + nonce
        return head + AESGCM(data_key).encrypt(nonce, key, head + context.encode())

    async def unwrap(self, wrapped: bytes, context: str) -> bytes:
        if not wrapped.startswith(VERSION) or len(wrapped) < _HEAD_BYTES:
            raise Corrupt("this is no key that WorkOS Vault has wrapped")
        end = _HEAD_BYTES + _LENGTH.unpack(wrapped[1:_HEAD_BYTES])[0]
        head, nonce, text = wrapped[: end + NONCE_BYTES], wrapped[end : end + NONCE_BYTES], wrapped[end + NONCE_BYTES :]
        if len(nonce) < NONCE_BYTES or len(text) < KEY_BYTES_MIN + TAG_BYTES:
            raise Corrupt("this is no key that WorkOS Vault has wrapped")
        reply = await self._ask("decrypt", {"keys": base64.b64encode(wrapped[_HEAD_BYTES:end]).decode()})
        if reply.status in (400, 404, 422):
            raise Corrupt(f"the vault does not know this data key ({reply.reason or reply.status})")
        try:
            return AESGCM(self._data_key(reply)).decrypt(nonce, text, head + context.encode())
        except InvalidTag:
            raise Corrupt("the wrapped key is damaged, or not of this context") from None

    async def _ask(self, operation: str, body: Mapping[str, Any]) -> Reply:
        return await self._http.ask("POST", f"/vault/v1/keys/{operation}", self._headers, body)

    def _data_key(self, reply: Reply) -> bytes:
        key = _decoded(reply.value.get("data_key")) if reply.status in (200, 201) else b""
        if len(key) not in DATA_KEY_BYTES:
            raise self._refused(reply)
        return key

    def _refused(self, reply: Reply) -> Unavailable:
        return Unavailable(f"the vault at {self._http.place} answers {reply.status}: {reply.reason or 'no reason'}")


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except binascii.Error:
        return b""
