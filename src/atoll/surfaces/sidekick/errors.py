"""How the sidekick API speaks of errors: `{error}`, a sentence; and of successes: `{message, data}`."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from atoll.domain.errors import AtollError
from atoll.surfaces.bodies import json_response
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.statuses import envelope, headers_of, status_and_code


class SidekickError(AnswerModel):
    """Every error of this API."""

    error: str


class SidekickDialect:
    """The envelope of every route of this dialect."""

    surface = "computesdk"

    def error(self, error: AtollError) -> Response:
        status, _ = status_and_code(error)
        return envelope(status, {"error": error.message}, headers_of(error, status))

    def method_not_allowed(self, allowed: list[str]) -> Response:
        methods = ", ".join(allowed)
        return envelope(405, {"error": f"this path knows {methods} only"}, {"allow": methods})

    def upgrade_required(self) -> Response:
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        return envelope(426, {"error": "this path speaks WebSocket"}, headers)


def done(message: str, data: Any, status: int = 200, **beside: Any) -> Response:
    """A success; `beside` stands at the top level too, where one of the clients looks for it."""
    return json_response({"message": message, "data": data, **beside}, status)
