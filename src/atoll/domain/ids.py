"""Identifiers: a prefix that tells the kind and random hex that nobody can guess."""

from __future__ import annotations

import re
import secrets

SANDBOX_ID = re.compile(r"^sess_[0-9a-f]{12}$")
KEY_ID = re.compile(r"^key_[0-9a-f]{12}$")


def new_sandbox_id() -> str:
    """`sess_` and 12 hex digits: execbox's session id and every other surface's sandbox id."""
    return "sess_" + secrets.token_hex(6)


def new_key_id() -> str:
    """`key_` and 12 hex digits."""
    return "key_" + secrets.token_hex(6)
