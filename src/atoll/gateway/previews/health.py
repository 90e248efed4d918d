"""Health: whether the programs behind the previews that are in use answer; asked on a timer, told in the list.

Only while somebody uses them: nothing is woken for it, and nothing kept alive.
"""

from __future__ import annotations

import asyncio
import socket

from atoll.domain.errors import AtollError
from atoll.domain.preview import Preview
from atoll.gateway.previews.failures import UpstreamFailed
from atoll.gateway.previews.pool import Port
from atoll.gateway.previews.upstream import Upstream
from atoll.services.previews.previews import Previews
from atoll.services.reaching import Reaching

CHECK_S = 2.0
AT_ONCE = 16
HEALTHY = range(200, 400)


class Health:
    """An answer of 2xx or 3xx to `OPTIONS /`, or to GET of the registered path, within CHECK_S."""

    def __init__(self, previews: Previews, reaching: Reaching) -> None:
        self._previews = previews
        self._reaching = reaching
        self._used: set[Port] = set()  # as they are registered: what answers there may be a fallback
        self._asked: set[str] = set()

    def use(self, preview: Preview) -> None:
        """Somebody uses it: the next run asks it."""
        self._used.add((preview.sandbox_id, preview.port))

    async def run(self) -> None:
        """Ask what serves the previews that were used since the last run, some at a time; forget the others."""
        used, self._used = list(self._used), set()
        now: set[str] = set()
        for at in range(0, len(used), AT_ONCE):
            found = [await self._previews.find(*port) for port in used[at : at + AT_ONCE]]
            some = [one for one in found if one is not None]
            healthy = await asyncio.gather(*map(self._healthy, some))
            for one, well in zip(some, healthy, strict=True):
                self._previews.note_health(one, healthy=well)
                now.add(one.id)
        for name in self._asked - now:
            self._previews.forget_health(name)
        self._asked = now

    async def answers(self, preview: Preview) -> bool:
        """Whether it is well, now; without a path of its own to ask, any answer will do."""
        return await self._healthy(preview, range(600) if preview.health_path is None else HEALTHY)

    async def _healthy(self, preview: Preview, well: range = HEALTHY) -> bool:
        if self._reaching.running(preview.target) is None:
            return False
        try:
            async with asyncio.timeout(CHECK_S):
                found = await self._reaching.open(preview.target, preview.port)
                if not isinstance(found, socket.socket):
                    found.writer.transport.abort()
                    return True  # something listens: more is not to be had without a socket
                return await self._status(found, preview) in well
        except (TimeoutError, OSError, AtollError, UpstreamFailed):
            return False

    async def _status(self, sock: socket.socket, preview: Preview) -> int:
        upstream = Upstream(sock, first_byte_s=CHECK_S, idle_s=CHECK_S)
        try:
            method, path = ("OPTIONS", "/") if preview.health_path is None else ("GET", preview.health_path)
            upstream.begin(method)
            upstream.wire.write(
                f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{preview.port}\r\nconnection: close\r\n\r\n".encode()
            )
            return (await upstream.head()).status
        finally:
            upstream.close()
