"""Users: how long their logins and tokens last, who signs them, what a password must be, how often one may try."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from atoll.settings.section import DAY_S, Section

_Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]


class AuthSettings(Section):
    registration: bool = False
    """Whether anybody may make themselves a user, by POST /auth/register."""
    access_ttl_s: float = Field(default=900.0, ge=10, le=DAY_S)
    """Seconds that an access token is good for."""
    refresh_ttl_s: float = Field(default=14 * DAY_S, ge=60, le=365 * DAY_S)
    """Seconds within which a refresh token must be used."""
    login_ttl_s: float = Field(default=90 * DAY_S, ge=60, le=3_650 * DAY_S)
    """Seconds after which one must log in again, however often the tokens were refreshed."""
    logins_per_user: int = Field(default=50, ge=1, le=10_000)
    """Logins of one user at a time; one more ends the oldest."""
    algorithm: Literal["EdDSA", "RS256"] = "EdDSA"
    """What access tokens are signed with."""
    key_days: float = Field(default=30.0, ge=1, le=3_650)
    """Days after which another key signs; the one before verifies as long as its tokens last."""
    issuer: _Name = "atoll"
    """`iss` of access tokens; the server's public URL, where others check them."""
    audience: _Name = "atoll"
    """`aud` of access tokens."""
    password_chars: int = Field(default=12, ge=8, le=128)
    """Fewest characters of a password."""
    failures_per_user: int = Field(default=10, ge=1, le=10_000)
    """Failed logins of one user from one address at once; one more each 30 seconds."""
    failures_per_address: int = Field(default=50, ge=1, le=100_000)
    """Failed logins from one address at once; one more each 5 seconds."""
    failures_of_user: int = Field(default=100, ge=1, le=100_000)
    """Failed logins of one user from all addresses at once from where they never logged in; one more each 30 s."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.access_ttl_s <= self.refresh_ttl_s <= self.login_ttl_s:
            raise ValueError("access_ttl_s <= refresh_ttl_s <= login_ttl_s must hold")
        return self
