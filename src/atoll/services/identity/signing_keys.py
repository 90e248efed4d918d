"""SigningKeys: the keys that sign access tokens, and everybody's proof of them; the tokens service uses it.

The private ones lie in the records under a data key that the vault has wrapped. A key signs for a while, the next one
takes its place, and what it signed holds until it expires by itself.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_public_key,
)
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from atoll.domain.errors import Conflict, Corrupt, Unavailable
from atoll.domain.event import SYSTEM, Event
from atoll.domain.ids import new_id
from atoll.domain.tree import chunk_id
from atoll.domain.user import SigningKey
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.deadline import deadline
from atoll.services.workspaces.storage.sealing import KEY_BYTES, Sealer
from atoll.vaults.base import Vault

PrivateKey = Ed25519PrivateKey | RSAPrivateKey
PublicKey = Ed25519PublicKey | RSAPublicKey

EDDSA, RS256 = "EdDSA", "RS256"
RSA_BITS = 3_072
LABEL = chunk_id(b"private signing key")
ATTEMPTS = 5
LOOK_AGAIN_S = 0.2  # the least time between two looks for keys that are not known here
SIGNER_S = 20.0  # for the vault and the records
KEPT_S = 86_400.0  # that a key outlives the last token that it signed, in the records


class SigningKeys:
    """`outlived_s` is how long a token may last: a key that retired verifies for so long."""

    def __init__(
        self,
        records: Records,
        vault: Vault,
        *,
        algorithm: str = EDDSA,
        rotate_s: float = 30 * 86_400.0,
        outlived_s: float = 3_600.0,
        cache_s: float = 2.0,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._vault = vault
        self._algorithm = algorithm
        self._rotate = timedelta(seconds=rotate_s)
        self._outlived = timedelta(seconds=outlived_s)
        self._cache_s = cache_s
        self._clock = clock
        self._monotonic = monotonic
        self._listed: list[SigningKey] = []
        self._looked_s = -1e9
        self._looking = asyncio.Lock()
        self._making = asyncio.Lock()
        self._private: tuple[str, PrivateKey] | None = None
        self._public: dict[str, PublicKey] = {}

    async def signer(self) -> tuple[SigningKey, PrivateKey]:
        """The key that signs now; made, or replaced, when it is time. Unavailable when the vault is."""
        async with deadline(SIGNER_S, "opening the signing key"), self._making:
            for _ in range(ATTEMPTS):
                key = _signing(await self._list())
                due = key is None or key.algorithm != self._algorithm or key.created_at + self._rotate <= self._clock()
                if key is not None and not due:
                    return key, await self._open(key)
                await self._make(None if key is None else key.id, SYSTEM)
        raise Conflict("the signing key keeps changing: try again")

    async def public(self, key_id: str | None) -> tuple[str, PublicKey] | None:
        """The algorithm and the key of that id, while it verifies; None for any other."""
        if key_id is None:
            return None
        found = _with_id(await self._list(), key_id)
        if found is None:  # another process may have made it a moment ago
            found = _with_id(await self._list(anew=True, pause_s=LOOK_AGAIN_S), key_id)
        if found is None or not self._verifies(found, self._clock()):
            return None
        if key_id not in self._public:
            self._public[key_id] = _public(found)
        return found.algorithm, self._public[key_id]

    async def jwks(self) -> dict[str, Any]:
        """The JSON Web Key Set (RFC 7517) of all keys that verify."""
        now = self._clock()
        return {"keys": [_jwk(key) for key in await self._list() if self._verifies(key, now)]}

    async def rotate(self, actor: str, *, revoke: bool = False) -> SigningKey:
        """Let another key sign from now on. With `revoke` what the others signed is refused at once, everywhere within
        `cache_s`: for when a key got out."""
        async with self._making:
            for _ in range(ATTEMPTS):
                old = _signing(await self._list(anew=True))
                if await self._make(None if old is None else old.id, actor):
                    break
            else:
                raise Conflict("the signing key keeps changing: try again")
            made = _signing(self._listed)
            assert made is not None
            if revoke:
                for key in [one for one in self._listed if one.id != made.id]:
                    await self._delete(key, actor)
                await self._list(anew=True)
        return made

    async def _make(self, retires: str | None, actor: str) -> bool:
        key_id, now = new_id("sig"), self._clock()
        private = await asyncio.to_thread(_generate, self._algorithm)
        data_key = secrets.token_bytes(KEY_BYTES)
        secret = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        shown = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        key = SigningKey(
            id=key_id,
            algorithm=self._algorithm,
            public=shown.decode(),
            sealed=Sealer(data_key, key_id).seal(LABEL, secret),
            wrapped=await self._vault.wrap(data_key, key_id),
            vault=self._vault.name,
            created_at=now,
        )
        event = Event("signing_key.created", key_id, SYSTEM, actor, detail={"algorithm": key.algorithm}, at=now)
        made = await self._records.add_signing_key(key, event, retires=retires)
        for old in await self._list(anew=True):
            if old.retired_at is not None and old.retired_at + self._outlived + timedelta(seconds=KEPT_S) < now:
                await self._delete(old, SYSTEM)
        return made

    async def _delete(self, key: SigningKey, actor: str) -> None:
        event = Event("signing_key.deleted", key.id, SYSTEM, actor, at=self._clock())
        await self._records.delete_signing_key(key.id, event)

    async def _open(self, key: SigningKey) -> PrivateKey:
        if self._private is None or self._private[0] != key.id:
            if key.vault != self._vault.name:
                raise Unavailable(
                    f"the signing key needs the vault {key.vault!r}; this server has {self._vault.name!r}"
                )
            data_key = await self._vault.unwrap(key.wrapped, key.id)
            private = load_der_private_key(Sealer(data_key, key.id).open(LABEL, key.sealed), None)
            if not isinstance(private, PrivateKey):
                raise Corrupt(f"the signing key {key.id} is of another kind than was stored")
            self._private = (key.id, private)
        return self._private[1]

    async def _list(self, *, anew: bool = False, pause_s: float = 0.0) -> list[SigningKey]:
        """All keys, at most `cache_s` old; `anew`: as they are now, `pause_s` after the last look at the soonest."""
        asked_s = self._monotonic()
        if not anew and asked_s < self._looked_s + self._cache_s:
            return self._listed
        async with self._looking:
            if self._looked_s > asked_s:
                return self._listed  # somebody looked since this call began
            if pause_s and (wait_s := self._looked_s + pause_s - asked_s) > 0:
                await asyncio.sleep(wait_s)
            began_s = self._monotonic()
            self._listed = await self._records.list_signing_keys()
            self._looked_s = began_s
            known = {key.id for key in self._listed}
            self._public = {key_id: key for key_id, key in self._public.items() if key_id in known}
            return self._listed

    def _verifies(self, key: SigningKey, now: datetime) -> bool:
        return key.retired_at is None or now < key.retired_at + self._outlived


def _signing(keys: list[SigningKey]) -> SigningKey | None:
    return next((key for key in keys if key.retired_at is None), None)


def _with_id(keys: list[SigningKey], key_id: str) -> SigningKey | None:
    return next((key for key in keys if key.id == key_id), None)


def _generate(algorithm: str) -> PrivateKey:
    return Ed25519PrivateKey.generate() if algorithm == EDDSA else generate_private_key(65_537, RSA_BITS)


def _public(key: SigningKey) -> PublicKey:
    public = load_pem_public_key(key.public.encode())
    if not isinstance(public, PublicKey):
        raise Corrupt(f"the signing key {key.id} is of another kind than was stored")
    return public


def _jwk(key: SigningKey) -> dict[str, Any]:
    public = _public(key)
    if isinstance(public, Ed25519PublicKey):
        shown = OKPAlgorithm.to_jwk(public, as_dict=True)
    else:
        shown = RSAAlgorithm.to_jwk(public, as_dict=True)
    shown = {name: value for name, value in shown.items() if name != "key_ops"}
    return shown | {"kid": key.id, "alg": key.algorithm, "use": "sig"}
