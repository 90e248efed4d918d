"""Where a port of a sandbox is reached from here: on the server's own machine by its listener, else by a preview.

The SDK's word for an address is a host and a port, with a query: previews below a path do not fit into it.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from agents.sandbox.types import ExposedPortEndpoint

from atoll.domain.errors import Unsupported
from atoll.sdk import AsyncSandbox
from atoll.sdk._async.api import AsyncApi

PREVIEW_S = 86_400.0
NO_HOST = "from another machine ports are reached by previews with host names: set previews.domain on the server"


async def address_of(api: AsyncApi, sandbox: AsyncSandbox, port: int) -> ExposedPortEndpoint:
    """NotFound unless the port is one of those that the sandbox was made with; Unsupported where no address fits."""
    own = await sandbox.url(port)
    if _is_here(api.config.host):
        return _endpoint(own)
    body = {"sandbox_id": sandbox.id, "port": port}
    shown = await api.call("POST", "/preview/register", body)
    if urlsplit(str(shown["preview_url"])).path not in ("", "/"):
        raise Unsupported(NO_HOST)
    opened = await api.call("POST", "/preview/token", {**body, "expires_in": PREVIEW_S})
    return _endpoint(str(opened["url"]))


def _endpoint(url: str) -> ExposedPortEndpoint:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return ExposedPortEndpoint(parts.hostname or "", parts.port or (443 if tls else 80), tls, parts.query)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
