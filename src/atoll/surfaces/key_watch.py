"""Key watch: what lasts ends with its key. A stream or a long request whose key is revoked or expires loses its
connection within seconds; the door opens one for each request, and most are over before the first look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

import structlog
from starlette.types import Scope

from atoll.domain.errors import AtollError, Unauthenticated
from atoll.surfaces.extensions import END
from atoll.telemetry.trace import trace_of

_log = structlog.get_logger("atoll.surface")
LOOK_AGAIN_S = 2.0
CLOSE_POLICY = 1008
NOT_VALID = "the key is no longer valid"


@contextmanager
def watched(scope: Scope, authenticate: Callable[[], Awaitable[object]]) -> Generator[None]:
    """While it is open, `authenticate` is called every LOOK_AGAIN_S; the connection ends when it refuses.

    An answer that has begun breaks off, a WebSocket is closed with 1008. What was asked for goes on where it would go
    on without its client.
    """
    loop = asyncio.get_running_loop()
    task: asyncio.Task[None] | None = None

    def begin() -> None:
        nonlocal task
        task = loop.create_task(_look(scope, authenticate), name="key watch")

    timer = loop.call_later(LOOK_AGAIN_S, begin)
    try:
        yield
    finally:
        timer.cancel()
        if task is not None:
            task.cancel()


async def _look(scope: Scope, authenticate: Callable[[], Awaitable[object]]) -> None:
    end: Callable[[int, str], bool] | None = scope.get("extensions", {}).get(END)
    trace = trace_of(scope)
    while end is not None:
        try:
            if trace.key_id is not None:  # else the door is still at it
                await authenticate()
        except Unauthenticated:
            if end(CLOSE_POLICY, NOT_VALID):
                _log.info("connection.cut", key_id=trace.key_id, request_id=trace.request_id, why=NOT_VALID)
                return
        except AtollError:
            pass  # the records do not answer: the next look will tell
        await asyncio.sleep(LOOK_AGAIN_S)
