"""Keys: make, list, revoke and recognise API keys; the door asks it on every request, the command line manages them.

A key's text exists here only while it is made or shown to the door; what is kept is its SHA-256.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from atoll.domain.errors import Conflict, InvalidInput, NotFound, StaleVersion, Unauthenticated
from atoll.domain.event import Event
from atoll.domain.ids import KEY_ID, new_key_id
from atoll.domain.key import DEFAULT_SCOPES, KEY_PREFIX_CHARS, ApiKey, KeyKind, Scope, hash_key, new_key_text
from atoll.domain.principal import Principal
from atoll.records.base import KeyUse, Records
from atoll.services.clock import Clock, utc_now
from atoll.services.key_cache import KeyCache
from atoll.services.key_uses import KeyUses

TEXT_CHARS_MAX = 256
NAME_CHARS_MAX = 255
EXPIRES_IN_DAYS_MAX = 3_650.0
REVOKE_ATTEMPTS = 5
KEY_PREFIX = re.compile(r"[a-z][a-z0-9]{0,7}_")
SCOPES = ", ".join(scope.value for scope in Scope)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its text, which nobody can ask for a second time."""

    key: ApiKey
    text: str


class Keys:
    """`cache_s` is how long another server on the same database may still take a key that was revoked here."""

    def __init__(
        self,
        records: Records,
        *,
        cache_s: float = 2.0,
        use_queue_items: int = 10_000,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._clock = clock
        self._cache = KeyCache(cache_s, monotonic)
        self._uses = KeyUses(records, use_queue_items)

    async def start(self) -> None:
        """Begin to write the use log."""
        self._uses.start()

    async def close(self) -> None:
        """Write what is left of the use log; a second call does nothing."""
        await self._uses.close()

    async def create(
        self,
        name: str,
        *,
        kind: KeyKind = KeyKind.STANDARD,
        scopes: frozenset[Scope] = DEFAULT_SCOPES,
        expires_in_days: float | None = None,
        prefix: str = "sk_",
        text: str | None = None,
        owner: str = "",
        parent: str | None = None,
        resources: frozenset[str] | None = None,
        budget_micro_usd: int | None = None,
        plan: str = "",
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        actor: str = "system",
        request_id: str | None = None,
    ) -> NewKey:
        """Make a key; `text` is for one that was drawn before (the owner key). InvalidInput names the wrong field.

        Whether somebody may make it, with that owner and those bounds, is for the caller to say.
        """
        _check(name, scopes, expires_in_days, prefix)
        text = text or new_key_text(prefix)
        now = self._clock()
        expires_at = None if expires_in_days is None else now + timedelta(days=expires_in_days)
        key = ApiKey(
            id=new_key_id(),
            hash=hash_key(text),
            prefix=text[:KEY_PREFIX_CHARS],
            name=name,
            kind=kind,
            scopes=scopes,
            created_at=now,
            expires_at=expires_at,
            owner=owner,
            parent=parent,
            resources=resources,
            budget_micro_usd=budget_micro_usd,
            plan=plan,
            description=description,
            metadata=dict(metadata or {}),
        )
        detail: dict[str, object] = {"name": name, "kind": kind.value, "scopes": sorted(scopes), "prefix": key.prefix}
        await self._records.add_key(key, self._event("key.created", key, actor, request_id, detail))
        self._cache.forget(key.hash)  # it may be remembered as unknown
        return NewKey(key, text)

    async def list(self, *, owner: str | None = None, include_revoked: bool = False) -> list[ApiKey]:
        """Oldest first; everybody's, or one owner's."""
        return await self._records.list_keys(owner=owner, include_revoked=include_revoked)

    async def revoke(self, key_id: str, *, actor: str = "system", request_id: str | None = None) -> ApiKey:
        """End a key: the next request with it is refused. NotFound for an unknown one; again is no error."""
        for _ in range(REVOKE_ATTEMPTS):
            key = await self._records.get_key(key_id) if KEY_ID.match(key_id) else None
            if key is None:
                raise NotFound(f"key {key_id} not found")
            if key.revoked_at is not None:
                return key
            event = self._event("key.revoked", key, actor, request_id, {"name": key.name})
            try:
                revoked = await self._records.swap_key(replace(key, revoked_at=self._clock()), event)
            except StaleVersion:
                continue
            finally:
                # Also when the answer was lost: the change may have been made.
                self._cache.forget(key.hash)
            return revoked
        raise Conflict(f"key {key_id} keeps changing: try again")

    async def authenticate(self, text: str) -> Principal:
        """Who holds this key. Unauthenticated when it is unknown, expired or revoked, without saying which."""
        if len(text) > TEXT_CHARS_MAX or not text.isascii():
            raise Unauthenticated
        digest = hash_key(text)
        key = await self._cache.get(digest, self._records.find_key)
        # The index compared the digests already; this comparison tells nothing by its duration.
        if key is None or not hmac.compare_digest(key.hash, digest) or not key.usable(self._clock()):
            raise Unauthenticated
        return Principal(
            id=key.owner,
            kind=key.kind,
            scopes=key.scopes,
            name=key.name,
            credential=key.id,
            resources=key.resources,
            plan=key.plan,
            admin=key.kind is KeyKind.OWNER,
        )

    async def any_usable(self) -> bool:
        """Whether at least one key would be accepted now."""
        now = self._clock()
        return any(key.usable(now) for key in await self._records.list_keys())

    def log_use(
        self,
        key_id: str,
        *,
        endpoint: str,
        method: str,
        status_code: int,
        ip_address: str | None,
        user_agent: str | None,
    ) -> None:
        """Note one request for `api_key_usage`; never waits. What does not fit the queue is dropped and counted."""
        self._uses.add(KeyUse(key_id, endpoint, method, status_code, self._clock(), ip_address, user_agent))

    @property
    def dropped_uses(self) -> int:
        """Uses that were never logged, because the queue was full or the store refused them."""
        return self._uses.dropped

    def _event(self, action: str, key: ApiKey, actor: str, request_id: str | None, detail: dict[str, object]) -> Event:
        return Event(action, key.id, key.owner, actor, request_id=request_id, detail=detail, at=self._clock())


def _check(name: str, scopes: frozenset[Scope], expires_in_days: float | None, prefix: str) -> None:
    if not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise InvalidInput(f"name must be 1 to {NAME_CHARS_MAX} printable characters", field="name")
    if not scopes:
        raise InvalidInput(f"scopes must be some of {SCOPES}", field="scopes")
    if expires_in_days is not None and not 0 < expires_in_days <= EXPIRES_IN_DAYS_MAX:
        raise InvalidInput(
            f"expires_in_days must be above 0 and at most {EXPIRES_IN_DAYS_MAX:g}", field="expires_in_days"
        )
    if not KEY_PREFIX.fullmatch(prefix):
        raise InvalidInput("prefix must be 1 to 8 lower-case letters and digits and an underscore", field="prefix")
