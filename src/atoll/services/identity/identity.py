"""Identity: makes a principal of a credential, whatever its kind; the one service that every door asks.

Each kind of credential has an authenticator of its own; the first that recognises a text decides about it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from atoll.domain.principal import Principal
from atoll.domain.user import USER_ID
from atoll.services.identity.memberships import Memberships
from atoll.services.identity.standing import Standing
from atoll.services.keys import Keys


class Authenticator(Protocol):
    """Knows one kind of credential."""

    def recognises(self, text: str) -> bool:
        """Whether a text has the form of this kind; says nothing about its being valid."""
        ...

    async def authenticate(self, text: str) -> Principal:
        """Who holds it. Unauthenticated when it is unknown, expired or revoked, without saying which."""
        ...


@runtime_checkable
class Lasting(Authenticator, Protocol):
    """An authenticator of credentials that let in for a moment, and whose connections last longer than that."""

    async def still_good(self, text: str) -> Principal:
        """As `authenticate`, of one that let somebody in: its own end ends nothing."""
        ...


class Identity:
    """Tokens and the like first; what nobody recognises is taken for an API key."""

    def __init__(
        self,
        keys: Keys,
        *authenticators: Authenticator,
        memberships: Memberships | None = None,
        standing: Standing | None = None,
    ) -> None:
        self._memberships = memberships
        self._standing = standing
        self._keys = keys
        self._authenticators = authenticators
        self.log_use = keys.log_use

    async def authenticate(self, text: str) -> Principal:
        """Who holds this credential. Unauthenticated when it is unknown, expired or revoked, without saying which."""
        return await self._with_groups(await self._recognise(text))

    async def still_good(self, text: str) -> Principal:
        """As `authenticate`, for a connection that it opened and that lasts."""
        for authenticator in self._authenticators:
            if isinstance(authenticator, Lasting) and authenticator.recognises(text):
                return await self._with_groups(await authenticator.still_good(text))
        return await self.authenticate(text)

    async def _with_groups(self, principal: Principal) -> Principal:
        if self._memberships is None:
            return principal
        groups = await self._memberships.of(principal.id)
        return replace(principal, groups=groups) if groups else principal

    async def _recognise(self, text: str) -> Principal:
        for authenticator in self._authenticators:
            if authenticator.recognises(text):
                return await authenticator.authenticate(text)
        principal = await self._keys.authenticate(text)
        if self._standing is not None and USER_ID.match(principal.id):
            await self._standing.user(principal.id)  # a key ends with its user
        return principal
