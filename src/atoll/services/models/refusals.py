"""Refusals: why a call of a model is not made or breaks off, and how OpenAI and Anthropic would say it.

Model calls raise them; the gateway puts them into the form that the program expects, so that it understands them.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

from atoll.domain.errors import AtollError


class Because(Enum):
    """(OpenAI's status, type and code; Anthropic's status and type). Programs stop at `MONEY`, and retry `BUSY`."""

    REQUEST = (400, "invalid_request_error", None, 400, "invalid_request_error")
    TASK_OVER = (403, "permission_error", "task_over", 403, "permission_error")
    UNKNOWN = (404, "invalid_request_error", "unknown_url", 404, "not_found_error")
    NO_MODEL = (404, "invalid_request_error", "model_not_found", 404, "not_found_error")
    TOO_LARGE = (413, "invalid_request_error", "request_too_large", 413, "request_too_large")
    UPGRADE = (426, "invalid_request_error", "upgrade_required", 426, "invalid_request_error")
    MONEY = (429, "insufficient_quota", "insufficient_quota", 402, "billing_error")
    BUSY = (429, "rate_limit_error", "rate_limit_exceeded", 429, "rate_limit_error")
    FAULT = (500, "server_error", "server_error", 500, "api_error")
    PROVIDER = (502, "server_error", "bad_gateway", 502, "api_error")
    NOT_SET_UP = (503, "server_error", "model_not_configured", 503, "api_error")
    SILENT = (504, "server_error", "timeout", 504, "timeout_error")


class CallRefused(AtollError):
    """The model is not called."""

    code: ClassVar[str] = "model_call_refused"

    def __init__(
        self, because: Because, message: str, *, field: str | None = None, retry_after_s: int | None = None
    ) -> None:
        self.because, self.field, self.retry_after_s = because, field, retry_after_s
        super().__init__(message)

    def status(self, anthropic: bool) -> int:
        return self.because.value[3] if anthropic else self.because.value[0]

    def body(self, anthropic: bool) -> dict[str, Any]:
        _, kind, code, _, named = self.because.value
        if anthropic:
            return {"type": "error", "error": {"type": named, "message": self.message}}
        return {"error": {"message": self.message, "type": kind, "param": self.field, "code": code}}


class ModelHangs(CallRefused):
    """The provider was silent for longer than it may be."""

    def __init__(self, message: str) -> None:
        super().__init__(Because.SILENT, message)
