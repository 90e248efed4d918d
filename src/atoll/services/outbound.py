"""Outbound: the one HTTP client for URLs that others gave us: webhooks, identity providers. It cannot be led inside.

A name is resolved once, its address is checked and then connected to; no redirect is followed; time and bytes are
bounded; and what an answer says stands in no error.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import httpcore2

from atoll.domain.addresses import Address, Network, address_of, is_public
from atoll.domain.errors import DeadlineExceeded, InvalidInput, TooLarge, Unavailable
from atoll.services.outbound_url import CallUrl, call_url

ADDRESSES_MAX = 8  # of a name that are tried
RESOLVING_MAX = 32
Resolve = Callable[[str, int], Awaitable[Iterable[str]]]


class AddressRefused(InvalidInput):
    """The host has no address that the server calls."""


@dataclass(frozen=True, slots=True)
class OutboundLimits:
    """How far a call may go."""

    timeout_s: float = 10.0  # for all of it: the name, the connection, the answer to its last byte
    answer_bytes: int = 64 * 1024
    at_once: int = 32
    networks: tuple[Network, ...] = ()  # besides the internet: the operator's own, which may be called, without TLS too


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. A redirect is an answer like any other."""

    status: int
    headers: Mapping[str, str]  # names in small letters
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class Outbound:
    """`resolve` is how names become addresses; another one is for tests."""

    def __init__(self, limits: OutboundLimits | None = None, resolve: Resolve | None = None) -> None:
        self._limits = limits or OutboundLimits()
        # Threads of its own: a resolver that hangs must not take those that the rest of the server works with.
        self._threads = ThreadPoolExecutor(RESOLVING_MAX, thread_name_prefix="resolve")
        self._resolve = resolve or self._ask_system
        self._resolve_own = resolve or _ask_beside
        self._places = asyncio.Semaphore(self._limits.at_once)
        self._tls: ssl.SSLContext | None = None

    async def close(self) -> None:
        """Let go of the threads; a second call does nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def check(self, url: str, field: str = "url") -> CallUrl:
        """For a URL that is stored to be called later. InvalidInput where a call would be refused for its form."""
        parts = call_url(url, field)
        address = address_of(parts.host)
        if parts.scheme != "https" and not self._limits.networks:
            raise InvalidInput(f"{field} must begin with https:// (outbound.networks allows others)", field=field)
        if address is not None and not self._may_call(address, parts.scheme):
            raise _refused(parts, field)
        return parts

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        own: bool = False,
        timeout_s: float | None = None,
        answer_bytes: int | None = None,
    ) -> Answer:
        """Call a URL. `own` is for one that the operator wrote: it may lead inside, and to loopback without TLS.

        InvalidInput for a URL that is refused (AddressRefused for where it leads), Unavailable when nobody answers,
        DeadlineExceeded, TooLarge. None of them tells what the answer was.
        """
        parts = call_url(url)
        timeout_s = timeout_s or self._limits.timeout_s
        try:
            # The operator's own wait for nobody: who gives us slow URLs must not keep us from the identity providers.
            async with asyncio.timeout(timeout_s), nullcontext() if own else self._places:
                addresses = await self._addresses(parts, own)
                call = _Call(method, parts, headers or {}, body, addresses, timeout_s)
                return await self._exchange(call, answer_bytes or self._limits.answer_bytes)
        except (TimeoutError, httpcore2.TimeoutException):
            raise DeadlineExceeded(f"{parts.place} did not answer within {timeout_s:g} s") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:  # TLS's errors are OSErrors
            raise Unavailable(f"{parts.place} does not answer: {type(error).__name__}") from None

    async def _addresses(self, parts: CallUrl, own: bool) -> list[Address]:
        """Those that may be called; AddressRefused when there is none, whether or not the name is known."""
        literal = address_of(parts.host)
        if literal is not None:
            found = [literal]
        else:
            try:
                resolve = self._resolve_own if own else self._resolve
                found = [one for text in await resolve(parts.host, parts.port) if (one := address_of(text))]
            except OSError:
                if own:
                    raise Unavailable(f"{parts.host} is not known to the resolver") from None
                found = []
        allowed = [one for one in found if (self._may_trust if own else self._may_call)(one, parts.scheme)]
        # One bad address among good ones is how a name is turned against its caller: then none of them counts.
        if not allowed or len(allowed) < len(found):
            raise _refused(parts)
        return allowed[:ADDRESSES_MAX]

    def _may_call(self, address: Address, scheme: str) -> bool:
        if any(address in network for network in self._limits.networks):
            return True
        return scheme == "https" and is_public(address)

    def _may_trust(self, address: Address, scheme: str) -> bool:
        return scheme == "https" or address.is_loopback or self._may_call(address, scheme)

    async def _ask_system(self, host: str, port: int) -> list[str]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port)

    async def _exchange(self, call: _Call, answer_bytes: int) -> Answer:
        # A pool for one call: a connection that is kept would outlive the check of its address.
        async with httpcore2.AsyncConnectionPool(
            ssl_context=await self._tls_context(call.url.scheme),
            max_connections=1,
            network_backend=_Pinned(call.addresses),
        ) as pool:
            response = await pool.handle_async_request(call.request())
            try:
                pieces: list[bytes] = []
                left = answer_bytes
                async for piece in response.aiter_stream():
                    left -= len(piece)
                    if left < 0:
                        raise TooLarge(f"{call.url.place} answered with more than {answer_bytes} bytes")
                    pieces.append(piece)
            finally:
                await response.aclose()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return Answer(response.status, headers, b"".join(pieces))

    async def _tls_context(self, scheme: str) -> ssl.SSLContext | None:
        """Made once: reading this machine's authorities, or those of SSL_CERT_FILE, takes milliseconds."""
        if scheme == "https" and self._tls is None:
            self._tls = await asyncio.to_thread(httpcore2.default_ssl_context)
        return self._tls


