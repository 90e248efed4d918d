"""How this dialect speaks of errors: `{error, code}`, of which its client shows both; routing calls it."""

from __future__ import annotations

from starlette.responses import Response

from atoll.domain.errors import AtollError, InvalidInput
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.statuses import envelope, headers_of, status_and_code


class AgentsError(AnswerModel):
    """Every error of this API."""

    error: str
    code: str
    field: str | None = None


class AgentsDialect:
    """The envelope of every route of this dialect."""

    surface = "execbox"  # it counts with Atoll's own API

    def error(self, error: AtollError) -> Response:
        status, code = status_and_code(error)
        body = {"error": error.message, "code": code}
        if isinstance(error, InvalidInput) and error.field:
            body["field"] = error.field
        return envelope(status, body, headers_of(error, status))

    def method_not_allowed(self, allowed: list[str]) -> Response:
        methods = ", ".join(allowed)
        body = {"error": f"this path knows {methods} only", "code": "METHOD_NOT_ALLOWED"}
        return envelope(405, body, {"allow": methods})

    def upgrade_required(self) -> Response:
        body = {"error": "this path speaks WebSocket", "code": "UPGRADE_REQUIRED"}
        return envelope(426, body, {"upgrade": "websocket", "connection": "upgrade"})
