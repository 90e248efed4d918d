"""Account: what the holder of keys says of themselves and bounds for themselves; and what somebody asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Account:
    """One owner's; most owners have none, which is the same as an empty one."""

    id: str  # the owner's: a user's id, or that of a key which belongs to nobody
    created_at: datetime
    email: str | None = None  # nobody else's
    limits: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    version: int = 1


@dataclass(frozen=True, slots=True)
class QuotaRequest:
    """Somebody asks for more than the plans give; the operator reads it and answers by mail."""

    email: str
    created_at: datetime
    status: str = "pending"
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    id: int = 0  # the store gives it


@dataclass(frozen=True, slots=True)
class KeyStats:
    """What the use log knows of a key."""

    requests: int
    successful: int  # answered below 400
    last_at: datetime | None
