"""HTTP over a stream that comes out of a sandbox: it becomes a connection of an application, which knows the sandbox.

The gateways of the API and of the models are served so.
"""

from __future__ import annotations

import asyncio
import copy
import socket
from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.config import Config
from uvicorn.server import ServerState

from atoll.services.joining import HELD_BYTES, Stream, join
from atoll.services.lives import Live
from atoll.sidekick.client import GateStream

HALF_CLOSED_S = 60.0
CLOSE_S = 5.0

# (config, server_state, app_state) -> a protocol that serves HTTP, and switches to WebSocket by itself
Http = Callable[..., asyncio.Protocol]


class Receive(Protocol):
    """An ASGI application."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class HttpStreams:
    """`config` is that of the server at the front: the same bounds hold here. `known` puts into the scope of each
    request who asks."""

    def __init__(self, app: Receive, config: Config, http: Http, known: Callable[[Live, Any], None]) -> None:
        if not config.loaded:  # else each connection would, and put the application back that knows nobody
            config.load()
        self._app = app
        self._config = config
        self._http = http
        self._known = known
        self._state = ServerState()

    async def serve(self, live: Live, stream: GateStream) -> None:
        """Answer the program's requests until it hangs up. Cancelled, it cuts the stream."""
        ours, theirs = socket.socketpair()
        config = self._config_for(live)
        loop = asyncio.get_running_loop()
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=HELD_BYTES)
        except BaseException:
            theirs.close()
            raise
        try:
            await loop.connect_accepted_socket(
                lambda: self._http(config=config, server_state=self._state, app_state={}), theirs
            )
            await join(Stream(stream.reader, stream.writer), Stream(reader, writer), half_closed_s=HALF_CLOSED_S)
        finally:
            writer.transport.abort()

    async def close(self) -> None:
        """Let requests that are under way end, for a moment; a second call does nothing."""
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=CLOSE_S)

    def _config_for(self, live: Live) -> Config:
        """The same, for an application that knows who asks: a WebSocket takes it from here too."""
        config = copy.copy(self._config)
        sandbox_id = live.sandbox.id

        async def known(scope: Any, receive: Any, send: Any) -> None:
            scope["client"] = (sandbox_id, 0)
            self._known(live, scope)
            await self._app(scope, receive, send)

        config.loaded_app = known
        return config
