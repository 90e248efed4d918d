"""How ComputeSDK's gateway speaks of errors: `{success: false, error, code}`: a sentence, and a word for programs."""

from __future__ import annotations

from typing import Literal

from starlette.responses import Response

from atoll.domain.errors import AtollError
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.statuses import envelope, headers_of, status_and_code


class GatewayError(AnswerModel):
    """Every error of this API. Its clients show `error` to people."""

    success: Literal[False]
    error: str
    code: str


class GatewayDialect:
    """The envelope of every route of this dialect."""

    surface = "computesdk"

    def error(self, error: AtollError) -> Response:
        status, code = status_and_code(error)
        return _envelope(status, code, error.message, headers_of(error, status))

    def method_not_allowed(self, allowed: list[str]) -> Response:
        methods = ", ".join(allowed)
        return _envelope(405, "METHOD_NOT_ALLOWED", f"this path knows {methods} only", {"allow": methods})

    def upgrade_required(self) -> Response:
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        return _envelope(426, "UPGRADE_REQUIRED", "this path speaks WebSocket", headers)


def _envelope(status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    return envelope(status, {"success": False, "error": message, "code": code.lower()}, headers)
