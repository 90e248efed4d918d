"""The door of every surface: who asks, from where, and whether they may ask so often.

Routes call it before anything else, HTTP and WebSocket alike; what a principal may do is for the services.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Protocol

import structlog
from starlette.types import Scope

from atoll.domain.errors import RateLimited, Unauthenticated
from atoll.domain.key import KEY_PREFIX_CHARS, KeyKind
from atoll.domain.principal import Principal
from atoll.domain.rate import Rate
from atoll.domain.sandbox_token import TERMINAL_PREFIX, TOKEN_PREFIX
from atoll.services.audit.requests import RequestEvents
from atoll.services.identity.connected import PREFIX as CONNECTED
from atoll.services.identity.jwt_checks import looks_like_token
from atoll.services.rates.local_counters import LocalCounters
from atoll.surfaces.actions import action_of
from atoll.surfaces.credentials import NO_QUERY, QueryWays, credential
from atoll.surfaces.key_watch import watched
from atoll.surfaces.rate_limit import SURFACES, CountersOf, RateLimits, RateSettings, SurfaceRates
from atoll.surfaces.ways import USUAL, Ways
from atoll.telemetry.trace import trace_of

# Statuses of a change that was understood and not made; what was not understood was none.
REFUSED = frozenset({401, 402, 403, 404, 409, 422, 429})
Network = IPv4Network | IPv6Network

ADMITTED = "atoll.admitted"  # in a request's scope: the credential's text, and whose it was
MAX_GOOD_KEYS = 1024


class Keys(Protocol):
    """What the door needs of the keys service."""

    async def authenticate(self, text: str) -> Principal:
        """The principal of a valid key's text; Unauthenticated for any other text."""
        ...

    async def still_good(self, text: str) -> Principal:
        """As `authenticate`, for a connection that it opened and that lasts."""
        ...

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
        """Note one request for the use log; never waits."""
        ...


class NoCredential(Unauthenticated):
    """A valid API key is required: Authorization: Bearer <key>."""

    def __init__(self, message: str | None = None, *, in_query: bool = False) -> None:
        self.in_query = in_query  # one came as ?api_key=, which the settings do not allow
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """How often one may knock. A burst is what may come at once, a rate is what may go on for ever."""

    enabled: bool = True
    key_per_s: float = 50.0
    key_burst: int = 200
    address_per_s: float = 100.0
    address_burst: int = 400
    refused_per_s: float = 0.5
    refused_burst: int = 50
    addresses: int = 10_000
    sockets_per_key: int = 200
    trusted_proxies: tuple[Network, ...] = ()
    surfaces: Mapping[str, SurfaceRates] = field(default_factory=lambda: SURFACES)
    query: QueryWays = NO_QUERY
    cookies_act: bool = False  # where no page of a sandbox has this server's origin; elsewhere they open pages alone

    @property
    def rates(self) -> RateSettings:
        return RateSettings(
            self.enabled,
            key=Rate(self.key_per_s, self.key_burst),
            address=Rate(self.address_per_s, self.address_burst),
            refused=Rate(self.refused_per_s, self.refused_burst),
            addresses=self.addresses,
            surfaces=self.surfaces,
        )


