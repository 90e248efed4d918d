"""Cut short: what a server that ends answers to requests that outlived its drain; app.py wraps the routes in it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll.domain.errors import Unavailable
from atoll.surfaces.extensions import END
from atoll.surfaces.routing import Dialect
from atoll.surfaces.websocket_transport import CLOSE_RESTART

HANG_UP_S = 0.5  # for the connection of an answer that was begun


class CutShort:
    """Pure ASGI. A cancelled request is answered with 503; one whose answer is on its way already loses its
    connection, so that nobody takes half of it for all. WebSockets are told by their protocol."""

    def __init__(self, app: ASGIApp, dialect: Dialect) -> None:
        self._app = app
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if begun:
                await _hang_up(scope, receive)
            else:
                error = Unavailable("the server is stopping: what was asked for may be done in part")
                await self._dialect.error(error)(scope, receive, send)


async def _hang_up(scope: Scope, receive: Receive) -> None:
    scope["extensions"][END](CLOSE_RESTART, "service restart")
    with suppress(TimeoutError):
        async with asyncio.timeout(HANG_UP_S):
            while (await receive())["type"] != "http.disconnect":
                pass
