"""The connections that are open, and which of them goes when there are too many. `serve` makes one for all ports, and
`transport.Http` tells it of each connection.
"""

from __future__ import annotations

from asyncio import BaseTransport, Transport
from collections import Counter
from collections.abc import Sequence

from atoll.surfaces.door import Network, is_loopback, is_within, network_of


class Crowd:
    """`most` of them in all, and of one address `most_of_one`: not of this machine, nor of proxies, who are many.

    In all, who has said nothing whole goes first, then who has nothing under way, the longest silent of each first. Of
    one address, the newest.
    """

    def __init__(self, most: int, most_of_one: int, proxies: Sequence[Network] = ()) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._proxies = tuple(proxies)
        self._networks: dict[BaseTransport, str] = {}
        self._counts: Counter[str] = Counter()
        self._unheard: dict[Transport, None] = {}
        self._resting: dict[Transport, None] = {}

    def __len__(self) -> int:
        return len(self._networks)

    def join(self, transport: Transport, address: str) -> None:
        """A new connection, which may be closed at once."""
        network = self._networks[transport] = network_of(address)
        self._counts[network] += 1
        if self._counts[network] > self._most_of_one and not self._is_many(address):
            self._turn_out(transport)
            return
        if len(self._networks) > self._most:
            self._turn_out(next(iter(self._unheard or self._resting), transport))
        if transport in self._networks:
            self._unheard[transport] = None

    def busy(self, transport: Transport) -> None:
        """A whole head came."""
        self._unheard.pop(transport, None)
        self._resting.pop(transport, None)

    def rests(self, transport: Transport) -> None:
        """What it asked for is answered."""
        if transport in self._networks:
            self._resting[transport] = None

    def leave(self, transport: Transport) -> None:
        """It is gone; a second call does nothing."""
        network = self._networks.pop(transport, None)
        if network is None:
            return
        self.busy(transport)
        self._counts[network] -= 1
        if not self._counts[network]:
            del self._counts[network]

    def _turn_out(self, transport: Transport) -> None:
        self.leave(transport)
        transport.abort()

    def _is_many(self, address: str) -> bool:
        return is_loopback(address) or is_within(address, self._proxies)
