"""The tools over streamable HTTP: each request brings its caller's own credential, and no session is kept.

What a request may do is decided by the API, which gets the credential that came with it. Requests whose Host or Origin
is not expected are refused, so that no page in a browser can use a server on its user's machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from atoll.domain.errors import AtollError, Forbidden, InvalidInput, RateLimited, Unauthenticated
from atoll.mcp.calling import Server
from atoll.mcp.server import make_server
from atoll.sdk._async.api import connect

PATH = "/mcp"
BODY_BYTES = 4 * 2**20 + 65_536  # the largest content that a tool takes, and what surrounds it
CONNECTIONS_MAX = 256
KNOWN_S, KNOWN_MAX = 10.0, 1_024  # how long, and how many, credentials are taken to be good still
HEALTH_S = 10.0


def application(server: Server, *, hosts: Sequence[str], origins: Sequence[str] = ()) -> ASGIApp:
    """What serves /mcp. `hosts` may stand in Host (`name:*` with any port), `origins` in Origin."""
    security = TransportSecuritySettings(allowed_hosts=list(hosts), allowed_origins=list(origins))
    # Sessions would be something to steal; without them each request stands on its own credential.
    app = make_server(replace(server, callers_key=True, api_key=None, sandbox=None)).streamable_http_app(
        streamable_http_path=PATH, stateless_http=True, transport_security=security, max_request_body_size=BODY_BYTES
    )
    return Credentials(app, server.url)


class Credentials:
    """Nobody gets in without a credential that the API takes."""

    def __init__(self, app: ASGIApp, url: str | None) -> None:
        self._app = app
        self._url = url
        self._known: dict[bytes, float] = {}  # digest -> until when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = await self._refused(scope) if scope["type"] == "http" else None
        await (self._app if refused is None else refused)(scope, receive, send)

    async def _refused(self, scope: Scope) -> Response | None:
        value = b", ".join(value for name, value in scope["headers"] if name == b"authorization").decode("latin-1")
        kind, _, text = value.partition(" ")
        if kind.lower() != "bearer" or not text.strip():
            return _unauthorized("a credential is required: Authorization: Bearer <key>")
        digest = hashlib.sha256(text.strip().encode("latin-1")).digest()
        if self._known.get(digest, 0.0) > time.monotonic():
            return None
        self._known.pop(digest, None)
        try:
            async with asyncio.timeout(HEALTH_S):
                await connect(self._url, text.strip()).call("GET", "/v1/templates")
        except Forbidden:
            pass  # it is good, and may not read
        except (Unauthenticated, InvalidInput):
            return _unauthorized("the credential is not valid")
        except RateLimited as error:
            return JSONResponse({"error": error.message}, 429, {"retry-after": str(error.retry_after_s)})
        except (AtollError, TimeoutError):
            return JSONResponse({"error": "the Atoll server does not answer"}, 503, {"retry-after": "1"})
        while len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self._known[digest] = time.monotonic() + KNOWN_S
        return None


async def serve(
    server: Server, host: str, port: int, *, hosts: Sequence[str] = (), origins: Sequence[str] = ()
) -> None:
    """Until it is interrupted."""
    app = application(server, hosts=[*_own_hosts(host), *hosts], origins=origins)
    config = uvicorn.Config(
        app, host, port, log_level="warning", limit_concurrency=CONNECTIONS_MAX, timeout_graceful_shutdown=5,
        server_header=False, ws="none",
    )  # fmt: skip
    await uvicorn.Server(config).serve()


def _own_hosts(host: str) -> list[str]:
    """What Host says of who comes to the address that it listens on."""
    names = ["127.0.0.1", "localhost", "[::1]"] if host in ("127.0.0.1", "localhost", "::1") else [host]
    return [form for name in names for form in (name, f"{name}:*")]


def _unauthorized(message: str) -> Response:
    return JSONResponse({"error": message}, 401, {"www-authenticate": "Bearer"})
