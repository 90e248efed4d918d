"""Whether strangers may ask for keys of their own, and how many may."""

from __future__ import annotations

from pydantic import Field

from atoll.settings.section import Section


class AccountSettings(Section):
    waitlist: bool = False
    """Serve /v1/waitlist, which gives anybody a key of the plan `free`, and /v1/quota-requests."""
    waitlist_max: int = Field(default=1_000, ge=1, le=10_000_000)
    """Keys that /v1/waitlist gives in all."""
    requests_max: int = Field(default=1_000, ge=1, le=1_000_000)
    """Requests of /v1/quota-requests that are kept."""
