"""How the execbox dialect speaks of errors: one table and one body, `{error, code, title, status, detail}`.

The body merges the protocol's own form with the problem form that its dashboard reads; routing calls it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from atoll.domain.errors import (
    AtollError,
    Conflict,
    Corrupt,
    DeadlineExceeded,
    Forbidden,
    Internal,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from atoll.surfaces.bodies import Invalid, Lingering, json_bytes

# The nearest ancestor of an error decides.
TABLE: dict[type[AtollError], tuple[int, str]] = {
    InvalidInput: (400, "BAD_REQUEST"),
    Unauthenticated: (401, "UNAUTHORIZED"),
    Forbidden: (403, "FORBIDDEN"),
    NotFound: (404, "NOT_FOUND"),
    Conflict: (409, "CONFLICT"),
    TooLarge: (413, "TOO_LARGE"),
    QuotaExceeded: (429, "QUOTA_EXCEEDED"),
    RateLimited: (429, "RATE_LIMIT_EXCEEDED"),
    Internal: (500, "INTERNAL"),
    Corrupt: (500, "CORRUPT"),
    Unsupported: (501, "NOT_IMPLEMENTED"),
    Unavailable: (503, "UNAVAILABLE"),
    DeadlineExceeded: (504, "DEADLINE_EXCEEDED"),
}
RETRY_AFTER_S = 1  # of an answer that says "not now" and has no better guess


class ExecboxDialect:
    """The envelope of every execbox route, and of paths that nobody serves."""

    def error(self, error: AtollError) -> Response:
        status, code = status_and_code(error)
        headers: dict[str, str] = {}
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        if isinstance(error, RateLimited):
            headers["retry-after"] = str(error.retry_after_s)
        elif status == 503:
            headers["retry-after"] = str(RETRY_AFTER_S)
        if status == 413:
            headers["connection"] = "close"  # the rest of the body is not worth reading
        return _envelope(status, code, error.message, headers, details=_details(error))

    def not_found(self) -> Response:
        return _envelope(404, "NOT_FOUND", "no such route", {})

    def method_not_allowed(self, allowed: list[str]) -> Response:
        methods = ", ".join(allowed)
        message = f"this path knows {methods} only"
        return _envelope(405, "METHOD_NOT_ALLOWED", message, {"allow": methods})

    def upgrade_required(self) -> Response:
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        return _envelope(426, "UPGRADE_REQUIRED", "this path speaks WebSocket", headers)


def status_and_code(error: AtollError) -> tuple[int, str]:
    """The HTTP status and the wire's code of an error."""
    for ancestor in type(error).__mro__:
        if ancestor in TABLE:
            return TABLE[ancestor]
    return TABLE[Internal]


def _details(error: AtollError) -> list[dict[str, str]]:
    if isinstance(error, Invalid):
        return [_detail(field, message) for field, message in error.errors]
    if isinstance(error, InvalidInput) and error.field:
        return [_detail(error.field, error.message)]
    return []


def _detail(field: str, message: str) -> dict[str, str]:
    return {"message": message, "location": field}


def _envelope(
    status: int, code: str, message: str, headers: dict[str, str], details: list[dict[str, str]] | None = None
) -> Response:
    body: dict[str, Any] = {
        "error": message,
        "code": code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
    }
    if details:
        body["field"] = details[0]["location"]
        body["errors"] = details
    kind = Lingering if status == 413 else Response
    return kind(json_bytes(body), status, headers, "application/json")
