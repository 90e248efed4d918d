"""How this dialect speaks of errors: `{error, message}`: a word for programs and a sentence for people."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.responses import Response

from atoll.domain.errors import AtollError, RateLimited
from atoll.surfaces.bodies import Lingering, json_bytes
from atoll.surfaces.execbox.errors import RETRY_AFTER_S, status_and_code


class ComputeError(BaseModel):
    """Every error of this API."""

    error: str
    message: str


class ComputeDialect:
    """The envelope of every route of this dialect."""

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
        return _envelope(status, code, error.message, headers)

    def method_not_allowed(self, allowed: list[str]) -> Response:
        methods = ", ".join(allowed)
        return _envelope(405, "METHOD_NOT_ALLOWED", f"this path knows {methods} only", {"allow": methods})

    def upgrade_required(self) -> Response:
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        return _envelope(426, "UPGRADE_REQUIRED", "this path speaks WebSocket", headers)


def _envelope(status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    kind = Lingering if status == 413 else Response
    body = json_bytes({"error": code.lower(), "message": message})
    return kind(body, status, headers, "application/json")
