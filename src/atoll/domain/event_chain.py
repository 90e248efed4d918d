"""How events are chained: what is hashed of each, so that none can be changed, moved, left out or put in unseen.

The stores append with it, `services/audit` verifies with it; docs/audit.md tells others how to do the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import NamedTuple

HASHED = (
    "tenant", "seq", "id", "at", "action", "target", "actor", "credential", "outcome", "request_id", "address", "detail"
)  # fmt: skip
GENESIS = bytes(32)  # stands before the first event of each tenant
FORM = "event/1"

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Link(NamedTuple):
    """An event as it is stored, for verification: nothing in it is taken for granted, whatever its type says."""

    tenant: str
    seq: int
    id: int
    at: str  # as it was hashed
    action: str
    target: str
    actor: str
    credential: str | None
    outcome: str
    request_id: str | None
    address: str | None
    detail: str  # JSON
    previous: bytes
    hash: bytes
    signed: bytes | None  # what a checkpoint says that its hash is
    head_seq: int | None  # the head of its tenant, at the same instant
    head_hash: bytes | None


def moment_text(at: datetime) -> str:
    """A moment as it is hashed: UTC, always with microseconds."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def event_hash(previous: bytes, columns: Sequence[object]) -> bytes:
    """SHA-256 of the hash before, and the HASHED columns as a JSON array in ASCII; the detail is the stored text."""
    text = ",".join([_json(column) for column in columns])
    return hashlib.sha256(previous + f'["{FORM}",{text}]'.encode("ascii")).digest()


def _json(value: object) -> str:
    # For each of the columns of each event: the general encoder takes several times as long.
    if type(value) is str:
        return encode_basestring_ascii(value)
    if value is None:
        return "null"
    return str(value) if type(value) is int else _encode(value)
