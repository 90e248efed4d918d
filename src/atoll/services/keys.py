"""Keys: make, list, revoke and recognise API keys; the door asks it on every request, the command line manages them.

A key's text exists here only while it is made or shown to the door; what is kept is its SHA-256.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Unpack

from atoll.domain.errors import Conflict, NotFound, StaleVersion, Unauthenticated
from atoll.domain.event import Event
from atoll.domain.ids import KEY_ID, bootstrap_key_id
from atoll.domain.key import KEY_PREFIX_CHARS, ApiKey, KeyKind, Scope, hash_key, new_key_text
from atoll.domain.principal import Principal
from atoll.domain.quota import QuotaChange
from atoll.domain.rate import Rate
from atoll.records.base import KeyUse, Records
from atoll.services.clock import Clock, utc_now
from atoll.services.key_lineage import ancestors
from atoll.services.key_rules import check_key, check_plan
from atoll.services.key_uses import KeyUses
from atoll.services.new_keys import NewKey, OwnedKeyTerms, new_key
from atoll.services.remembered import Remembered

TEXT_CHARS_MAX = 256
CHANGE_ATTEMPTS = 5


class ExpiredKey(Unauthenticated):
    """A valid API key is required: Authorization: Bearer <key>."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a key still gives, after what those lost that it comes from."""

    key: ApiKey
    scopes: frozenset[Scope]
    lineage: tuple[str, ...]  # itself, what made it, and so on
    rate: Rate | None
    rated_as: str  # under whose name its requests count


