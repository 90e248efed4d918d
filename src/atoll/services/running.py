"""RunningSandboxes: what charging asks of the sandboxes here: how long each has run, which have ended, an end."""

from __future__ import annotations

import asyncio

from atoll.domain.errors import Conflict
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.services.access import Access
from atoll.services.endings import Endings
from atoll.services.lives import Live

AT_ONCE = 20


class RunningSandboxes:
    """Sandboxes makes it."""

    def __init__(self, access: Access, endings: Endings) -> None:
        self._access = access
        self._endings = endings

    async def measured(self) -> list[tuple[Sandbox, float]]:
        """Those that run here, and how many seconds each has run in all; not those that are being made or ended."""
        lives = [live for live in self._access.lives if live.sandbox.state is SandboxState.RUNNING and not live.busy]
        found: list[tuple[Sandbox, float]] = []
        for at in range(0, len(lives), AT_ONCE):
            some = lives[at : at + AT_ONCE]
            found += zip([one.sandbox for one in some], await asyncio.gather(*map(self._seconds, some)), strict=True)
        return found

    def take_left(self) -> list[str]:
        """The ids of those that have ended or rest since the last call."""
        return self._access.lives.take_left()

    async def end(self, sandbox_id: str, reason: str) -> None:
        """Conflict when it has ended."""
        live = self._access.lives.get(sandbox_id)
        if live is None:
            raise Conflict("session has ended")
        work = self._endings.kill(live, "system", None, reason=reason)
        await self._access.background.finish(work, f"{reason} {sandbox_id}")

    async def _seconds(self, live: Live) -> float:
        return live.usage(await self._endings.measure(live)).duration_s
