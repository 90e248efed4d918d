"""One line of the matrix of authorisation, and the words that it is written in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PUBLIC = "public"  # anybody, without a credential
ANY = ""  # any credential that is good, whatever its scopes
PERSON = "person"  # a user who has logged in, and no key of theirs
ADMIN = "admin"  # a principal that administers the server: an owner key, a user with that flag
ADMIN_KEY = "admin key"  # the ADMIN_API_KEY alone


@dataclass(frozen=True)
class Route:
    """What one operation needs. `opens`: one of the words above, or the scopes that the credential must carry."""

    opens: str
    of: dict[str, str] = field(default_factory=dict[str, str])  # path parameter -> thing, or a text with a / before it
    body: Any = None  # JSON, or bytes
    query: str = ""
