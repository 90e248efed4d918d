"""What differs when the SDK awaits: its connections, locks, pauses and files. `_io` has the same for waiting.

The script that makes `_sync/` from `_async/` swaps one for the other; everything above is written once.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import IO, Any, TypeVar

from httpcore2 import AsyncConnectionPool

from atoll.sdk.connections import Lane, free_lane, limits

AsyncLock = asyncio.Lock
T = TypeVar("T")
_Lanes = list[Lane[AsyncConnectionPool]]
_Key = tuple[asyncio.AbstractEventLoop, bool]
_kept: dict[_Key, tuple[_Lanes, AsyncGenerator[None]]] = {}


async def async_connections(tls: bool) -> Lane[AsyncConnectionPool]:
    """Of the running event loop; closed when that is shut down."""
    key = (asyncio.get_running_loop(), tls)
    kept = _kept.get(key)
    if kept is None:
        for other in [other for other in _kept if other[0].is_closed()]:
            del _kept[other]
        lanes: _Lanes = []
        kept = _kept[key] = lanes, _close_at_end(key, lanes)
        await anext(kept[1])
    return free_lane(kept[0], lambda: AsyncConnectionPool(**limits(tls)))


async def _close_at_end(key: _Key, lanes: _Lanes) -> AsyncGenerator[None]:
    """Whoever shuts a loop down closes the generators that began in it: the only notice that asyncio gives."""
    try:
        yield
    finally:
        _kept.pop(key, None)
        for lane in lanes:
            await lane.pool.aclose()


async def async_sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def async_read(file: IO[bytes], size: int) -> bytes:
    """Disk reads belong in a thread; files in memory do not."""
    if hasattr(file, "getbuffer"):
        return file.read(size)
    return await asyncio.to_thread(file.read, size)


async def async_write(file: IO[bytes], data: bytes) -> None:
    if hasattr(file, "getbuffer"):
        file.write(data)
    else:
        await asyncio.to_thread(file.write, data)


async def async_call(function: Callable[[Any], Any], argument: object) -> None:
    """Call back; a coroutine function is awaited."""
    answer = function(argument)
    if inspect.isawaitable(answer):
        await answer


async def async_work(function: Callable[..., T], *arguments: Any) -> T:
    """Work that blocks: on the disk, or for long."""
    return await asyncio.to_thread(function, *arguments)


class AsyncBackground:
    """A call that goes on beside the caller; `join` waits for it, and returns or raises what it did."""

    def __init__(self, function: Callable[..., Awaitable[Any]], *arguments: object) -> None:
        self._task = asyncio.ensure_future(function(*arguments))

    async def join(self) -> Any:
        return await self._task

    async def cancel(self) -> None:
        """Give it up. Its connection must be closed already: the sync twin can only wait for the end."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # looked at: nobody is to be told
