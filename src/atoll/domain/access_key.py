"""AccessKey: an id and a secret with which clients of object stores sign for one API key; the records keep it sealed.

The services of the object-store door make and recognise them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

ACCESS_KEY_ID = re.compile(r"^hmac_[0-9a-f]{24}$")


@dataclass(frozen=True, slots=True)
class AccessKey:
    """The record of one: it may what its API key may, and ends with it."""

    id: str
    key: str  # the id of the API key that it signs for
    key_hash: str  # of that one when it was made: who had an older text may have made those from before a rotation
    owner: str  # whose the API key is
    created_at: datetime
    vault: str = field(repr=False)  # the name of the vault that wrapped the secret
    secret: bytes = field(repr=False)  # wrapped


def access_key_context(access_key_id: str) -> str:
    """What its wrapped secret is bound to."""
    return f"access key {access_key_id}"
