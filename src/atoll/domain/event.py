"""Event: the record of one mutation, written in the same transaction as the change itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from atoll.domain.origin import ORIGIN

SYSTEM = "system"  # the actor of what nobody asked for, and the tenant of what is nobody's


@dataclass(frozen=True, slots=True)
class Event:
    """Who did what to which object, with what outcome. `tenant` owns the target.

    What a request did carries the request's id, its credential and the client's address. `id`, `seq` (the number in
    the tenant's chain) and the two hashes come from the store.
    """

    action: str  # noun.verb: sandbox.created, sandbox.stopped, key.revoked
    target: str
    tenant: str
    actor: str  # a principal's id, or `system` for the reconciler
    outcome: str = "ok"
    request_id: str | None = None
    detail: dict[str, Any] = field(default_factory=dict[str, Any])
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    credential: str | None = None  # the key or token that the actor came with
    address: str | None = None
    id: int | None = None
    seq: int | None = field(default=None, compare=False)
    previous: bytes = field(default=b"", compare=False, repr=False)  # the hash of the event before it in the chain
    hash: bytes = field(default=b"", compare=False, repr=False)

    def __post_init__(self) -> None:
        origin = ORIGIN.get()
        if origin is None or self.id is not None or self.actor == SYSTEM:
            return
        origin.events += 1
        origin.told += self.outcome != "ok"
        for name, known in (
            ("request_id", origin.request_id),
            ("credential", origin.key_id),
            ("address", origin.peer),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, known)


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events are wanted; None: whatever it is. `action` may end in `.*`, for all of a noun."""

    tenants: Collection[str] | None = None
    targets: Collection[str] | None = None
    action: str | None = None
    actor: str | None = None
    outcome: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after_id: int | None = None
    before_id: int | None = None
    newest_first: bool = False
    limit: int = 100
