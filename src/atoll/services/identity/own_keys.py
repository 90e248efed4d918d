"""OwnKeys: the API keys of a user, which they make and end themselves, in person; `/auth/api-keys` serves them.

What such a key may be, and how many there may be, `Capabilities` says, as of every key that somebody makes.
"""

from __future__ import annotations

from atoll.domain.key import ApiKey, Scope
from atoll.domain.principal import Principal
from atoll.services.identity.capabilities import Capabilities
from atoll.services.identity.users import require_in_person
from atoll.services.new_keys import NewKey


class OwnKeys:
    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities

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
        return await self._capabilities.mint(
            principal, name, scopes=scopes, expires_in_days=expires_in_days, description=description
        )

    async def list(self, principal: Principal) -> list[ApiKey]:
        """Those that are not revoked, oldest first."""
        require_in_person(principal)
        return await self._capabilities.all(principal)

    async def get(self, principal: Principal, key_id: str) -> ApiKey:
        """NotFound for an unknown one, or somebody else's."""
        require_in_person(principal)
        return await self._capabilities.get(principal, key_id)

    async def revoke(self, principal: Principal, key_id: str) -> ApiKey:
        """The next request with it is refused. As `get`."""
        require_in_person(principal)
        return await self._capabilities.revoke(principal, key_id)
