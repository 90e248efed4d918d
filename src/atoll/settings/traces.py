"""Whether what the server does is traced, and where its spans go."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from pydantic import Field, SecretStr, field_validator

from atoll.settings.section import Section


class TraceSettings(Section):
    enabled: bool = False
    """Send spans to an OpenTelemetry collector; needs the extra `otel`."""
    endpoint: str = Field(default="http://127.0.0.1:4318", pattern=r"^https?://\S+$")
    """The collector's OTLP endpoint over HTTP; `/v1/traces` is added where it is missing."""
    headers: SecretStr | None = None
    """Headers of each request to it, such as `x-api-key=TEXT`; separated by commas."""
    service_name: str = Field(default="atoll", min_length=1, max_length=128)
    """What this server is called in traces."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Which part of the traces that begin here is kept; those of trusted callers are kept as the caller says."""
    trusted: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Addresses and networks whose `traceparent` is taken over. Environment: separated by commas."""
    queue_spans: int = Field(default=2048, ge=64, le=1_000_000)
    """Spans that wait for the collector; more are dropped."""
    timeout_s: float = Field(default=10.0, gt=0, le=300)
    """Seconds that the collector has for a batch."""

    @field_validator("headers")
    @classmethod
    def _pairs(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all("=" in part for part in value.get_secret_value().split(",")):
            raise ValueError("must be NAME=VALUE, with commas between them")
        return value

    @field_validator("trusted", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("trusted")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            ip_network(part, strict=False)
        return value
