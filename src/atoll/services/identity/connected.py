"""Connected: who a sandbox with a capability is. It is known by its connection, which the gateway has taken out of it.

The gateway asks for a name that stands for the sandbox in this process, and gives it to the door as the credential of
each request; Identity asks what it means. No such name is ever sent, stored or logged, and no client can guess one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from atoll.domain.errors import InvalidInput, Unauthenticated
from atoll.domain.ids import GROUP_ID, KEY_ID, SANDBOX_ID
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.rate import Rate
from atoll.domain.sandbox import Grant, Sandbox, SandboxState
from atoll.domain.user import USER_ID
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.memberships import Memberships
from atoll.services.identity.standing import Standing
from atoll.services.keys import Keys
from atoll.services.lives import Live
from atoll.services.remembered import Remembered

PREFIX = "atoll-conn:"  # no key and no token begins so
RESOURCES_MAX = 1_000
LASTS_S_MAX = 3_650 * 24 * 3_600
BUDGET_MAX = 2**53
CHAIN_MAX = 8  # sandboxes made by sandboxes


@dataclass(frozen=True, slots=True)
class Source:
    """What a grant, or the token of a sandbox, comes from, as it is now."""

    scopes: frozenset[Scope] = frozenset(Scope)
    lineage: tuple[str, ...] = ()
    rate: Rate | None = None
    rated_as: str = ""
    resources: frozenset[str] | None = None  # what the credential reaches; None: all that is its owner's
    key_hash: str = ""  # of a key's text


class Connected:
    """`cache_s` is how long a capability may outlive the sandbox that it came from; of keys, `Keys` says it, and of a
    place in a group `memberships`."""

    def __init__(
        self,
        records: Records,
        standing: Standing,
        keys: Keys,
        *,
        memberships: Memberships | None = None,
        cache_s: float = 2.0,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._standing = standing
        self._memberships = memberships or Memberships(records, cache_s, monotonic=monotonic)
        self._keys = keys
        self._clock = clock
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
        if grant.over(sandbox.created_at, self._clock()):
            raise Unauthenticated
        source = await self.source(grant.credential, sandbox.owner)
        resources = grant.resources
        return Principal(
            id=sandbox.owner,
            kind=grant.kind,
            scopes=grant.scopes & source.scopes,
            name=sandbox.name or sandbox.id,
            credential=sandbox.id,
            resources=None if resources is None else resources | {sandbox.id},
            plan=grant.plan,
            rate=source.rate,
            lineage=source.lineage,
            rated_as=source.rated_as,
        )

    async def scopes_left(self, credential: str, owner: str) -> frozenset[Scope]:
        """What a credential that made something lasting (`lasting_credential`) opens now. Unauthenticated: nothing."""
        return (await self.source(credential, owner)).scopes

    async def source(self, credential: str, owner: str, left: int = CHAIN_MAX) -> Source:
        """What a `lasting_credential` opens now of an owner's. Unauthenticated when that is nothing. A user who was
        disabled takes all with them, and so does one who left the group that owns what they made."""
        for one in {owner, credential}:
            if USER_ID.match(one):
                await self._standing.user(one)
        if KEY_ID.match(credential):
            found = await self._keys.left(credential)
            if USER_ID.match(found.key.owner):
                await self._standing.user(found.key.owner)
            scopes = found.scopes & await self._as_member(found.key.owner, owner)
            return Source(scopes, found.lineage, found.rate, found.rated_as, found.key.resources, found.key.hash)
        if SANDBOX_ID.match(credential):
            sandbox = await self._sandboxes.get(credential)
            if sandbox is None or left == 0 or sandbox.ended or sandbox.spec.capability is None:
                raise Unauthenticated
            grant = sandbox.spec.capability
            if grant.over(sandbox.created_at, self._clock()):
                raise Unauthenticated
            source = await self.source(grant.credential, sandbox.owner, left - 1)
            scopes = source.scopes & grant.scopes & await self._as_member(sandbox.owner, owner)
            own = None if grant.resources is None else grant.resources | {credential}
            return replace(source, scopes=scopes, rated_as=source.rated_as or credential, resources=own)
        return Source(await self._as_member(credential, owner))

    async def _as_member(self, giver: str, owner: str) -> frozenset[Scope]:
        """What a giver's role leaves of a group's; everything of their own. Unauthenticated outside of the group."""
        if giver == owner or not GROUP_ID.match(owner):
            return frozenset(Scope)
        role = (await self._memberships.of(giver)).get(owner)
        if role is None:
            raise Unauthenticated
        return role.scopes


async def budget_of(records: Records, principal: Principal) -> int | None:
    """What the principal's credential may spend in all; None: nothing bounds it."""
    if KEY_ID.match(principal.credential):
        key = await records.get_key(principal.credential)
        return None if key is None else key.budget_micro_usd
    sandbox = await records.get_sandbox(principal.credential) if SANDBOX_ID.match(principal.credential) else None
    grant = None if sandbox is None else sandbox.spec.capability
    return None if grant is None else grant.budget_micro_usd


def grant_of(principal: Principal, asked: Grant, budget_micro_usd: int | None = None) -> Grant:
    """What a principal, who has that budget, gives to a sandbox that it makes. InvalidInput, naming `capability`, for
    more than it has. It lies within the giver's budget, which is whole all the same until something is spent."""
    wanted, resources = asked.scopes - {Scope.ADMIN}, asked.resources
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
    if asked.lasts_s is not None and not 0 < asked.lasts_s <= LASTS_S_MAX:
        raise _bad(f"capability.expiresInMs must be above 0, and at most {LASTS_S_MAX * 1000}")
    budget = budget_micro_usd if asked.budget_micro_usd is None else asked.budget_micro_usd
    if budget is not None and not 0 <= budget <= (BUDGET_MAX if budget_micro_usd is None else budget_micro_usd):
        raise _bad("capability.budgetMicroUsd must be at least 0, and not beyond your own")
    giver = lasting_credential(principal)
    return Grant(wanted, bounds, principal.kind, principal.plan, giver, asked.lasts_s, budget)


def lasting_credential(principal: Principal) -> str:
    """With what ends what a principal makes. A token lasts minutes: what is made with it lasts as long as its user."""
    by_itself = KEY_ID.match(principal.credential) or SANDBOX_ID.match(principal.credential)
    return principal.credential if by_itself else principal.id


def _bad(message: str) -> InvalidInput:
    return InvalidInput(message, field="capability")
