"""Checkpoint: the heads of the tenants' chains, signed, so that neither their ends nor whole chains can be replaced.

Each carries the hash of the one before, as events do. It lists the heads that moved since then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from atoll.domain.event_chain import GENESIS, moment_text

FORM = "checkpoint/1"
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True)
class Head:
    """The last event of a tenant's chain, at some moment."""

    tenant: str
    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`signature` is Ed25519's over `hash`, by the key `key_id`."""

    number: int  # from 1 on, without gaps
    at: datetime
    key_id: str
    previous: bytes
    heads: tuple[Head, ...]  # in the order of their tenants
    hash: bytes
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class AuditKey:
    """A key that signs checkpoints; the newest one does."""

    id: str
    public: bytes
    vault: str
    key: bytes  # the private one, wrapped
    created_at: datetime


def next_checkpoint(before: Checkpoint | None, key_id: str, at: datetime, heads: Sequence[Head]) -> Checkpoint:
    """The one after `before`, not signed yet."""
    number = 1 if before is None else before.number + 1
    previous = GENESIS if before is None else before.hash
    ordered = tuple(sorted(heads, key=lambda head: head.tenant))
    digest = checkpoint_hash(previous, number, moment_text(at), key_id, ordered)
    return Checkpoint(number, at, key_id, previous, ordered, digest)


def checkpoint_hash(previous: bytes, number: int, at: str, key_id: str, heads: Sequence[Head]) -> bytes:
    """SHA-256 of the hash before, and the rest as a JSON array in ASCII."""
    signed = [[head.tenant, head.seq, head.hash.hex()] for head in heads]
    return hashlib.sha256(previous + _encode([FORM, number, at, key_id, signed]).encode("ascii")).digest()
