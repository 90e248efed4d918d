"""Addresses that answers give to clients: this server's own, and that of each sandbox's daemon.

Surfaces that answer with URLs ask here, so that all of them say the same behind a proxy.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from atoll.domain.ids import sandbox_id_of, subdomain
from atoll.settings import Settings


def sandbox_in(connection: HTTPConnection) -> str:
    """The id that stands in the path, in any of the spellings that addresses have of one."""
    named: str = connection.path_params["id"]
    return sandbox_id_of(named) or named


class Addresses:
    """`server.public_url` wins over what the request came to; `previews.domain` gives each sandbox a name,
    unless that is `localhost`."""

    def __init__(self, settings: Settings) -> None:
        self._public_url = settings.server.public_url
        domain = settings.previews.domain
        # browsers alone resolve names below localhost, and a daemon's clients are programs
        self._domain = "" if f".{domain}".endswith(".localhost") else domain

    def base(self, connection: HTTPConnection) -> str:
        """`http://host[:port]`, by which this client reaches the server."""
        if self._public_url:
            return self._public_url
        base = connection.base_url
        scheme = {"ws": "http", "wss": "https"}.get(base.scheme, base.scheme)
        return f"{scheme}://{base.netloc}"

    def daemon(self, connection: HTTPConnection, sandbox_id: str) -> str:
        """The base of the sandbox's sidekick API; clients append to it."""
        base = self.base(connection)
        if not self._domain:
            return f"{base}/sb/{sandbox_id}"
        parts = urlsplit(base)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{subdomain(sandbox_id)}.{self._domain}{port}"

    def events(self, connection: HTTPConnection, sandbox_id: str) -> str:
        """Where the sandbox's events are told, over WebSocket."""
        return "ws" + self.daemon(connection, sandbox_id).removeprefix("http") + "/ws"
