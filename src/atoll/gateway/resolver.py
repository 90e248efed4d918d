"""Resolver: the real addresses of the names that sandboxes may reach, asked of the host's name servers.

The egress gateway connects to exactly what it says; which of it may be reached is decided there.
"""

from __future__ import annotations

import asyncio
import struct
import time
from ipaddress import IPv4Address
from typing import Any, Protocol

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.query
import dns.resolver

from atoll.domain.errors import NotFound, Unavailable

LIFETIME_S = 5.0
ANSWERS_MAX = 10_000  # that are kept for as long as their servers said
KEPT_S_MAX = 300.0  # and no longer: an answer that there is no such name need not say for how long
ADDRESSES_MAX = 16
ANSWER_BYTES_MAX = 4096  # some 250 addresses; to read all that DNS allows takes seconds, in which nobody else is served
PORT = 53
_LENGTH = struct.Struct("!H")
_SECTIONS = slice(8, 12)  # of a message's head: how many records follow the answers


class Resolver(Protocol):
    async def resolve(self, name: str) -> list[IPv4Address]:
        """NotFound when the name is not known, or has no IPv4 address; Unavailable when nobody answers."""
        ...


class NameServers:
    """Those given, else those of this host."""

    def __init__(self, servers: tuple[str, ...] = (), port: int = PORT) -> None:
        self._given = servers
        self._port = port
        self._made: dns.asyncresolver.Resolver | None = None

    async def resolve(self, name: str) -> list[IPv4Address]:
        try:
            found = await self._resolver().resolve(dns.name.from_text(name), "A", search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            raise NotFound(f"{name} has no IPv4 address") from None
        except (dns.exception.DNSException, OSError) as error:
            raise Unavailable(f"no name server has answered about {name}: {type(error).__name__}") from None
        return [IPv4Address(one.to_text()) for one in found][:ADDRESSES_MAX]

    def _resolver(self) -> dns.asyncresolver.Resolver:
        """Made when it is first needed: reading this host's own needs its /etc/resolv.conf."""
        if self._made is None:
            made = dns.asyncresolver.Resolver(configure=not self._given)
            made.nameservers = [_NameServer(str(one), self._port) for one in self._given or made.nameservers]
            made.lifetime = LIFETIME_S
            made.cache = _Answers(ANSWERS_MAX)
            self._made = made
        return self._made


class _Answers(dns.resolver.LRUCache):
    def put(self, key: dns.resolver.CacheKey, value: dns.resolver.Answer) -> None:
        value.expiration = min(value.expiration, time.time() + KEPT_S_MAX)
        super().put(key, value)


class _NameServer(dns.nameserver.Do53Nameserver):
    """What does not fit into a datagram is read up to a bound: whoever has a zone decides how much it says."""

    async def async_query(
        self, request: dns.message.QueryMessage, *args: Any, max_size: bool, **more: Any
    ) -> dns.message.Message:
        if not max_size:
            return await super().async_query(request, *args, max_size=max_size, **more)
        async with asyncio.timeout(LIFETIME_S):
            wire = bytearray(await self._by_stream(request.to_wire(prepend_length=True)))
        wire[_SECTIONS] = bytes(4)  # they are about other names
        response = dns.message.from_wire(bytes(wire), ignore_trailing=True)
        if not request.is_response(response):
            raise dns.query.BadResponse
        return response

    async def _by_stream(self, question: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self.address, self.port)
        try:
            writer.write(question)
            (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if size > ANSWER_BYTES_MAX:
                raise dns.exception.FormError
            return await reader.readexactly(size)
        finally:
            writer.transport.abort()
