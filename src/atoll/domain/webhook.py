"""Webhook: a URL that is told of an owner's events, and how far it has been told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

WEBHOOK_ID = re.compile(r"^hook_[0-9a-f]{24}$")
ACTION_PATTERN = re.compile(r"\*|[a-z_]{1,64}\.(\*|[a-z_]{1,64})")


@dataclass(frozen=True, slots=True)
class Webhook:
    """`everyone`: it is told of all tenants' events, which only an administrator may ask for. It is told of nothing
    once `maker` or `credential` may read its owner's events no more."""

    id: str
    owner: str
    url: str
    actions: tuple[str, ...]  # noun.verb, noun.* or *
    created_at: datetime
    description: str = ""
    everyone: bool = False
    vault: str = ""
    secret: bytes = b""  # wrapped
    disabled_at: datetime | None = None
    disabled_why: str | None = None
    version: int = 0
    failures: int = 0  # in a row
    failing_since: datetime | None = None
    next_at: datetime | None = None  # no call before
    delivered_at: datetime | None = None
    last_error: str | None = None
    maker: str = ""  # the principal who gave it its URL, or enabled it; empty: its owner
    credential: str = ""  # with which they did; empty: the maker, who may use any

    def __post_init__(self) -> None:
        if not self.maker:
            object.__setattr__(self, "maker", self.owner)
        if not self.credential:
            object.__setattr__(self, "credential", self.maker)

    def wants(self, action: str) -> bool:
        """Whether it is told of events of that action."""
        return any(
            action.startswith(pattern[:-1]) if pattern.endswith("*") else action == pattern for pattern in self.actions
        )
