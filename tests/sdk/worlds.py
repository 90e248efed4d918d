"""One call in both worlds of the SDK: the waiting one and the awaiting one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from atoll import Agent, AsyncAgent, RunResult, run


def in_both_worlds(**how: Any) -> list[Callable[[str], RunResult]]:
    """`run` of an Agent, and of an AsyncAgent."""
    return [
        lambda task: run(Agent(**how), task),
        lambda task: asyncio.run(run(AsyncAgent(**how), task)),
    ]
