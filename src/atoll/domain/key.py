"""ApiKey: a credential. Only its SHA-256 and a short prefix are kept; the text is shown once."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from atoll.domain.rate import Rate


class Scope(StrEnum):
    """What a key may do."""

    EXECUTE = "execute"  # create, run in, change and end sandboxes
    READ = "read"  # look at them, read files and output
    WRITE = "write"  # write files
    ADMIN = "admin"  # what some clients list among a key's permissions: it is kept, and opens nothing


DEFAULT_SCOPES = frozenset({Scope.EXECUTE, Scope.READ, Scope.WRITE})
KEY_PREFIX_CHARS = 12


class KeyKind(StrEnum):
    """Owner and internal keys have no quota; standard keys have."""

    OWNER = "owner"
    INTERNAL = "internal"
    STANDARD = "standard"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The record of one key; `hash` is the SHA-256 hex of its text."""

    id: str
    hash: str
    prefix: str  # the first KEY_PREFIX_CHARS characters, to recognise it by
    name: str
    kind: KeyKind
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    version: int = 1
    owner: str = ""  # whose it is, and what is made with it: a user, a group, another key; empty: its own
    parent: str | None = None  # the key that made it narrower than itself, and ends with it
    resources: frozenset[str] | None = None  # the only ids that it reaches; None: all of its owner's
    budget_micro_usd: int | None = None  # what it may spend of its owner's in all; None: no bound of its own
    plan: str = ""  # whose quotas hold for it; empty: a key's
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    rate: Rate | None = None  # how many requests it may make; None: as many as the settings say

    def __post_init__(self) -> None:
        if not self.owner:
            object.__setattr__(self, "owner", self.id)

    def usable(self, now: datetime | None = None) -> bool:
        now = now or datetime.now(UTC)
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def new_key_text(prefix: str = "sk_") -> str:
    """`prefix` and 64 hex digits (256 random bits)."""
    return prefix + secrets.token_hex(32)


def hash_key(text: str) -> str:
    """SHA-256 in hex: enough for a secret of 256 random bits."""
    return hashlib.sha256(text.encode()).hexdigest()
