"""Giving: what the sandbox services ask of the secrets service, if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from atoll.domain.brokering import Substitution
from atoll.domain.errors import Unsupported
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.domain.secret import Given, SecretUse


class Giving(Protocol):
    """Secrets for processes. A sandbox's record has the resolved uses, never a value."""

    async def resolve(
        self,
        principal: Principal,
        uses: Sequence[SecretUse],
        sandbox_owner: str,
        *,
        allow: Sequence[str] | None = None,
    ) -> tuple[SecretUse, ...]:
        """The uses with ids and targets filled in; `allow` is the list of hosts that the sandbox is to reach, if that
        is what its network is. InvalidInput, with the field `secrets`, for a use that cannot be, such as a brokered
        one without a host on that list; NotFound, always the same, for a secret that is not there or that the
        principal does not see; Forbidden when it may not use it."""
        ...

    async def give(self, uses: Sequence[SecretUse], sandbox_owner: str, sandbox_id: str) -> Given:
        """The present values of resolved uses. Conflict when a secret is gone, or is not the sandbox owner's to use
        any more; InvalidInput for one that no environment can hold. What is brokered is given as a placeholder."""
        ...

    async def brokered(self, sandbox: Sandbox, host: str) -> tuple[Substitution, ...]:
        """The present values of the sandbox's brokered secrets that are for this host, with what stands for them.
        Conflict as from `give`."""
        ...

    async def values(self, sandbox: Sandbox) -> tuple[bytes, ...]:
        """The present values of all that the sandbox was given or that is brokered for it; not of what is gone."""
        ...


class NoGiving:
    """There is no secrets service."""

    async def resolve(
        self,
        principal: Principal,
        uses: Sequence[SecretUse],
        sandbox_owner: str,
        *,
        allow: Sequence[str] | None = None,
    ) -> tuple[SecretUse, ...]:
        if uses:
            raise Unsupported("this server keeps no secrets")
        return ()

    async def give(self, uses: Sequence[SecretUse], sandbox_owner: str, sandbox_id: str) -> Given:
        return Given()

    async def brokered(self, sandbox: Sandbox, host: str) -> tuple[Substitution, ...]:
        return ()

    async def values(self, sandbox: Sandbox) -> tuple[bytes, ...]:
        return ()
