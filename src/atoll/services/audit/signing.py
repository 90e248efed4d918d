"""The keys that sign checkpoints: Ed25519, wrapped by the vault. Whoever can write the records still cannot sign."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from atoll.domain.checkpoint import AuditKey
from atoll.domain.errors import AtollError, Conflict, Corrupt, NotFound
from atoll.domain.event import SYSTEM, Event
from atoll.domain.ids import new_id
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.vaults.base import Vault

SEED_BYTES = 32


class Signing:
    """Makes, opens and checks keys; records and vault are started."""

    def __init__(self, records: Records, vault: Vault, clock: Clock = utc_now) -> None:
        self._records = records
        self._vault = vault
        self._clock = clock

    async def open(self) -> Signer:
        """What signs now: the newest key, or the first one, made now."""
        keys = await self._records.list_audit_keys()
        if keys:
            return Signer(keys[-1].id, await self._private(keys[-1]))
        try:
            return await self._make(first=True)
        except Conflict:  # another server was first
            return await self.open()

    async def rotate(self, actor: str) -> Signer:
        """A new key, which signs from now on; the others go on proving what they signed."""
        return await self._make(first=False, actor=actor)

    async def proved(self) -> tuple[dict[str, Ed25519PublicKey], list[str]]:
        """The public keys whose private halves this vault has wrapped, by id; and why others are not among them.

        A key that somebody put into the records is not one of ours: nobody wraps one without the vault.
        """
        known: dict[str, Ed25519PublicKey] = {}
        wrong: list[str] = []
        for key in await self._records.list_audit_keys():
            try:
                public = (await self._private(key)).public_key()
            except AtollError as error:
                wrong.append(f"the key {key.id} cannot be trusted: {error.message}")
                continue
            if public.public_bytes_raw() != key.public:
                wrong.append(f"the key {key.id} has another public half than the one that is stored")
            known[key.id] = public
        return known, wrong

    async def current(self) -> AuditKey:
        """The newest key. NotFound before a server has started for the first time."""
        keys = await self._records.list_audit_keys()
        if not keys:
            raise NotFound("there is no key for checkpoints yet: a server makes it when it starts")
        return keys[-1]

    async def _make(self, *, first: bool, actor: str = SYSTEM) -> Signer:
        seed = secrets.token_bytes(SEED_BYTES)
        private = Ed25519PrivateKey.from_private_bytes(seed)
        key_id = new_id("ak")
        wrapped = await self._vault.wrap(seed, key_context(key_id))
        public = private.public_key().public_bytes_raw()
        event = Event("audit.key_created", key_id, SYSTEM, actor, detail={"public": public.hex()}, at=self._clock())
        key = AuditKey(key_id, public, self._vault.name, wrapped, self._clock())
        await self._records.add_audit_key(key, first=first, event=event)
        return Signer(key_id, private)

    async def _private(self, key: AuditKey) -> Ed25519PrivateKey:
        if key.vault != self._vault.name:
            raise Corrupt(f"it is wrapped by the vault {key.vault!r}, and the settings name {self._vault.name!r}")
        seed = await self._vault.unwrap(key.key, key_context(key.id))
        if len(seed) != SEED_BYTES:
            raise Corrupt("what is wrapped is no such key")
        return Ed25519PrivateKey.from_private_bytes(seed)


class Signer:
    """A key at hand."""

    def __init__(self, key_id: str, private: Ed25519PrivateKey) -> None:
        self.key_id = key_id
        self._private = private

    def sign(self, digest: bytes) -> bytes:
        return self._private.sign(digest)


def is_signed(key: Ed25519PublicKey, signature: bytes, digest: bytes) -> bool:
    """Whether the signature is the key's over that digest."""
    try:
        key.verify(signature, digest)
    except InvalidSignature:
        return False
    return True


def key_context(key_id: str) -> str:
    """What a wrapped key is bound to."""
    return f"audit key {key_id}"
