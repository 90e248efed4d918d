"""How the sidekick API speaks of errors: `{error}`, a sentence; and of successes: `{message, data}`."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from atoll.domain.errors import AtollError
from atoll.surfaces.bodies import json_response
from atoll.surfaces.dialects import JsonDialect
from atoll.surfaces.models import AnswerModel


class SidekickError(AnswerModel):
    """Every error of this API."""

    error: str


class SidekickDialect(JsonDialect):
    """The envelope of every route of this dialect."""

    surface = "computesdk"

    def body(self, status: int, code: str, message: str, error: AtollError | None = None) -> dict[str, Any]:
        return {"error": message}


def done(message: str, data: Any, status: int = 200, **beside: Any) -> Response:
    """A success; `beside` stands at the top level too, where one of the clients looks for it."""
    return json_response(enveloped(message, data, **beside), status)


def enveloped(message: str, data: Any, **beside: Any) -> dict[str, Any]:
    return {"message": message, "data": data, **beside}
