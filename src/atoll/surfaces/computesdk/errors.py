"""How this dialect speaks of errors: `{error, message}`: a word for programs and a sentence for people."""

from __future__ import annotations

from typing import Any

from atoll.domain.errors import AtollError
from atoll.services.workspaces.access import NoWorkspace
from atoll.surfaces.dialects import JsonDialect
from atoll.surfaces.models import AnswerModel


class ComputeError(AnswerModel):
    """Every error of this API."""

    error: str
    message: str


class ComputeDialect(JsonDialect):
    """The envelope of every route of this dialect."""

    surface = "computesdk"

    def body(self, status: int, code: str, message: str, error: AtollError | None = None) -> dict[str, Any]:
        # its ids have another spelling here
        told = "workspace not found" if isinstance(error, NoWorkspace) else message
        return {"error": code.lower(), "message": told}
