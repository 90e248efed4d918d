"""Events: who may read which, and streams of those that happen; the surface of /api/events calls it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import replace

from atoll.domain.errors import InvalidInput, RateLimited
from atoll.domain.event import Event, EventQuery
from atoll.domain.group import Role
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.webhook import ACTION_PATTERN
from atoll.records.base import Records
from atoll.services.audit.feed import Ear, Feed
from atoll.telemetry.metrics import Metrics

EVERYBODY = "*"
HEARTBEAT_S = 15.0
LOOK_AGAIN_S = 2.0  # after which somebody who left a group sees nothing of it any more
PAGE = 100

Memberships = Callable[[str], Awaitable[Mapping[str, Role]]]


class Events:
    """`memberships` says which groups a principal belongs to now."""

    def __init__(
        self,
        records: Records,
        feed: Feed,
        metrics: Metrics,
        memberships: Memberships,
        *,
        streams_per_key: int = 20,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._records = records
        self._feed = feed
        self._metrics = metrics
        self._memberships = memberships
        self._streams_per_key = streams_per_key
        self._heartbeat_s = heartbeat_s
        self._open: Counter[str] = Counter()
        self._ended = False

    async def find(self, principal: Principal, query: EventQuery, tenant: str | None = None) -> list[Event]:
        """Its own events and those of its groups, or of one `tenant` among them; administrators also see any other's,
        and with `*` everybody's. A tenant that is none of its own has no events, whether or not it exists."""
        _check_action(query.action)
        tenants = _tenants(principal, tenant)
        targets = query.targets if principal.resources is None else _both(query.targets, principal.resources)
        return await self._records.find_events(replace(query, tenants=tenants, targets=targets))

    def stream(
        self, principal: Principal, *, tenant: str | None = None, action: str | None = None, after_id: int | None = None
    ) -> AsyncIterator[Event | None]:
        """Events as they are committed, tenant by tenant in order; None once it is open, and when there is nothing to
        tell for long.

        From those behind `after_id` on, or from now on. RateLimited when the credential has too many open. It ends
        when the server does; one who leaves a group sees no more of it.
        """
        _check_action(action)
        # Looked at before the first event is asked for: an answer that has begun cannot be refused any more.
        return self._streamed(principal, _tenants(principal, tenant), action, after_id)

    async def _streamed(
        self, principal: Principal, tenants: tuple[str, ...] | None, action: str | None, after_id: int | None
    ) -> AsyncIterator[Event | None]:
        credential, limit = principal.credential, self._streams_per_key
        if self._open[credential] >= limit:
            raise RateLimited(f"this key has {limit} event streams open already ({limit}/{limit})", retry_after_s=5)
        self._open[credential] += 1
        self._metrics.audit.stream_opened()
        try:
            with self._feed.listening(tenants) as ear:
                places = await self._places(tenants, after_id)
                yield None
                async for event in self._follow(principal, ear, places):
                    if event is None or _wanted(event, principal, action):
                        yield event
        finally:
            self._metrics.audit.stream_closed()
            self._open[credential] -= 1
            if not self._open[credential]:
                del self._open[credential]

    def end(self) -> None:
        """Let every stream end: the server stops."""
        self._ended = True
        self._feed.wake()

    async def _places(self, tenants: Collection[str] | None, after_id: int | None) -> dict[str, int]:
        """Up to which number the reader has seen each tenant's events."""
        if after_id is not None:
            return await self._records.positions(after_id, tenants)
        return {head.tenant: head.seq for head in await self._records.list_heads(tenants)}

    async def _follow(self, principal: Principal, ear: Ear, places: dict[str, int]) -> AsyncIterator[Event | None]:
        grown = {head.tenant: head.seq for head in await self._records.list_heads(ear.tenants)}
        quiet_s = 0.0
        while not self._ended:
            for tenant in sorted(grown):
                while await self._may_read(principal, tenant):
                    page = await self._records.follow_events(tenant, places.get(tenant, 0), PAGE)
                    if not page:
                        break
                    for event in page:
                        yield event
                        quiet_s = 0.0
                        places[tenant] = event.seq or 0
            await ear.wait(LOOK_AGAIN_S)
            quiet_s += LOOK_AGAIN_S
            if quiet_s >= self._heartbeat_s:
                quiet_s = 0.0
                yield None
            grown = ear.take()

    async def _may_read(self, principal: Principal, tenant: str) -> bool:
        """Whether it still belongs to the group, if it is one that it belonged to."""
        return tenant not in principal.groups or tenant in await self._memberships(principal.id)


def _tenants(principal: Principal, asked: str | None) -> tuple[str, ...] | None:
    principal.require(Scope.READ)
    if asked is None:
        return tuple(
            one for one in principal.owners if one == principal.id or Scope.READ in principal.groups[one].scopes
        )
    if asked in principal.owners:
        principal.require(Scope.READ, asked)
        return (asked,)
    if principal.admin and principal.resources is None:
        return None if asked == EVERYBODY else (asked,)
    return ()


def _check_action(action: str | None) -> None:
    if action is not None and not ACTION_PATTERN.fullmatch(action):
        raise InvalidInput(f"action: {action[:64]!r} is not noun.verb, noun.* or *", field="action")


def _wanted(event: Event, principal: Principal, action: str | None) -> bool:
    if principal.resources is not None and event.target not in principal.resources:
        return False
    if action is None:
        return True
    return event.action.startswith(action[:-1]) if action.endswith("*") else event.action == action


def _both(one: Collection[str] | None, other: Collection[str]) -> Collection[str]:
    return other if one is None else set(one) & set(other)
