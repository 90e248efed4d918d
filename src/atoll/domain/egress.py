"""Egress: the list of names and addresses that a sandbox of network mode listed may reach, and what it allows.

Services check one when it is asked for, the gateway asks it about every name and every connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network

from atoll.domain.addresses import Address, is_public
from atoll.domain.errors import InvalidInput

FIELD = "network.allow"
NAME_CHARS_MAX = 253
EVERYTHING = "*"
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")  # as the last part of a name: some take it for an address


@dataclass(frozen=True, slots=True)
class AllowList:
    """`names` are reached themselves, `parents` by every name below them; `networks` by address."""

    everything: bool = False  # public, that is: no list makes anything else reachable
    names: frozenset[str] = frozenset()
    parents: tuple[str, ...] = ()
    networks: tuple[IPv4Network, ...] = ()

    def allows_name(self, name: str) -> bool:
        """`name` as `clean_name` gives it."""
        return self.everything or name in self.names or any(name.endswith(parent) for parent in self.parents)

    def meets(self, other: AllowList) -> bool:
        """Whether there is a name that both allow."""
        if self.everything or other.everything:
            return True
        below = any(one.endswith(two) or two.endswith(one) for one in self.parents for two in other.parents)
        return below or any(map(other.allows_name, self.names)) or any(map(self.allows_name, other.names))

    def allows_address(self, address: Address) -> bool:
        """Whether it may be reached by itself, without a name."""
        return self.everything or any(address in network for network in self.networks)


def allow_list(entries: Iterable[str]) -> AllowList:
    """InvalidInput for an entry that is no public name, `*.` and a name, `*`, or a public IPv4 address or network."""
    everything, names, parents, networks = False, set[str](), list[str](), list[IPv4Network]()
    for entry in entries:
        if entry == EVERYTHING:
            everything = True
        elif (network := _network(entry)) is not None:
            if not _any_public(network):
                raise _bad(entry, "is not public, and no list makes it reachable")
            networks.append(network)
        else:
            below = entry.startswith("*.")
            name = clean_name(entry.removeprefix("*."))
            if name is None:
                raise _bad(entry, "must be a name such as pypi.org, *.pypi.org, or an IPv4 address or network")
            if below:
                parents.append("." + name)
            else:
                names.add(name)
    return AllowList(everything, frozenset(names), tuple(parents), tuple(networks))


def clean_name(text: str) -> str | None:
    """A host name in the one form in which names are compared: small letters, ASCII, no dot at the end. None for what
    is none, and for an address."""
    text = text.removesuffix(".")
    if len(text) > NAME_CHARS_MAX:  # before anything that takes longer the longer it is
        return None
    if not text.isascii():
        try:
            text = text.encode("idna").decode()
        except UnicodeError:
            return None
    text = text.lower()
    if len(text) > NAME_CHARS_MAX or not _NAME.fullmatch(text) or _NUMBER.fullmatch(text.rpartition(".")[2]):
        return None
    return text


def _network(entry: str) -> IPv4Network | None:
    try:
        return IPv4Network(entry)
    except ValueError:
        return None


def _any_public(network: IPv4Network) -> bool:
    """Of a large network some may be: each address is looked at again when somebody wants to reach it."""
    parts = network.subnets(new_prefix=8) if network.prefixlen < 8 else [network]
    return any(is_public(part.network_address) or is_public(part.broadcast_address) for part in parts)


def _bad(entry: str, why: str) -> InvalidInput:
    return InvalidInput(f"{FIELD}: {entry[:100]!r} {why}", field=FIELD)
