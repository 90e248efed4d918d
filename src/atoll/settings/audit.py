"""The settings of the audit trail and of webhooks."""

from __future__ import annotations

from pydantic import Field

from atoll.settings.section import Section


class AuditSettings(Section):
    checkpoint_s: float = Field(default=60.0, ge=1, le=86_400)
    """Seconds between checkpoints, which sign the heads of all tenants' chains of events."""
    streams_per_key: int = Field(default=20, ge=1, le=10_000)
    """Event streams that one key may have open."""
    refusals_per_s: float = Field(default=1.0, gt=0, le=10_000)
    """Refused or failed changes of one key or address recorded a second, in the long run; more are only counted."""
    refusals_burst: int = Field(default=30, ge=1, le=10_000)
    """Such events of one key or address at once."""


class WebhookSettings(Section):
    enabled: bool = True
    """Serve /api/webhooks, and deliver."""
    max_per_owner: int = Field(default=20, ge=1, le=10_000)
    """Webhooks that one owner may have."""
    timeout_s: float = Field(default=10.0, ge=0.1, le=60)
    """How long a receiver may take to answer."""
    first_retry_s: float = Field(default=5.0, ge=0.1, le=3_600)
    """Seconds after which a failed call is tried again; each further pause is twice as long, up to an hour."""
    give_up_after_s: float = Field(default=86_400.0, ge=1, le=2_592_000)
    """A webhook whose deliveries have failed for so long is disabled, with an event."""
