"""Connected: who a sandbox with a capability is. It is known by its connection, which the gateway has taken out of it.

The gateway asks for a name that stands for the sandbox in this process, and gives it to the door as the credential of
each request; Identity asks what it means. No such name is ever sent, stored or logged, and no client can guess one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection

from atoll.domain.errors import InvalidInput, Unauthenticated
from atoll.domain.ids import KEY_ID, SANDBOX_ID
from atoll.domain.key import ApiKey, Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Grant, Sandbox, SandboxState
from atoll.domain.user import USER_ID
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.standing import Remembered, Standing
from atoll.services.lives import Live

PREFIX = "atoll-conn:"  # no key and no token begins so
RESOURCES_MAX = 1_000
CHAIN_MAX = 8  # keys made by keys, sandboxes made by sandboxes


class Connected:
    """`cache_s` is how long a capability may outlive the key that it came from."""

    def __init__(
        self,
        records: Records,
        standing: Standing,
        *,
        cache_s: float = 2.0,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._standing = standing
        self._clock = clock
        self._keys: Remembered[ApiKey | None] = Remembered(records.get_key, cache_s, monotonic)
        self._sandboxes: Remembered[Sandbox | None] = Remembered(records.get_sandbox, cache_s, monotonic)
        self._names: dict[str, str] = {}  # by sandbox
        self._lives: dict[str, Live] = {}  # by name

    def name(self, live: Live) -> str:
        """What stands for this life of the sandbox until it is `forgotten`."""
        known = self._names.get(live.sandbox.id)
        if known is not None and self._lives[known] is live:
            return known
        self.forget(live.sandbox.id)
        made = PREFIX + secrets.token_hex(32)
        self._names[live.sandbox.id], self._lives[made] = made, live
        return made

    def forget(self, sandbox_id: str) -> None:
        name = self._names.pop(sandbox_id, None)
        if name is not None:
            del self._lives[name]

    def recognises(self, text: str) -> bool:
        return text.startswith(PREFIX)

    async def authenticate(self, text: str) -> Principal:
        """The sandbox's principal: its owner, with no more than the grant. Unauthenticated once the sandbox has ended,
        or what the grant came from is good no more."""
        live = self._lives.get(text)
        if live is None:
            raise Unauthenticated
        sandbox, grant = live.sandbox, live.sandbox.spec.capability
        if grant is None or sandbox.state not in (SandboxState.RUNNING, SandboxState.STOPPING, SandboxState.SUSPENDING):
            self.forget(sandbox.id)
            raise Unauthenticated
        await self._check(grant.credential, sandbox.owner, CHAIN_MAX)
        resources = grant.resources
        return Principal(
            id=sandbox.owner,
            kind=grant.kind,
            scopes=grant.scopes,
            name=sandbox.name or sandbox.id,
            credential=sandbox.id,
            resources=None if resources is None else resources | {sandbox.id},
            plan=grant.plan,
        )

    async def _check(self, credential: str, owner: str, left: int) -> None:
        """Unauthenticated when it opens nothing any more. A user who was disabled takes all with them."""
        for one in {owner, credential}:
            if USER_ID.match(one):
                await self._standing.user(one)
        if KEY_ID.match(credential):
            key = await self._keys.get(credential)
            if key is None or left == 0 or not key.usable(self._clock()):
                raise Unauthenticated
            if USER_ID.match(key.owner):
                await self._standing.user(key.owner)
            if key.parent is not None:
                await self._check(key.parent, owner, left - 1)
        elif SANDBOX_ID.match(credential):
            sandbox = await self._sandboxes.get(credential)
            if sandbox is None or left == 0 or sandbox.ended or sandbox.spec.capability is None:
                raise Unauthenticated
            await self._check(sandbox.spec.capability.credential, sandbox.owner, left - 1)


def grant_of(principal: Principal, scopes: Collection[Scope], resources: Collection[str] | None) -> Grant:
    """What a principal gives to a sandbox that it makes. InvalidInput, naming `capability`, for more than it has."""
    wanted = frozenset(scopes) - {Scope.ADMIN}
    if not wanted:
        raise _bad("capability.scopes must be some of execute, read, write")
    if beyond := wanted - principal.scopes:
        raise _bad(f"capability.scopes beyond your own: {', '.join(sorted(beyond))}")
    bounds = principal.resources
    if resources is not None:
        if len(resources) > RESOURCES_MAX:
            raise _bad(f"capability.resources must be at most {RESOURCES_MAX}")
        if bounds is not None and (beyond := frozenset(resources) - bounds):
            raise _bad(f"capability.resources beyond your own: {', '.join(sorted(beyond)[:8])}")
        bounds = frozenset(resources)
    by_itself = KEY_ID.match(principal.credential) or SANDBOX_ID.match(principal.credential)
    # a token lasts minutes: what it gives lasts as long as its user
    credential = principal.credential if by_itself else principal.id
    return Grant(wanted, bounds, principal.kind, principal.plan, credential)


def _bad(message: str) -> InvalidInput:
    return InvalidInput(message, field="capability")
