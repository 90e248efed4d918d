"""Pace: so many of something in a second; who comes too soon waits in line. The egress gateway has one per sandbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Pace:
    """`at_once` may come together when nothing came for a while."""

    def __init__(self, per_s: float, at_once: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._at_once = at_once
        self._monotonic = monotonic
        self._room = float(at_once)
        self._since = monotonic()
        self._line = asyncio.Lock()

    async def turn(self) -> None:
        """Wait for it. The other coroutines always have theirs before, and one in the line at a time has its own."""
        async with self._line:
            now = self._monotonic()
            self._room = min(self._at_once, self._room + (now - self._since) * self._per_s)
            self._since = now
            await asyncio.sleep(max(0.0, (1 - self._room) / self._per_s))
            self._room -= 1
