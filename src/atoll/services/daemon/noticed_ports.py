"""NoticedPorts: previews of ports that the signals of a sandbox noticed: a few at a time, and gone soon after the port.

`signals` has one for each sandbox that it follows; what somebody registered is none of them, and stays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from atoll.domain.principal import Principal
from atoll.services.daemon.port_urls import PortUrls

AT_ONCE_MAX = 32
KEPT_S = 60.0  # after a port was closed: a program that begins anew finds its preview as it was
SWEEP_S = 15.0


class NoticedPorts:
    """Of one sandbox; what it had noticed in another life of Atoll too."""

    def __init__(
        self,
        urls: PortUrls,
        owner: Principal,
        sandbox_id: str,
        base: str | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._urls = urls
        self._owner = owner
        self._sandbox_id = sandbox_id
        self._base = base or urls.base
        self._now = monotonic
        self._kept: set[int] = set()
        self._closed: dict[int, float] = {}  # of those: since when

    async def begin(self, open_now: set[int]) -> None:
        """Of what was noticed before, that which is closed by now goes in a while."""
        self._kept = await self._urls.noticed(self._owner, self._sandbox_id)
        self._closed = dict.fromkeys(self._kept - open_now, self._now())

    async def opened(self, port: int) -> str:
        """Its address; empty where no more previews are to be had for this sandbox, or for its owner."""
        self._closed.pop(port, None)
        if port not in self._kept and len(self._kept) >= AT_ONCE_MAX:
            await self.drop_closed()
            if len(self._kept) >= AT_ONCE_MAX:
                return ""
        url, noticed = await self._urls.notice(self._owner, self._sandbox_id, port, self._base)
        if noticed:
            self._kept.add(port)
        return url

    def closed(self, port: int) -> str:
        """The address that it had."""
        if port in self._kept:
            self._closed[port] = self._now()
        return self._urls.at(self._sandbox_id, port, self._base)

    async def sweep(self) -> None:
        """For ever: take away what was closed a while ago."""
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.drop_closed()

    async def drop_closed(self) -> None:
        """What has been closed for KEPT_S."""
        before = self._now() - KEPT_S
        for port in [port for port, since in self._closed.items() if since <= before]:
            await self._drop(port)

    async def _drop(self, port: int) -> None:
        self._closed.pop(port, None)
        self._kept.discard(port)
        await self._urls.drop(self._owner, self._sandbox_id, port)
