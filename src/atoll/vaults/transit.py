"""The transit engine of OpenBao or HashiCorp Vault: the master key never leaves it, and each use of it is in its audit.

A wrapped key is: version (1 byte), the transit key's version (4), and what the engine encrypted, bound to the context
as associated data and, where the key is a derived one, by the derivation too. Rotating the transit key leaves what was
wrapped before readable, until its `min_decryption_version` says otherwise; `atoll vault rewrap` brings all of it to the
newest.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import secrets
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from atoll.domain.errors import Corrupt, InvalidInput, Unavailable
from atoll.vaults.base import KEY_BYTES_MAX, KEY_BYTES_MIN, Vault
from atoll.vaults.http import Reply, VaultHttp

VERSION = b"\x01"
_KEY_VERSION = struct.Struct("!I")
_HEAD_BYTES = len(VERSION) + _KEY_VERSION.size
_CIPHERTEXT = re.compile(r"vault:v([1-9][0-9]{0,9}):([A-Za-z0-9+/=]+)")
KINDS = ("aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305")  # those with associated data
RENEW_FRACTION = 0.5  # of a token's life
_DAMAGED = "the wrapped key is damaged, or not of this context"


@dataclass(frozen=True, slots=True, repr=False)
class TransitAccess:
    """Where the engine is and who asks: a token, the file of one, or an AppRole."""

    url: str
    mount: str = "transit"
    key: str = "atoll"
    namespace: str | None = None
    token: str | None = None
    token_file: Path | None = None  # read anew when the token is refused: an agent may keep it fresh
    role_id: str | None = None
    secret_id: str | None = None
    secret_id_file: Path | None = None
    approle_mount: str = "approle"
    ca_file: Path | None = None
    timeout_s: float = 10.0


class Transit(Vault):
    name: ClassVar[str] = "transit"

    def __init__(self, access: TransitAccess) -> None:
        if not (access.token or access.token_file or access.role_id):
            raise InvalidInput(
                "vault.transit needs a token, a token_file, or a role_id with its secret_id",
                field="vault.transit.token",
            )
        self._access = access
        self._http = VaultHttp(access.url, "vault.transit.url", ca_file=access.ca_file, timeout_s=access.timeout_s)
        self._login = _Login(access, self._http)
        self._path = f"/v1/{_quoted(access.mount)}"

    async def start(self) -> None:
        """Get ready, and prove that a key can be wrapped and unwrapped."""
        try:
            await self._http.start()
            await self._check_key()
            probe = secrets.token_bytes(KEY_BYTES_MIN)
            if await self.unwrap(await self.wrap(probe, "probe"), "probe") != probe:
                raise Unavailable("the vault does not give back what it wrapped")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._login.forget()
        await self._http.close()

    async def wrap(self, key: bytes, context: str) -> bytes:
        if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
            raise InvalidInput(f"a data key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes, not {len(key)}", field="key")
        reply = await self._call("encrypt", {"plaintext": _text(key), **_bound(context)})
        found = _CIPHERTEXT.fullmatch(str(_data(reply).get("ciphertext", ""))) if reply.status == 200 else None
        if found is None:
            raise self._refused(reply)
        version = int(found[1])
        return VERSION + _KEY_VERSION.pack(version) + base64.b64decode(found[2])

    async def unwrap(self, wrapped: bytes, context: str) -> bytes:
        version = _KEY_VERSION.unpack(wrapped[1:_HEAD_BYTES])[0] if len(wrapped) > _HEAD_BYTES else 0
        if not wrapped.startswith(VERSION) or version == 0:  # the engine takes 0 for 1
            raise Corrupt("this is no key that a transit vault has wrapped")
        ciphertext = f"vault:v{version}:{_text(wrapped[_HEAD_BYTES:])}"
        reply = await self._call("decrypt", {"ciphertext": ciphertext, **_bound(context)})
        if reply.status == 400 and not _says_no_key(reply):
            raise Corrupt(f"{_DAMAGED} ({reply.reason})")
        if reply.status != 200:
            raise self._refused(reply)
        try:
            return base64.b64decode(str(_data(reply)["plaintext"]), validate=True)
        except (KeyError, binascii.Error):
            raise Unavailable(f"the vault at {self._http.place} does not speak as a transit engine does") from None

    async def _check_key(self) -> None:
        """InvalidInput unless there is such a key: an encryption with a missing one would make it, unasked."""
        own = self._access
        reply = await self._ask("GET", f"{self._path}/keys/{_quoted(own.key)}", None)
        if reply.status == 404:
            raise InvalidInput(
                f"the vault at {self._http.place} has no transit key {own.mount}/keys/{own.key}: "
                f"`bao write -f {own.mount}/keys/{own.key} derived=true` makes it",
                field="vault.transit.key",
            )
        kind = _data(reply).get("type")
        if reply.status == 200 and kind not in KINDS:
            raise InvalidInput(
                f"the transit key {own.key} is of type {kind}: it must be one of {', '.join(KINDS)}",
                field="vault.transit.key",
            )
        if reply.status not in (200, 403):  # a policy may allow no more than to encrypt and decrypt
            raise self._refused(reply)

    async def _call(self, operation: str, body: Mapping[str, Any]) -> Reply:
        return await self._ask("POST", f"{self._path}/{operation}/{_quoted(self._access.key)}", body)

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Reply:
        token = await self._login.token()
        reply = await self._http.ask(method, path, self._login.headers(token), body)
        if reply.status == 403 and self._login.again:
            token = await self._login.token(refused=token)
            reply = await self._http.ask(method, path, self._login.headers(token), body)
        return reply

    def _refused(self, reply: Reply) -> Unavailable:
        return Unavailable(f"the vault at {self._http.place} answers {reply.status}: {reply.reason or 'no reason'}")


class _Login:
    """The token that requests carry: given, read from its file, or got with an AppRole and kept until it ages."""

    def __init__(self, access: TransitAccess, http: VaultHttp) -> None:
        self._access = access
        self._http = http
        self._token: str | None = None
        self._until = 0.0
        self._lock = asyncio.Lock()

    @property
    def again(self) -> bool:
        """Whether there may be another token than the one that was refused."""
        return self._access.token is None

    def forget(self) -> None:
        self._token = None

    def headers(self, token: str | None) -> dict[str, str]:
        headers = {"X-Vault-Request": "true"}
        if token is not None:
            headers["X-Vault-Token"] = token
        if self._access.namespace:
            headers["X-Vault-Namespace"] = self._access.namespace
        return headers

    async def token(self, *, refused: str | None = None) -> str:
        if self._access.token is not None:
            return self._access.token
        async with self._lock:
            if self._token is None or self._token == refused or time.monotonic() >= self._until:
                self._token = None
                self._token = await (self._read() if self._access.token_file else self._log_in())
            return self._token

    async def _read(self) -> str:
        assert self._access.token_file is not None
        self._until = time.monotonic() + 60.0
        return await _read_secret(self._access.token_file, "vault.transit.token_file")

    async def _log_in(self) -> str:
        own = self._access
        secret_id = own.secret_id
        if own.secret_id_file is not None:
            secret_id = await _read_secret(own.secret_id_file, "vault.transit.secret_id_file")
        body = {"role_id": own.role_id, **({"secret_id": secret_id} if secret_id else {})}
        reply = await self._http.ask("POST", f"/v1/auth/{_quoted(own.approle_mount)}/login", self.headers(None), body)
        auth: Any = reply.value.get("auth")
        if reply.status != 200 or not isinstance(auth, dict) or "client_token" not in auth:
            raise Unavailable(f"the vault at {self._http.place} refuses the AppRole: {reply.reason or reply.status}")
        life_s = float(auth.get("lease_duration") or 0)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        self._until = time.monotonic() + (life_s * RENEW_FRACTION if life_s else 3600.0)
        return str(auth["client_token"])  # pyright: ignore[reportUnknownArgumentType]


async def _read_secret(file: Path, field: str) -> str:
    try:
        text = (await asyncio.to_thread(file.read_text)).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}", field=field) from None
    if not text or not text.isascii() or not text.isprintable():
        raise InvalidInput(f"{file} has no token in it", field=field)
    return text


def _bound(context: str) -> dict[str, str]:
    """As associated data; and for derived keys, which other keys ignore, to derive from."""
    bound = _text(context.encode() or b"\0")
    return {"associated_data": bound, "context": bound}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _data(reply: Reply) -> dict[str, Any]:
    data: Any = reply.value.get("data")
    return data if isinstance(data, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _says_no_key(reply: Reply) -> bool:
    return "key not found" in reply.reason


def _quoted(path: str) -> str:
    return quote(path.strip("/"), safe="/")
