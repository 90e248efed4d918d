"""Event: the record of one mutation, written in the same transaction as the change itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Who did what to which object, with what outcome. `tenant` owns the target; `id` comes from the store."""

    action: str  # noun.verb: sandbox.created, sandbox.stopped, key.revoked
    target: str
    tenant: str
    actor: str  # a principal's id, or `system` for the reconciler
    outcome: str = "ok"
    request_id: str | None = None
    detail: dict[str, Any] = field(default_factory=dict[str, Any])
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: int | None = None
