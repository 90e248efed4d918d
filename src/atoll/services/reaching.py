"""Reaching: connections to ports of sandboxes for the gateway, which has found out already that they may be made.

The previews use it. A sandbox that is suspended is made again, and one that is used is not idle.
"""

from __future__ import annotations

import asyncio
import socket
import time
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass

from atoll.domain.errors import Conflict, NotFound, Unavailable
from atoll.domain.ids import SANDBOX_ID
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.services.access import Access
from atoll.services.lives import Live
from atoll.services.specs import check_port

RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class Streams:
    """A connection that only the runtime's own streams can give."""

    reader: StreamReader
    writer: StreamWriter


class Reaching:
    """One for all sandboxes."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._woken: dict[str, float] = {}  # until when, on the monotonic clock, its program may yet begin to listen

    async def find(self, principal: Principal, sandbox_id: str, scope: Scope) -> Sandbox:
        """Forbidden, NotFound."""
        return await self._access.find(principal, sandbox_id, scope)

    async def known(self, sandbox_id: str) -> Sandbox | None:
        """The sandbox, whoever asks; None when it is out of every list."""
        live = self._access.lives.get(sandbox_id)
        if live is not None:
            return live.sandbox
        found = await self._access.records.get_sandbox(sandbox_id) if SANDBOX_ID.match(sandbox_id) else None
        return None if found is None or found.removed else found

    def running(self, sandbox_id: str) -> Live | None:
        """It, when this server knows that it runs and is not paused."""
        live = self._access.lives.get(sandbox_id)
        if live is None or live.paused or live.sandbox.state is not SandboxState.RUNNING:
            return None
        return live

    async def open(self, sandbox_id: str, port: int) -> socket.socket | Streams:
        """A connection to 127.0.0.1:port inside; the caller closes it.

        NotFound and Conflict when the sandbox does not run and cannot be woken, Unavailable when nothing listens.
        """
        check_port(port)
        live = self.running(sandbox_id) or await self._wake(sandbox_id)
        access, runtime = self._access, self._access.runtime
        while True:
            try:
                async with access.inside(live, "reaching the port", within_s=access.limits.call_s):
                    taken = await runtime.take_port(sandbox_id, port)
                    return taken if taken is not None else Streams(*await runtime.dial(sandbox_id, port))
            except Unavailable:
                if time.monotonic() >= self._woken.get(sandbox_id, 0.0):
                    self._woken.pop(sandbox_id, None)
                    raise
            await asyncio.sleep(RETRY_S)

    def expect(self, sandbox_id: str) -> None:
        """It was made just now: whoever connects waits for its program to listen."""
        now = time.monotonic()
        self._woken = {known: until for known, until in self._woken.items() if until > now}
        self._woken[sandbox_id] = now + self._access.limits.wake_port_s

    async def touch(self, sandbox_id: str) -> None:
        """It is in use."""
        live = self.running(sandbox_id)
        if live is not None:
            async with self._access.inside(live, "telling that it is used", within_s=self._access.limits.call_s):
                await self._access.runtime.sidekick(sandbox_id).touch()

    async def _wake(self, sandbox_id: str) -> Live:
        sandbox = await self.known(sandbox_id)
        if sandbox is None:
            raise NotFound("session not found")
        if sandbox.state in (SandboxState.SUSPENDED, SandboxState.RESUMING):
            live = await self._access.wake(sandbox)
            self.expect(sandbox_id)
            return live
        if sandbox.state is not SandboxState.RUNNING:
            raise _not_running(sandbox)
        live = self._access.lives.get(sandbox_id) or self._access.lives.add(sandbox)
        if live.paused:
            raise _not_running(sandbox)
        return live


def _not_running(sandbox: Sandbox) -> Conflict:
    """Who looks at a preview hears of sandboxes, and of no session."""
    return Conflict(f"sandbox not running: status={sandbox.state}")