@dataclass(frozen=True, slots=True)
class _Call:
    """One call, whose addresses have been checked."""

    method: str
    url: CallUrl
    headers: Mapping[str, str]
    body: bytes
    addresses: list[Address]
    timeout_s: float

    def request(self) -> httpcore2.Request:
        url = httpcore2.URL(
            scheme=self.url.scheme.encode(),
            host=self.url.host.encode(),
            port=self.url.port,
            target=self.url.target.encode(),
        )
        headers = {"Host": self.url.authority, "Accept-Encoding": "identity", "User-Agent": "Atoll", **self.headers}
        if self.body:
            headers["Content-Length"] = str(len(self.body))
        # An address that is silent leaves time for the others.
        timeouts = {"timeout": {"connect": self.timeout_s / (len(self.addresses) + 1)}}
        return httpcore2.Request(
            self.method, url, headers=list(headers.items()), content=self.body or None, extensions=timeouts
        )


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked, whatever the host's name would resolve to by now."""

    def __init__(self, addresses: list[Address]) -> None:
        self._addresses = addresses
        self._backend = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())

    async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore2.AsyncNetworkStream:
        for address in self._addresses[:-1]:
            try:
                return await self._backend.connect_tcp(str(address), port, *args, **options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._backend.connect_tcp(str(self._addresses[-1]), port, *args, **options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _look_up(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


async def _ask_beside(host: str, port: int) -> list[str]:
    """For the operator's own names, which do not queue behind those that others gave us."""
    return await asyncio.to_thread(_look_up, host, port)


def _refused(parts: CallUrl, field: str = "url") -> AddressRefused:
    """The same words for a name that nobody knows: they tell nothing about the network inside."""
    why = f"{parts.host} has no public address that {parts.scheme} may call (outbound.networks allows others)"
    return AddressRefused(why, field=field)
