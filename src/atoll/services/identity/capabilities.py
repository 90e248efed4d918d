"""Capabilities: keys that a credential makes narrower than itself, to give away; never one that is wider.

A child belongs to its parent's owner and ends with its parent. What it was given of a budget has left the parent for
good. Every method takes the Principal first; none needs a scope, since none gives more than one has.
"""

from __future__ import annotations

import builtins
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from atoll.domain.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from atoll.domain.event import Event
from atoll.domain.ids import KEY_ID, SANDBOX_ID
from atoll.domain.key import ApiKey, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.quota import Overrides
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.reach import seen
from atoll.services.identity.users import is_in_person, speaks_for_account
from atoll.services.key_lineage import DEPTH_MAX, ancestors
from atoll.services.key_rules import check_key
from atoll.services.keys import Keys
from atoll.services.new_keys import NewKey, new_key
from atoll.services.workspaces.access import WorkspaceAccess

CHILDREN_MAX = 100  # that one key, or one user in person, made and that have not ended
RESOURCES_MAX = 100
BUDGET_MAX_MICRO_USD = 2**53


class Capabilities:
    """Makes, shows and revokes them."""

    def __init__(self, records: Records, keys: Keys, workspaces: WorkspaceAccess, *, clock: Clock = utc_now) -> None:
        self._records = records
        self._keys = keys
        self._workspaces = workspaces
        self._clock = clock

    async def mint(
        self,
        principal: Principal,
        name: str,
        *,
        scopes: Collection[Scope] | None = None,
        resources: Sequence[str] | None = None,
        budget_micro_usd: int | None = None,
        expires_in_days: float | None = None,
        description: str = "",
        quotas: Overrides | None = None,
    ) -> NewKey:
        """A key with no more than the credential of who asks has; what is left out is as that one's.
        `quotas` bound it besides those of what it comes from.

        InvalidInput names the field that asks for more, or for a resource that is nothing of one's own. QuotaExceeded
        for too many, and for a budget beyond what is left. Forbidden for credentials that can have no children.
        """
        parent = await self._parent(principal)
        if parent is not None:
            await self._check_depth(parent)
        now = self._clock()
        check_key(name=name, expires_in_days=expires_in_days, description=description)
        expires_at = _expiry(parent, now, expires_in_days)
        made = new_key(
            name,
            now,
            # Whoever has no quota gives that on, but never the right to administer the server.
            kind=KeyKind.INTERNAL if principal.kind is KeyKind.OWNER else principal.kind,
            scopes=_narrowed(principal, scopes),
            owner=principal.id,
            parent=None if parent is None else parent.id,
            resources=await self._reachable(principal, resources),
            budget_micro_usd=_budget(parent, budget_micro_usd),
            plan=principal.plan,
            description=description,
        )
        key = replace(made.key, expires_at=expires_at)
        event = Event("key.created", key.id, key.owner, principal.id, detail=_told(key), at=now)
        try:
            if parent is None:
                await self._records.add_key(key, event, most=CHILDREN_MAX, quotas=quotas)
            else:
                await self._records.add_child_key(key, event, siblings_max=CHILDREN_MAX, quotas=quotas)
        except Conflict:
            raise Unauthenticated from None  # the parent ended in this moment
        return NewKey(key, made.text)

    async def list(self, principal: Principal) -> builtins.list[ApiKey]:
        """Those that the credential made itself and that are not revoked, oldest first."""
        parent = await self._parent(principal)
        if parent is None:
            found = [one for one in await self._keys.list(owner=principal.id) if one.parent is None]
        else:
            found = await self._records.list_child_keys(parent.id)
        return [one for one in found if one.revoked_at is None]

    async def get(self, principal: Principal, key_id: str) -> ApiKey:
        """One that the credential made, or one of those made. NotFound, always the same, for any other."""
        parent = await self._parent(principal)
        key = await self._records.get_key(key_id) if KEY_ID.match(key_id) else None
        if key is None or key.owner != principal.id:
            raise NotFound("key not found")
        if parent is not None and not await self._descends(key, parent.id):
            raise NotFound("key not found")
        return await self._keys.as_it_stands(key)

    async def revoke(self, principal: Principal, key_id: str) -> ApiKey:
        """As `get`; the next request with it is refused, and so is the next with any key that it made."""
        key = await self.get(principal, key_id)
        return await self._keys.revoke(key.id, actor=principal.id)

    def sees_all(self, principal: Principal) -> bool:
        """Whether all keys of its owner are the credential's business: a user's in person, and an account's own key's.
        Everybody else's are those that it made, and those that these made."""
        return speaks_for_account(principal)

    async def all(self, principal: Principal) -> builtins.list[ApiKey]:
        """Those that are its business and not revoked, oldest first, the one that asks among them. One that ended with
        what made it is shown so."""
        parent = await self._parent(principal)
        if parent is None or self.sees_all(principal):
            return [await self._keys.as_it_stands(key) for key in await self._keys.list(owner=principal.id)]
        return [parent, *await self.list(principal)]

    async def find(self, principal: Principal, key_id: str) -> ApiKey:
        """One of those, or of those that they made, or the one that asks. NotFound, always the same, for any other."""
        if self.sees_all(principal) or key_id == principal.credential:
            key = await self._keys.get(key_id)
        else:
            key = await self.get(principal, key_id)
        if key is None or key.owner != principal.id:
            raise NotFound("key not found")
        return key

    def check_narrower(self, principal: Principal, key: ApiKey) -> None:
        """Forbidden for a key that may more than who asks: its text, or a later end, would give them that."""
        beyond = key.scopes - principal.scopes - {Scope.ADMIN}
        bounds = principal.resources
        if beyond or (bounds is not None and (key.resources is None or not key.resources <= bounds)):
            raise Forbidden("that key may do more than the credential that asks")

    async def _parent(self, principal: Principal) -> ApiKey | None:
        """The key that asks; None for a user in person."""
        if KEY_ID.match(principal.credential):
            key = await self._records.get_key(principal.credential)
            if key is not None:
                return key
        elif is_in_person(principal) and not SANDBOX_ID.match(principal.credential):
            return None
        raise Forbidden("only an API key, or a user who has logged in, makes keys")

    async def _check_depth(self, parent: ApiKey) -> None:
        above = await ancestors(parent, self._records.get_key)
        if len(above) > DEPTH_MAX - 2:  # itself and its child are two more
            raise Forbidden(f"keys make keys at most {DEPTH_MAX} deep")

    async def _descends(self, key: ApiKey, ancestor: str) -> bool:
        above = await ancestors(key, self._records.get_key)
        return any(one is not None and one.id == ancestor for one in above)

    async def _reachable(self, principal: Principal, asked: Sequence[str] | None) -> frozenset[str] | None:
        if asked is None:
            return principal.resources
        if not 1 <= len(asked) <= RESOURCES_MAX:
            raise InvalidInput(f"resources must be 1 to {RESOURCES_MAX} ids", field="resources")
        return await seen(self._records, self._workspaces, principal, asked, "resources")


