"""How the application is served over HTTP: uvicorn's settings, the same for the server's own listener and for gates.

`serve` uses it for what comes from outside, the composition root for what comes out of sandboxes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import uvicorn

from atoll.settings import Settings
from atoll.surfaces.crowd import Crowd
from atoll.surfaces.transport import Http
from atoll.surfaces.websocket_transport import PING_INTERVAL_S, PING_TIMEOUT_S, WebSocket

BACKLOG = 2048
KEEP_ALIVE_S = 75


def http_config(app: Any, settings: Settings, crowd: Crowd | None = None) -> uvicorn.Config:
    """For an application that is running; its connections are of that crowd."""
    server = settings.server
    return uvicorn.Config(
        app,
        http=partial(Http, crowd=crowd),  # type: ignore[arg-type]  # called like the class
        ws=WebSocket,
        loop="none",  # the caller's loop runs already
        interface="asgi3",
        lifespan="off",  # `running` does it, so that its errors reach the caller
        log_config=None,
        access_log=False,
        proxy_headers=False,  # the door reads X-Forwarded-For, from trusted proxies only
        server_header=False,
        ws_max_size=server.frame_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_INTERVAL_S,
        ws_ping_timeout=PING_TIMEOUT_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=server.drain_s,  # type: ignore[arg-type]  # any number of seconds will do
        backlog=BACKLOG,
    )
