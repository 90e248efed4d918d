"""How this dialect speaks of errors: `{error, message}`: a word for programs and a sentence for people."""

from __future__ import annotations

from starlette.responses import Response

from atoll.domain.errors import AtollError
from atoll.services.workspaces.access import NoWorkspace
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.statuses import envelope, headers_of, status_and_code


class ComputeError(AnswerModel):
    """Every error of this API."""

    error: str
    message: str


class ComputeDialect:
    """The envelope of every route of this dialect."""

    surface = "computesdk"

    def error(self, error: AtollError) -> Response:
        status, code = status_and_code(error)
        # its ids have another spelling here
        message = "workspace not found" if isinstance(error, NoWorkspace) else error.message
        return _envelope(status, code, message, headers_of(error, status))

    def method_not_allowed(self, allowed: list[str]) -> Response:
        methods = ", ".join(allowed)
        return _envelope(405, "METHOD_NOT_ALLOWED", f"this path knows {methods} only", {"allow": methods})

    def upgrade_required(self) -> Response:
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        return _envelope(426, "UPGRADE_REQUIRED", "this path speaks WebSocket", headers)


def _envelope(status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    return envelope(status, {"error": code.lower(), "message": message}, headers)
