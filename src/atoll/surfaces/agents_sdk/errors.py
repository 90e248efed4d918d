"""How this dialect speaks of errors: `{error, code}`, of which its client shows both; routing calls it."""

from __future__ import annotations

from typing import Any

from atoll.domain.errors import AtollError, InvalidInput
from atoll.surfaces.dialects import JsonDialect
from atoll.surfaces.models import AnswerModel


class AgentsError(AnswerModel):
    """Every error of this API."""

    error: str
    code: str
    field: str | None = None


class AgentsDialect(JsonDialect):
    """The envelope of every route of this dialect."""

    surface = "execbox"  # it counts with Atoll's own API

    def body(self, status: int, code: str, message: str, error: AtollError | None = None) -> dict[str, Any]:
        field = {"field": error.field} if isinstance(error, InvalidInput) and error.field else {}
        return {"error": message, "code": code, **field}
