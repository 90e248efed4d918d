"""WrappedKey: a key that lies in the records wrapped by a vault, whoever's it is: what moves when the vault changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Wrapped(StrEnum):
    """What a wrapped key is for."""

    LINEAGE = "lineage"  # the bytes of workspaces
    SECRET = "secret"
    SIGNING_KEY = "signing key"  # of access tokens
    AUDIT_KEY = "audit key"  # of checkpoints
    WEBHOOK = "webhook"  # what deliveries are signed with
    ACCESS_KEY = "access key"  # with which clients of object stores sign


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """`id` is that of the lineage, the secret, ...; `vault` the name of the vault that wrapped it."""

    kind: Wrapped
    id: str
    vault: str
    key: bytes = field(repr=False)
