"""Brokered secrets: what a sandbox has in place of a value that only its egress gateway knows.

The secrets service gives it to processes, the gateway looks for it in requests. It opens nothing: only what comes out of
that one sandbox is searched for it, so that it may stand in logs and snapshots.
"""

from __future__ import annotations

import hashlib

PREFIX = "atoll-secret-"
_DIGITS = 32


def placeholder(sandbox_id: str, secret_id: str) -> str:
    """The same for the life of the sandbox, whatever becomes of the server and of the value; another in each sandbox."""
    return PREFIX + hashlib.sha256(f"atoll broker\0{sandbox_id}\0{secret_id}".encode()).hexdigest()[:_DIGITS]
