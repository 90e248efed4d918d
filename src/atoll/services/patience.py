"""Patience: how long an answer is waited for, in turns of this process's own timer. Access and health use it.

Time in which the event loop stood still, whoever made it, is nobody's silence: what came meanwhile is read first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from atoll.domain.errors import DeadlineExceeded

T = TypeVar("T")
TURNS = 20


async def patience(seconds: float, work: Coroutine[Any, Any, T], what: str) -> T:
    """Its result; DeadlineExceeded `<what> took longer than <n> s` when it has not finished in so many seconds of a
    loop that runs. A turn that came late counts as long as it was meant to be."""
    task = asyncio.ensure_future(work)
    try:
        for _ in range(TURNS):
            done, _ = await asyncio.wait({task}, timeout=seconds / TURNS)
            if done:
                return task.result()
    finally:
        task.cancel()
    raise DeadlineExceeded(f"{what} took longer than {seconds:g} s")
