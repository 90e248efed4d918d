"""How ComputeSDK's gateway speaks of errors: `{success: false, error, code}`: a sentence, and a word for programs."""

from __future__ import annotations

from typing import Any, Literal

from atoll.domain.errors import AtollError
from atoll.surfaces.dialects import JsonDialect
from atoll.surfaces.models import AnswerModel


class GatewayError(AnswerModel):
    """Every error of this API. Its clients show `error` to people."""

    success: Literal[False]
    error: str
    code: str


class GatewayDialect(JsonDialect):
    """The envelope of every route of this dialect."""

    surface = "computesdk"

    def body(self, status: int, code: str, message: str, error: AtollError | None = None) -> dict[str, Any]:
        return {"success": False, "error": message, "code": code.lower()}
