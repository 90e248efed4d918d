"""Resolver: the real addresses of the names that sandboxes may reach, asked of the host's name servers.

The egress gateway connects to exactly what it says; which of it may be reached is decided there.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Protocol

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver

from atoll.domain.errors import NotFound, Unavailable

LIFETIME_S = 5.0
ANSWERS_MAX = 10_000  # that are kept for as long as their servers said
ADDRESSES_MAX = 16


class Resolver(Protocol):
    async def resolve(self, name: str) -> list[IPv4Address]:
        """NotFound when the name is not known, or has no IPv4 address; Unavailable when nobody answers."""
        ...


class NameServers:
    """Those given, else those of this host."""

    def __init__(self, servers: tuple[str, ...] = ()) -> None:
        self._given = servers
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
            self._made = dns.asyncresolver.Resolver(configure=not self._given)
            if self._given:
                self._made.nameservers = list(self._given)
            self._made.lifetime = LIFETIME_S
            self._made.cache = dns.resolver.LRUCache(ANSWERS_MAX)
        return self._made