def _narrowed(principal: Principal, asked: Collection[Scope] | None) -> frozenset[Scope]:
    scopes = principal.scopes if asked is None else frozenset(asked)
    if not scopes:
        raise InvalidInput("scopes must be some of your own", field="scopes")
    # `admin` opens nothing: a user may list it, as some clients do, but no key passes on what it does not list
    listed = frozenset({Scope.ADMIN}) if is_in_person(principal) else frozenset[Scope]()
    if beyond := scopes - principal.scopes - listed:
        raise InvalidInput(f"scopes beyond your own: {', '.join(sorted(beyond))}", field="scopes")
    return scopes


def _expiry(parent: ApiKey | None, now: datetime, days: float | None) -> datetime | None:
    bound = None if parent is None else parent.expires_at
    if days is None:
        return bound
    asked = now + timedelta(days=days)
    if bound is not None and asked > bound:
        raise InvalidInput("expires_in_days is beyond the end of the key that makes it", field="expires_in_days")
    return asked


def _budget(parent: ApiKey | None, asked: int | None) -> int | None:
    if asked is not None and not 0 <= asked <= BUDGET_MAX_MICRO_USD:
        raise InvalidInput(f"budget_micro_usd must be 0 to {BUDGET_MAX_MICRO_USD}", field="budget_micro_usd")
    if asked is None and parent is not None and parent.budget_micro_usd is not None:
        raise InvalidInput("budget_micro_usd is required: the key that makes it has one", field="budget_micro_usd")
    return asked


def _told(key: ApiKey) -> dict[str, object]:
    told: dict[str, object] = {
        "name": key.name, "kind": key.kind.value, "scopes": sorted(key.scopes), "prefix": key.prefix,
        "parent": key.parent, "budget_micro_usd": key.budget_micro_usd,
        "resources": None if key.resources is None else sorted(key.resources),
    }  # fmt: skip
    return {name: value for name, value in told.items() if value is not None}