class Keys:
    """`cache_s` is how long another server on the same database may still take a key that was revoked here;
    `bootstrap` are the texts of the keys that the settings name, `plans` the names of the plans that there are."""

    def __init__(
        self,
        records: Records,
        *,
        cache_s: float = 2.0,
        use_queue_items: int = 10_000,
        bootstrap: Collection[str] = (),
        plans: Collection[str] | None = None,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._clock = clock
        self._bootstrap = frozenset(map(hash_key, bootstrap))
        self._plans = plans
        self._by_hash = Remembered[ApiKey | None](lambda digest: records.find_key(digest), cache_s, monotonic)
        self._by_id = Remembered[ApiKey | None](lambda key_id: records.get_key(key_id), cache_s, monotonic)
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
        text: str | None = None,
        key_id: str | None = None,
        actor: str = "system",
        **terms: Unpack[OwnedKeyTerms],
    ) -> NewKey:
        """Make a key; `text`, and `key_id`, are for one that was drawn before. InvalidInput names the wrong field.

        Whether somebody may make it, with that owner and those bounds, is for the caller to say.
        """
        check_key(
            name=name,
            scopes=terms.get("scopes"),
            expires_in_days=terms.get("expires_in_days"),
            prefix=terms.get("prefix"),
            plan=terms.get("plan", ""),
            description=terms.get("description"),
            metadata=terms.get("metadata"),
            rate=terms.get("rate"),
        )
        check_plan(terms.get("plan", ""), self._plans)
        made = new_key(name, self._clock(), text=text, key_id=key_id, **terms)
        key = made.key
        detail: dict[str, object] = {
            "name": name, "kind": key.kind.value, "scopes": sorted(key.scopes), "prefix": key.prefix
        }  # fmt: skip
        await self._records.add_key(key, self._event("key.created", key, actor, detail))
        self._forget(key)  # it may be remembered as unknown
        return made

    async def list(self, *, owner: str | None = None, include_revoked: bool = False) -> list[ApiKey]:
        """Oldest first; everybody's, or one owner's."""
        return await self._records.list_keys(owner=owner, include_revoked=include_revoked)

    async def revoke(self, key_id: str, *, actor: str = "system") -> ApiKey:
        """End a key: the next request with it is refused. NotFound for an unknown one; again is no error."""

        def end(key: ApiKey) -> ApiKey:
            return key if key.revoked_at is not None else replace(key, revoked_at=self._clock())

        return await self.change(key_id, end, "key.revoked", actor=actor)

    async def as_it_stands(self, key: ApiKey) -> ApiKey:
        """The key as people are shown it: revoked, where one that it comes from was revoked, is gone or is none of the
        settings' any more."""
        if key.revoked_at is not None:
            return key
        for above in await ancestors(key, self._records.get_key):
            if above is None or not self._stands(above):
                ended_at = None if above is None else above.revoked_at
                return replace(key, revoked_at=ended_at or self._clock())
        return key

    async def rotate(self, key_id: str, *, actor: str = "system") -> NewKey:
        """Give a key another text: the old one opens nothing any more, nor does any key that it made, on other servers
        within `cache_s`: who had the old text may have made them. Conflict for one that has ended, or ended with what
        made it."""
        text = ""
        key = await self.get(key_id)
        if key is not None and key.revoked_at is None and (await self.as_it_stands(key)).revoked_at is not None:
            raise Conflict("the key has ended with the one that made it")

        def renew(key: ApiKey) -> ApiKey:
            nonlocal text
            if not key.usable(self._clock()):
                raise Conflict("the key is revoked or has expired")
            text = new_key_text(f"{key.prefix.rpartition('_')[0] or 'sk'}_")
            return replace(key, hash=hash_key(text), prefix=text[:KEY_PREFIX_CHARS])

        made = await self.change(key_id, renew, "key.rotated", actor=actor, children_end="key.revoked")
        for child in await self._records.list_child_keys(key_id):
            self._forget(child)
        return NewKey(made, text)

    async def change(
        self,
        key_id: str,
        alter: Callable[[ApiKey], ApiKey],
        action: str,
        *,
        actor: str = "system",
        quotas: QuotaChange | None = None,
        children_end: str | None = None,
    ) -> ApiKey:
        """Store what `alter` makes of a key, and a change of its quotas, in one; nothing when both change nothing.
        With `children_end`, an action, the keys that it made end. NotFound for an unknown one."""
        for _ in range(CHANGE_ATTEMPTS):
            key = await self.get(key_id)
            if key is None:
                raise NotFound(f"key {key_id} not found")
            altered = alter(key)
            if altered == key and quotas is None:
                return key
            event = self._event(action, key, actor, {"name": altered.name})
            try:
                ended = None
                if children_end is not None:
                    ended = self._event(children_end, key, actor, {"reason": action})
                return await self._records.swap_key(altered, event, quotas=quotas, children_end=ended)
            except StaleVersion:
                continue
            finally:
                # Also when the answer was lost: the change may have been made.
                self._forget(key)
                self._forget(altered)
        raise Conflict(f"key {key_id} keeps changing: try again")

    async def get(self, key_id: str) -> ApiKey | None:
        """The key of an id, dead or alive."""
        return await self._records.get_key(key_id) if KEY_ID.match(key_id) else None

    async def delete(self, key_id: str, *, actor: str = "system") -> None:
        """Forget a key and what it was used for. NotFound for an unknown one; Conflict while it is the only admin of
        a group."""
        key = await self.get(key_id)
        if key is None:
            raise NotFound(f"key {key_id} not found")
        event = self._event("key.deleted", key, actor, {"name": key.name, "prefix": key.prefix})
        try:
            await self._records.delete_key(key_id, event)
        finally:
            self._forget(key)

    async def authenticate(self, text: str) -> Principal:
        """Who holds this key. Unauthenticated when it is unknown, expired or revoked, without saying which."""
        if len(text) > TEXT_CHARS_MAX or not text.isascii():
            raise Unauthenticated
        digest = hash_key(text)
        key = await self._by_hash.get(digest)
        # The index compared the digests already; this comparison tells nothing by its duration.
        if key is None or not hmac.compare_digest(key.hash, digest) or not self._stands(key):
            raise Unauthenticated
        if not key.usable(self._clock()):
            raise ExpiredKey
        return await self._principal(key)

    async def principal(self, key_id: str, key_hash: str) -> Principal:
        """Who holds the key of that id, for who has proved it otherwise than by its text, whose hash it was then.
        Unauthenticated as of `authenticate`, and when the key has another text by now."""
        key = await self._by_id.get(key_id)
        if key is None or key.hash != key_hash or not self._stands(key):
            raise Unauthenticated
        if not key.usable(self._clock()):
            raise ExpiredKey
        return await self._principal(key)

    async def _principal(self, key: ApiKey) -> Principal:
        left = await self._left(key)
        return Principal(
            id=key.owner,
            kind=key.kind,
            scopes=left.scopes,
            name=key.name,
            credential=key.id,
            resources=key.resources,
            plan=key.plan,
            rate=left.rate,
            admin=key.kind is KeyKind.OWNER,
            lineage=left.lineage,
            rated_as=left.rated_as,
        )

    async def left(self, key_id: str) -> Left:
        """What a key gives now to what comes from it. Unauthenticated when it, or one that it comes from, has ended."""
        key = await self._by_id.get(key_id)
        if key is None or not self._stands(key) or not key.usable(self._clock()):
            raise Unauthenticated
        return await self._left(key)

    async def _left(self, key: ApiKey) -> Left:
        scopes, rate, rated_as, lineage, now = key.scopes, key.rate, key.id, [key.id], self._clock()
        for above in await ancestors(key, self._by_id.get):
            if above is None or not self._stands(above) or not above.usable(now):
                raise Unauthenticated
            if rate is None:  # it counts with what made it, unless it was given a rate itself
                rate, rated_as = above.rate, above.id
            scopes &= above.scopes
            lineage.append(above.id)
        return Left(key, scopes, tuple(lineage), rate, rated_as)

    async def any_usable(self) -> bool:
        """Whether at least one key would be accepted now."""
        now = self._clock()
        return any(key.usable(now) and self._stands(key) for key in await self._records.list_keys())

    def _forget(self, key: ApiKey) -> None:
        self._by_hash.forget(key.hash)
        self._by_id.forget(key.id)

    def _stands(self, key: ApiKey) -> bool:
        """Whether it is neither revoked nor one of the settings that they have no more."""
        if key.revoked_at is not None:
            return False
        return key.hash in self._bootstrap or key.id != bootstrap_key_id(key.hash)

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

    async def write_uses(self) -> None:
        """Write what waits for the use log now, where the store takes it."""
        await self._uses.flush()

    @property
    def dropped_uses(self) -> int:
        """Uses that were never logged, because the queue was full or the store refused them."""
        return self._uses.dropped

    def _event(self, action: str, key: ApiKey, actor: str, detail: dict[str, object]) -> Event:
        return Event(action, key.id, key.owner, actor, detail=detail, at=self._clock())
