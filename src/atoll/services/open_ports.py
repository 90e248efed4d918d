"""OpenPorts: which ports are listened on in a sandbox, and whether what listens is well; as `sandboxes.open_ports`.

It looks only: no sandbox is woken for it, and none is kept from rest.
"""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from atoll.domain.errors import NotFound
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import SandboxState
from atoll.services.access import Access, not_running
from atoll.services.lives import Live


class OpenPorts:
    """All of them: Conflict `session not running: status=<s>` unless it runs."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def follow(self, principal: Principal, sandbox_id: str) -> AsyncGenerator[list[int], None]:
        """The ports now, and again after each change. Needs `read`. Close the iterator."""
        live = await self._live(principal, sandbox_id, Scope.READ)
        try:
            async with aclosing(self._ports(live)) as pieces:
                async for ports in pieces:
                    yield ports
        except NotFound:
            async with self._access.inside(live, "following the ports", within_s=None):
                raise

    async def now(self, principal: Principal, sandbox_id: str) -> list[int]:
        """Needs `read`."""
        live = await self._live(principal, sandbox_id, Scope.READ)
        inside = self._access.inside(live, "looking at the ports", within_s=self._access.limits.call_s)
        async with inside, aclosing(self._ports(live)) as pieces:
            return await anext(pieces)

    async def probe(self, principal: Principal, sandbox_id: str, port: int) -> tuple[StreamReader, StreamWriter]:
        """A connection to a port, whether or not it is exposed; the caller closes it. Needs `execute`. Unavailable."""
        live = await self._live(principal, sandbox_id, Scope.EXECUTE)
        async with self._access.inside(live, "reaching the port", within_s=self._access.limits.call_s):
            return await self._access.runtime.sidekick(sandbox_id).probe(port)

    async def _live(self, principal: Principal, sandbox_id: str, scope: Scope) -> Live:
        sandbox = await self._access.find(principal, sandbox_id, scope)
        if sandbox.state is not SandboxState.RUNNING:
            raise not_running(sandbox)
        return await self._access.running(principal, sandbox_id, scope)

    def _ports(self, live: Live) -> AsyncGenerator[list[int], None]:
        return self._access.runtime.sidekick(live.sandbox.id).ports()
