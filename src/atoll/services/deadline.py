"""Deadlines: bound the wait for a part of Atoll and turn its silence into our own error; services use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from atoll.domain.errors import DeadlineExceeded


@asynccontextmanager
async def deadline(seconds: float | None, what: str) -> AsyncGenerator[None]:
    """DeadlineExceeded `<what> took longer than <n> s` when the body has not finished in time; None waits forever."""
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            yield
    except TimeoutError as error:
        if timer.expired():
            raise DeadlineExceeded(f"{what} took longer than {seconds:g} s") from error
        raise
