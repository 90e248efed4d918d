"""An ASGI application of a test's own over the transports of the server, and nothing else of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from atoll.surfaces import transport
from atoll.surfaces.websocket_transport import WebSocket


class _Server(uvicorn.Server):
    async def serve(self, sockets: Any = None) -> None:
        await self._serve(sockets)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    """The port of loopback that it is served at."""
    config = uvicorn.Config(
        app, port=0, http=transport.Http, ws=WebSocket, loop="none", lifespan="off", log_config=None,
        ws_max_size=2**20, ws_per_message_deflate=False,
    )  # fmt: skip
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    for _ in range(1000):
        if server.started:
            break
        await asyncio.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task
