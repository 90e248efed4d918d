"""Which pages of other origins may read answers: any of Testbase's, as its clients in browsers expect; else those that
the settings name. app.py puts it around the routes.

No answer ever allows credentials, so that no cookie opens anything to another origin. What sandboxes serve answers for
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

TESTBASE_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")
TESTBASE_HEADERS = ("Content-Type", "Authorization", "X-API-Key")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
HEADERS = (
    *TESTBASE_HEADERS, "X-Admin-Key", "X-ComputeSDK-API-Key", "X-Provider", "X-Request-Timeout", "Idempotency-Key",
    "Last-Event-ID", "X-Request-Id",
)  # fmt: skip
EXPOSED = (
    "Retry-After", "RateLimit-Policy", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "X-Request-Id",
    "Content-Disposition", "Atoll-Task", "Idempotent-Replayed",
)  # fmt: skip
PREFLIGHT_AGE_S = 600
ANY = "*"

Chosen = Callable[[str], bool]  # of a path


class Cors:
    """Pure ASGI. `testbase` says which paths are Testbase's, `foreign` which are not this server's to speak for."""

    def __init__(self, app: ASGIApp, origins: Collection[str], testbase: Chosen, foreign: Chosen) -> None:
        self._app = app
        self._is_testbase = testbase
        self._is_foreign = foreign
        self._testbase = CORSMiddleware(
            app,
            allow_origins=[ANY],
            allow_methods=TESTBASE_METHODS,
            allow_headers=TESTBASE_HEADERS,
            expose_headers=EXPOSED,
            max_age=PREFLIGHT_AGE_S,
        )
        self._others: ASGIApp = app
        if origins:
            self._others = CORSMiddleware(
                app,
                allow_origins=list(origins),
                allow_methods=METHODS,
                allow_headers=HEADERS,
                expose_headers=EXPOSED,
                max_age=PREFLIGHT_AGE_S,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and any(name == b"origin" for name, _ in scope["headers"]):
            path = scope["path"]
            if self._is_testbase(path):
                app = self._testbase
            elif not self._is_foreign(path):
                app = self._others
        await app(scope, receive, send)
