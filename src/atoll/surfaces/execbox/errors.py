"""How the execbox dialect speaks of errors: one body, `{error, code, title, status, detail}`.

The body merges the protocol's own form with the problem form that its dashboard reads; routing calls it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from atoll.domain.errors import AtollError, InvalidInput
from atoll.surfaces.bodies import Invalid
from atoll.surfaces.statuses import envelope, headers_of, status_and_code


class ExecboxDialect:
    """The envelope of every execbox route, and of paths that nobody serves."""

    surface = "execbox"

    def error(self, error: AtollError) -> Response:
        status, code = status_and_code(error)
        return _envelope(status, code, error.message, headers_of(error, status), details=_details(error))

    def not_found(self) -> Response:
        return _envelope(404, "NOT_FOUND", "no such route", {})

    def method_not_allowed(self, allowed: list[str]) -> Response:
        methods = ", ".join(allowed)
        message = f"this path knows {methods} only"
        return _envelope(405, "METHOD_NOT_ALLOWED", message, {"allow": methods})

    def upgrade_required(self) -> Response:
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        return _envelope(426, "UPGRADE_REQUIRED", "this path speaks WebSocket", headers)


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
    return envelope(status, body, headers)
