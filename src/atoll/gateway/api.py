"""The API, for sandboxes with a capability: a stream out of one becomes a connection of the application.

Who asks is known by the stream: the request's credential is set here, whatever its headers say.
"""

from __future__ import annotations

from typing import Any

from uvicorn.config import Config

from atoll.gateway.http import Http, HttpStreams, Receive
from atoll.services.identity.connected import Connected
from atoll.services.lives import Live


class ApiGateway(HttpStreams):
    """`credential` is the name under which a scope carries one that was read already."""

    def __init__(self, app: Receive, config: Config, http: Http, connected: Connected, credential: str) -> None:
        def known(live: Live, scope: Any) -> None:
            scope[credential] = connected.name(live)

        super().__init__(app, config, http, known)
