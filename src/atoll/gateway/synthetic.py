"""Synthetic addresses: the names that a sandbox has asked for, each under an address that only it knows.

So a connection tells which name was meant, whatever other names share that host's real address. The addresses are of a
range that nobody routes (RFC 2544); which is whose follows from the name, so that they mean the same after a restart.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

RANGE = IPv4Network("198.18.0.0/15")
NAMES_MAX = 8192  # of one sandbox; those that it asked for longest ago go first
_FIRST = int(RANGE.network_address) + 1
_COUNT = RANGE.num_addresses - 2


class SyntheticNames:
    """Of one sandbox."""

    def __init__(self, sandbox_id: str, names: Iterable[str] = ()) -> None:
        """`names` are known from the start."""
        self._sandbox_id = sandbox_id
        self._addresses: OrderedDict[str, IPv4Address] = OrderedDict()
        self._names: dict[IPv4Address, str] = {}
        for name in names:
            self.address_of(name)

    def address_of(self, name: str) -> IPv4Address:
        known = self._addresses.get(name)
        if known is not None:
            self._addresses.move_to_end(name)
            return known
        while len(self._addresses) >= NAMES_MAX:
            _, freed = self._addresses.popitem(last=False)
            del self._names[freed]
        at = int.from_bytes(hashlib.sha256(f"{self._sandbox_id}\0{name}".encode()).digest()[:8], "big") % _COUNT
        while (address := IPv4Address(_FIRST + at)) in self._names:
            at = (at + 1) % _COUNT
        self._addresses[name], self._names[address] = address, name
        return address

    def name_of(self, address: IPv4Address) -> str | None:
        """The name that it was given for; None for one that nobody has asked for, or not lately."""
        return self._names.get(address)
