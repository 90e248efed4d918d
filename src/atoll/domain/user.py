"""User: somebody who logs in, here with a password or at an identity provider; Login: one time that they did.

A login is the family of refresh tokens that follow from it: it ends as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

USER_ID = re.compile(r"^user_[0-9a-f]{24}$")
LOGIN_ID = re.compile(r"^login_[0-9a-f]{24}$")
USERNAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}")  # whole; an address of mail fits


@dataclass(frozen=True, slots=True)
class User:
    """One user. Who comes from a provider is known by `issuer` and `subject`; their username is the id."""

    id: str
    username: str  # unique, in lower case
    created_at: datetime
    password_hash: str | None = None  # argon2id, with its parameters; None: no password opens anything
    name: str = ""  # to show
    admin: bool = False  # may administer this server
    issuer: str | None = None
    subject: str | None = None
    disabled_at: datetime | None = None
    welcomed_at: datetime | None = None  # when the default workspace was made
    version: int = 1

    @property
    def usable(self) -> bool:
        return self.disabled_at is None


@dataclass(frozen=True, slots=True)
class Login:
    """One login of a user: it lasts while its refresh tokens are used in time, until `expires_at` at the latest."""

    id: str
    owner: str  # the user
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    reason: str | None = None  # why it ended: logout, replayed, password, disabled, deleted, evicted

    def usable(self, now: datetime) -> bool:
        return self.ended_at is None and now < self.expires_at


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One of a login's, good for one use; `hash` is the SHA-256 hex of its text."""

    hash: str
    login: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """It signs access tokens. `sealed` is the private one (PKCS #8), under a data key that the vault wrapped."""

    id: str  # the `kid` of tokens
    algorithm: str  # EdDSA or RS256
    public: str  # PEM
    sealed: bytes
    wrapped: bytes
    vault: str
    created_at: datetime
    retired_at: datetime | None = None  # from then on it only verifies what it signed before
