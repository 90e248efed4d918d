"""A request that is to have one effect, however often it is sent: what is remembered of it, under its client's key."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

KEY_CHARS_MAX = 255
SMALL_BYTES = 4_096  # answers up to here are bounded by how many requests are remembered
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """One use of a key by one principal. Without an answer it is under way, or was cut short."""

    principal: str  # the credential that it came with
    key: str  # the hash of the client's
    fingerprint: str  # of what was asked
    server: str  # the life of the server that began it
    created_at: datetime
    answer: bytes | None = None  # sealed; empty: it was not kept
    owner: str = ""  # whose credential that is; empty: its own

    def __post_init__(self) -> None:
        if not self.owner:
            object.__setattr__(self, "owner", self.principal)


def is_key(text: str) -> bool:
    """Whether a client may use it: 1 to 255 printable characters of ASCII, no blanks."""
    return _KEY.fullmatch(text) is not None


def key_hash(principal: str, text: str) -> str:
    """What the key is known by; whoever has it has not the key, under which answers are sealed."""
    return hashlib.sha256(b"\0".join((b"atoll idempotency key", principal.encode(), text.encode()))).hexdigest()
