"""What the server itself calls: the URLs that others gave it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from pydantic import Field, field_validator

from atoll.settings.section import KIB, MIB, Section


class OutboundSettings(Section):
    """Calls of the server to URLs of others: webhooks, and what an identity provider refers to."""

    networks: tuple[str, ...] = ()
    """Networks besides the internet that may be called, without TLS too: 127.0.0.0/8. Environment: with commas."""
    timeout_s: float = Field(default=10.0, ge=0.1, le=120)
    """Longest time for a call, from the name to the last byte of the answer."""
    answer_bytes: int = Field(default=64 * KIB, ge=1 * KIB, le=16 * MIB)
    """Largest answer that is read."""
    at_once: int = Field(default=32, ge=1, le=1_000)
    """Calls at a time; others wait, within their own time."""

    @field_validator("networks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(ip_network(part)) for part in value)
        except ValueError as error:
            raise ValueError(f"{error}; in the environment they are separated by commas: 10.0.0.0/8,fd00::/8") from None
