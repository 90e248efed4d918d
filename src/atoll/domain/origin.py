"""Origin: the request in whose course something happens; the telemetry sets it, and each new event takes it over.

So no service passes on a request's id by hand. Tasks that a request starts inherit its origin.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Origin:
    """What is known about the request so far, and how many events tell of it; `told`: that it did not succeed."""

    request_id: str
    key_id: str | None = None  # the credential's
    peer: str | None = None  # the client's address
    actor: str | None = None  # the principal's id, from when the door knows it
    events: int = 0
    told: int = 0
    quota_warnings: list[str] = field(default_factory=list[str])  # of quotas nearly used, for the answer's header


ORIGIN: ContextVar[Origin | None] = ContextVar("origin", default=None)
