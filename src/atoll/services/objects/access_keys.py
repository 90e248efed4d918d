"""Access keys: made, listed, ended, and recognised by what they signed; each signs for the API key that made it.

The object-store door asks for the secret of an id, checks the signature itself, and passes `credential` on to the door
of every surface: Identity asks here what that text means. It is good in this process only, is never sent and never
stored, and no client can guess one.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from atoll.domain.access_key import ACCESS_KEY_ID, AccessKey, access_key_context
from atoll.domain.errors import InvalidInput, NotFound, Unauthenticated
from atoll.domain.event import Event
from atoll.domain.ids import KEY_ID, new_id
from atoll.domain.key import ApiKey
from atoll.domain.principal import Principal
from atoll.domain.user import USER_ID
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.standing import Standing
from atoll.services.keys import Keys
from atoll.services.remembered import Remembered
from atoll.vaults.base import Vault

SECRET_BYTES = 30  # 40 characters, as clients of object stores know them
PER_KEY = 8
CACHED_MAX = 1_024
CACHED_S = 60.0  # an unwrapped secret; whether its key still stands is asked each time


class NoAccessKey(NotFound):
    """There is no such access key, or it is somebody else's."""


@dataclass(frozen=True, slots=True)
class NewAccessKey:
    """One with its secret, which is shown this once."""

    access: AccessKey
    secret: str = field(repr=False)


class AccessKeys:
    """`cache_s` is how long another server on the same database may still take one that was ended here."""

    def __init__(
        self,
        records: Records,
        vault: Vault,
        keys: Keys,
        standing: Standing | None = None,
        *,
        cache_s: float = 2.0,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._vault = vault
        self._keys = keys
        self._standing = standing
        self._clock = clock
        self._monotonic = monotonic
        self._known = Remembered[AccessKey | None](lambda name: records.get_access_key(name), cache_s, monotonic)
        self._opened: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._mark = secrets.token_hex(32)

    async def create(self, principal: Principal) -> NewAccessKey:
        """One for the API key that the principal came with. InvalidInput when it came with something else;
        QuotaExceeded."""
        if not KEY_ID.match(principal.credential):
            raise InvalidInput("access keys sign for an API key: make one, and ask with it", field="credential")
        key = await self._keys.get(principal.credential)
        if key is None:
            raise Unauthenticated
        return await self.create_for(key, actor=principal.id)

    async def create_for(self, key: ApiKey, *, actor: str = "system") -> NewAccessKey:
        """One for that API key. NotFound when it is gone, QuotaExceeded."""
        access_id, value = new_id("hmac"), secrets.token_bytes(SECRET_BYTES)
        wrapped = await self._vault.wrap(value, access_key_context(access_id))
        access = AccessKey(access_id, key.id, key.hash, key.owner, self._clock(), self._vault.name, wrapped)
        await self._records.add_access_key(access, self._event("access_key.created", access, actor), quota=PER_KEY)
        self._known.forget(access_id)
        return NewAccessKey(access, _text(value))

    async def list(self, principal: Principal) -> list[AccessKey]:
        """Those of the API key that the principal came with; of all its keys, for who came otherwise. Oldest first."""
        if KEY_ID.match(principal.credential):
            return await self._records.list_access_keys(key=principal.credential)
        return await self._records.list_access_keys(owner=principal.id)

    async def revoke(self, principal: Principal, access_id: str) -> AccessKey:
        """End one of those that `list` shows. NoAccessKey."""
        found = next((one for one in await self.list(principal) if one.id == access_id), None)
        if found is None:
            raise NoAccessKey
        await self.end(found, actor=principal.id)
        return found

    async def end(self, access: AccessKey, *, actor: str = "system") -> None:
        """Forget it: the next request that it signs is refused. NoAccessKey when it is gone already."""
        try:
            await self._records.delete_access_key(access.id, self._event("access_key.revoked", access, actor))
        except NotFound:
            raise NoAccessKey from None
        finally:
            self._known.forget(access.id)

    # what signs requests

    async def secret(self, access_id: str) -> str | None:
        """What it signs with; None when it is unknown, or its API key opens nothing any more. Unavailable, Corrupt."""
        access = await self._known.get(access_id) if ACCESS_KEY_ID.match(access_id) else None
        if access is None:
            return None
        try:
            await self._principal(access)
        except Unauthenticated:
            return None
        return await self._open(access)

    def credential(self, access_id: str) -> str:
        """What stands for it in this process, once a request has proved that it comes from who has the secret."""
        return f"{access_id}:{self._mark}"

    def recognises(self, text: str) -> bool:
        return text.endswith(self._mark)

    async def authenticate(self, text: str) -> Principal:
        """Whose API key it signs for. Unauthenticated when it, or its key, has ended."""
        access = await self._known.get(text.partition(":")[0])
        if access is None or not secrets.compare_digest(text, self.credential(access.id)):
            raise Unauthenticated
        return await self._principal(access)

    async def _principal(self, access: AccessKey) -> Principal:
        principal = await self._keys.principal(access.key, access.key_hash)
        if self._standing is not None and USER_ID.match(principal.id):
            await self._standing.user(principal.id)  # a key ends with its user
        return principal

    async def _open(self, access: AccessKey) -> str:
        at = access.id.encode() + b"\0" + access.secret
        found = self._opened.pop(at, None)
        if found is None or self._monotonic() >= found[1]:
            value = await self._vault.unwrap(access.secret, access_key_context(access.id))
            found = (_text(value), self._monotonic() + CACHED_S)
        self._opened[at] = found
        while len(self._opened) > CACHED_MAX:
            self._opened.popitem(last=False)
        return found[0]

    def _event(self, action: str, access: AccessKey, actor: str) -> Event:
        return Event(action, access.id, tenant=access.owner, actor=actor, detail={"key": access.key}, at=self._clock())


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