class Door:
    """Authentication and rate limits, the same for every dialect."""

    def __init__(self, keys: Keys, limits: DoorLimits | None = None, counters_of: CountersOf = LocalCounters) -> None:
        limits = self._limits = limits or DoorLimits()
        self._keys = keys
        self._rates = RateLimits(limits.rates, counters_of)
        self._good: dict[int, None] = {}  # hashes of texts that were valid: a guesser cannot lock their holders out
        self._sockets: Counter[str] = Counter()
        self.requests: RequestEvents | None = None  # is told of changes that no event tells of

    async def admit(self, scope: Scope, classes: Sequence[str] = (), ways: Ways = USUAL) -> Principal:
        """The principal of the request's credential. Unauthenticated, or RateLimited with the wait.

        `classes` are the surface's and the route's among the rates, `ways` how it may come besides.
        """
        trace = trace_of(scope)
        peer = trace.peer = self.peer(scope)
        try:
            if ways.cookie and not (ways.page or self._limits.cookies_act):
                ways = replace(ways, cookie="")
            text = credential(scope, ways=ways, query=self._limits.query)
            if text is not None and text.startswith(TERMINAL_PREFIX) and scope["type"] != "websocket":
                text = None  # it stands in addresses: it opens what it is for, and nothing else
            if text is None:
                await self._rates.refuse((f"address {network_of(peer)}",))
                raise NoCredential(in_query=b"api_key=" in scope.get("query_string", b""))
            principal = await self._authenticate(text, peer)
        except Unauthenticated:
            await self._rates.count_refused(trace, network_of(peer), classes)
            raise
        scope[ADMITTED] = (text, principal)
        trace.key_id, trace.actor = principal.credential, principal.id
        structlog.contextvars.bind_contextvars(key_id=principal.credential)
        if principal.kind is KeyKind.STANDARD or not self._is_here(scope, peer):
            await self._rates.spend(trace, network_of(peer), principal, classes)
        return principal

    async def admit_anyone(self, scope: Scope, classes: Sequence[str] = ()) -> None:
        """For public routes: the limit of the address, which loopback does not have, and those of the surface."""
        trace = trace_of(scope)
        peer = trace.peer = self.peer(scope)
        await self._rates.spend_unknown(trace, network_of(peer), classes, is_here=self._is_here(scope, peer))

    async def again(self, scope: Scope, principal: Principal | None, classes: Sequence[str] = ()) -> None:
        """One more request of somebody who was let in a moment ago, None for anybody: it counts all the same."""
        trace = trace_of(scope)
        peer = trace.peer = self.peer(scope)
        if principal is None:
            await self._rates.spend_unknown(trace, network_of(peer), classes, is_here=self._is_here(scope, peer))
        elif self.limits_rate_of(scope, principal):
            await self._rates.spend(trace, network_of(peer), principal, classes)

    def limits_rate_of(self, scope: Scope, principal: Principal | None) -> bool:
        """Whether the requests of one who asks like this are counted."""
        return (principal is not None and principal.kind is KeyKind.STANDARD) or not self._is_here(
            scope, self.peer(scope)
        )

    def watch(self, scope: Scope) -> AbstractContextManager[None]:
        """While it is open, the request's connection is ended once its key is revoked or has expired, or its principal
        may do less than when it was admitted."""

        async def look() -> None:
            if ADMITTED not in scope:  # let in otherwise than by a credential: whoever did that watches
                return
            text, before = scope[ADMITTED]
            now = await self._keys.still_good(text)
            if not now.covers(before):
                raise Unauthenticated

        return watched(scope, look)

    @contextmanager
    def socket(self, principal: Principal) -> Generator[None]:
        """Holds one of the principal's WebSocket places while it is open: those of a key, whose tokens have no more."""
        holder = principal.rated_as or principal.credential
        if self._sockets[holder] >= self._limits.sockets_per_key:
            limit = self._limits.sockets_per_key
            raise RateLimited(f"this key has {limit} streams open already ({limit}/{limit})", retry_after_s=5)
        self._sockets[holder] += 1
        try:
            yield
        finally:
            self._sockets[holder] -= 1
            if not self._sockets[holder]:
                del self._sockets[holder]

    def note_outcome(self, scope: Scope, operation: str, status: int) -> None:
        """Into the audit trail, unless an event tells it already: a change that was asked for, made or not."""
        trace = trace_of(scope)
        if self.requests is None:
            return
        target = next(iter(scope["path_params"].values()), trace.route)
        if status < 400 and not trace.events:
            self.requests.done(trace, action_of(operation), operation, target)
        elif (status in REFUSED or status >= 500) and not trace.told:
            self.requests.refused(trace, operation, target, status)

    def note_use(self, scope: Scope, key_id: str, status: int) -> None:
        """One line of the key's use log."""
        trace = trace_of(scope)
        agent = _header(scope, b"user-agent")
        self._keys.log_use(
            key_id,
            endpoint=trace.route,
            method=scope.get("method", "GET"),
            status_code=status,
            ip_address=trace.peer,
            user_agent=agent[:256].decode("latin-1") if agent else None,
        )

    def peer(self, scope: Scope) -> str:
        """The client's address. X-Forwarded-For counts only as far as the proxies in it are trusted ones."""
        address = _client(scope)
        if not self._trusts(address):
            return address
        forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        for hop in reversed(forwarded.decode("latin-1").split(",")):
            hop = hop.strip()
            if not _is_address(hop):
                break
            address = hop
            if not self._trusts(address):
                break
        return address

    def _is_here(self, scope: Scope, peer: str) -> bool:
        """Whether the client is on this machine, as far as one knows: not behind a proxy that is not trusted."""
        return is_loopback(peer) and (not is_proxied(scope) or self._trusts(_client(scope)))

    def _trusts(self, address: str) -> bool:
        proxies = self._limits.trusted_proxies
        return bool(proxies) and is_within(address, proxies)

    async def _authenticate(self, text: str, peer: str) -> Principal:
        known = hash(text)
        guesser = _guesser(text, peer)
        if known not in self._good:
            await self._rates.check_guesser(guesser)
        try:
            principal = await self._keys.authenticate(text)
        except Unauthenticated:
            self._good.pop(known, None)
            await self._rates.refuse(guesser)
            raise
        if known not in self._good:
            if len(self._good) >= MAX_GOOD_KEYS:
                del self._good[next(iter(self._good))]
            self._good[known] = None
        return principal


def _guesser(text: str, peer: str) -> tuple[str, ...]:
    """Under what a refusal counts. Of a key, the prefix too: many addresses may try the rest of one. Tokens and
    connections' names begin alike whosever they are: by their prefix, a stranger would keep everybody out."""
    address = f"address {network_of(peer)}"
    if looks_like_token(text) or text.startswith((CONNECTED, TOKEN_PREFIX)):
        return (address,)
    return (address, f"prefix {text[:KEY_PREFIX_CHARS]}")


def is_proxied(scope: Scope) -> bool:
    """Whether a proxy says that it passes the request on."""
    return any(_header(scope, name) is not None for name in (b"forwarded", b"x-forwarded-for"))


def is_loopback(address: str) -> bool:
    """Whether an address, or a host to listen on, is this machine's own; a name is only when it is `localhost`."""
    if address in ("127.0.0.1", "::1", "localhost"):
        return True
    return _is_address(address) and ip_address(address).is_loopback


def network_of(address: str) -> str:
    """What counts as one address: an IPv6 host owns its whole /64."""
    if ":" not in address or not _is_address(address):
        return address
    parsed = ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped) if mapped else str(ip_network((address, 64), strict=False))


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return value
    return None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_within(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address is of one of those; a name is not."""
    if not _is_address(address):
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in networks)
