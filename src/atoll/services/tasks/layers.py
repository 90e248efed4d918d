"""Layers: where a task's sandbox sees its agent's program, which is installed when the first task needs it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol

from atoll.services.agents.installed import Progress, inside
from atoll.services.agents.installs import AgentInstalls

Told = Callable[[str], Awaitable[None]]
TOLD_MAX = 64  # steps that wait to be told; more are left out


class Layers(Protocol):
    """Where the packages of agents are."""

    async def layer(self, agent: str, told: Told) -> str:
        """The path inside a sandbox whose spec names the agent; installed first where it is not yet."""
        ...


class NoLayers:
    """No agent needs a package."""

    async def layer(self, agent: str, told: Told) -> str:
        return ""


class InstalledLayers:
    """Those of this server's store."""

    def __init__(self, installs: AgentInstalls) -> None:
        self._installs = installs

    async def layer(self, agent: str, told: Told) -> str:
        if self._installs.installed(agent) is None:
            async with _telling(agent, told) as progress:
                await self._installs.install(agent, progress)
        return inside(agent)


@contextlib.asynccontextmanager
async def _telling(agent: str, told: Told) -> AsyncGenerator[Callable[[Progress], None]]:
    """Each step once, in order, beside the installation."""
    steps: asyncio.Queue[str] = asyncio.Queue(TOLD_MAX)
    last = ""

    def progress(now: Progress) -> None:
        nonlocal last
        if now.step != last:
            last = now.step
            with contextlib.suppress(asyncio.QueueFull):
                steps.put_nowait(f"installing the agent {agent}: {now.step}")

    async def tell() -> None:
        while True:
            await told(await steps.get())

    telling = asyncio.create_task(tell(), name=f"installing {agent}")
    try:
        yield progress
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
