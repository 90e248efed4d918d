"""OwnKeys: the API keys of a user, which they make and end themselves; `/auth/api-keys` serves them.

A key belongs to its user: what it makes is theirs, and it opens nothing once they are disabled or gone.
"""

from __future__ import annotations

from atoll.domain.errors import InvalidInput, NotFound, QuotaExceeded
from atoll.domain.ids import KEY_ID
from atoll.domain.key import ApiKey, Scope
from atoll.domain.principal import Principal
from atoll.records.base import Records
from atoll.services.identity.users import require_in_person
from atoll.services.keys import Keys, NewKey

KEYS_MAX = 100  # of one user that open something


class OwnKeys:
    def __init__(self, records: Records, keys: Keys) -> None:
        self._records = records
        self._keys = keys

    async def create(
        self,
        principal: Principal,
        name: str,
        *,
        scopes: frozenset[Scope] | None = None,
        expires_in_days: float | None = None,
        description: str = "",
    ) -> NewKey:
        """A key with no more than the scopes of who asks; without any it has those."""
        require_in_person(principal)
        wanted = principal.scopes if scopes is None else scopes
        if beyond := wanted - principal.scopes - {Scope.ADMIN}:
            listed = ", ".join(sorted(beyond))
            raise InvalidInput(f"scopes beyond your own: {listed}", field="scopes")
        if len(description) > 1_024:
            raise InvalidInput("description must have at most 1024 characters", field="description")
        if sum(key.usable() for key in await self._keys.list(owner=principal.id)) >= KEYS_MAX:
            raise QuotaExceeded(f"key limit reached ({KEYS_MAX}/{KEYS_MAX}): revoke one first")
        return await self._keys.create(
            name,
            scopes=wanted,
            expires_in_days=expires_in_days,
            owner=principal.id,
            plan=principal.plan,
            resources=principal.resources,
            description=description,
            actor=principal.id,
        )

    async def list(self, principal: Principal) -> list[ApiKey]:
        """Those that are not revoked, oldest first."""
        require_in_person(principal)
        return await self._keys.list(owner=principal.id)

    async def get(self, principal: Principal, key_id: str) -> ApiKey:
        """NotFound for an unknown one, or somebody else's."""
        require_in_person(principal)
        key = await self._records.get_key(key_id) if KEY_ID.match(key_id) else None
        if key is None or key.owner != principal.id:
            raise NotFound("key not found")
        return key

    async def revoke(self, principal: Principal, key_id: str) -> ApiKey:
        """The next request with it is refused. As `get`."""
        key = await self.get(principal, key_id)
        return await self._keys.revoke(key.id, actor=principal.id)
