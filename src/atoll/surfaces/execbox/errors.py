"""How the execbox dialect speaks of errors: one body, `{error, code, title, status, detail}`.

The body merges the protocol's own form with the problem form that its dashboard reads; routing calls it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from atoll.domain.errors import AtollError, InvalidInput
from atoll.surfaces.bodies import Invalid
from atoll.surfaces.dialects import JsonDialect


class ExecboxDialect(JsonDialect):
    """The envelope of every execbox route, and of paths that nobody serves."""

    surface = "execbox"

    def body(self, status: int, code: str, message: str, error: AtollError | None = None) -> dict[str, Any]:
        details = _details(error)
        told: dict[str, Any] = {
            "error": message,
            "code": code,
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": message,
        }
        return told | {"field": details[0]["location"], "errors": details} if details else told

    def not_found(self) -> Response:
        return self.plain(404, "NOT_FOUND", "no such route", {})


def _details(error: AtollError | None) -> list[dict[str, str]]:
    if isinstance(error, Invalid):
        return [_detail(field, message) for field, message in error.errors]
    if isinstance(error, InvalidInput) and error.field:
        return [_detail(error.field, error.message)]
    return []


def _detail(field: str, message: str) -> dict[str, str]:
    return {"message": message, "location": field}
