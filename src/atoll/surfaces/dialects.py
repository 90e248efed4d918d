"""JsonDialect: a dialect in which every error is one JSON object, also those that routing itself tells.

The surfaces subclass it, and say what stands in that object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from starlette.responses import Response

from atoll.domain.errors import AtollError
from atoll.surfaces.statuses import envelope, headers_of, status_and_code


class JsonDialect(ABC):
    """See `routing.Dialect`."""

    surface: str

    @abstractmethod
    def body(self, status: int, code: str, message: str, error: AtollError | None = None) -> dict[str, Any]:
        """What is told; `error` is None for what no service said."""

    def error(self, error: AtollError) -> Response:
        status, code = status_and_code(error)
        return envelope(status, self.body(status, code, error.message, error), headers_of(error, status))

    def method_not_allowed(self, allowed: list[str]) -> Response:
        methods = ", ".join(allowed)
        return self.plain(405, "METHOD_NOT_ALLOWED", f"this path knows {methods} only", {"allow": methods})

    def upgrade_required(self) -> Response:
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        return self.plain(426, "UPGRADE_REQUIRED", "this path speaks WebSocket", headers)

    def plain(self, status: int, code: str, message: str, headers: dict[str, str]) -> Response:
        """An answer that no service's error stands behind."""
        return envelope(status, self.body(status, code, message), headers)
