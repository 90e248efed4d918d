"""Previews: how ports of sandboxes are reached from outside."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from atoll.settings.section import DAY_S, GIB, Section


class PreviewSettings(Section):
    domain: str = Field(default="", pattern=r"^$|^[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?$")
    """Wildcard domain of previews, `<port>-<sandbox>.<domain>`: an origin of its own for each port. Keep it apart from
    the API's name, with *.<domain> resolving to this server. Empty: by path only."""
    path_pages: Literal["auto", "trusted", "sandboxed"] = "auto"
    """Pages that are previewed by path share the API's origin in a browser. `sandboxed` takes that from them (CSP),
    `trusted` leaves it, `auto` sandboxes them where `previews.domain` is set."""
    per_owner: int = Field(default=1_000, ge=1, le=100_000)
    """Registered ports of one owner."""
    token_s: float = Field(default=3_600.0, ge=1, le=30 * DAY_S)
    """How long a preview token holds when nothing else is asked for."""
    token_s_max: float = Field(default=DAY_S, ge=1, le=30 * DAY_S)
    """How long one may hold at most."""
    start_fallback: bool = True
    """Where a sandbox with a workspace has ended and no fallback is registered, start one from the latest snapshot."""
    body_bytes: int = Field(default=1 * GIB, ge=1, le=1024 * GIB)
    """Largest body of a request that is sent on."""
    connect_s: float = Field(default=10.0, gt=0, le=600)
    """For a connection to the port; after it 502."""
    first_byte_s: float = Field(default=30.0, gt=0, le=3_600)
    """For the first byte of an answer; after it 504."""
    idle_s: float = Field(default=600.0, gt=0, le=DAY_S)
    """After so long a silence in the middle of an answer, or a request's body, it is cut."""
    kept_s: float = Field(default=15.0, gt=0, le=600)
    """How long an idle connection to a port is kept for the next request."""
    kept_per_port: int = Field(default=32, ge=0, le=1_024)
    """Idle connections that are kept to one port."""
    connections_per_port: int = Field(default=256, ge=1, le=8_192)
    """Connections to one port at a time, those kept included."""
    connections_per_sandbox: int = Field(default=512, ge=1, le=65_536)
    """Connections to all ports of one sandbox at a time."""
    connections_per_owner: int = Field(default=1_024, ge=1, le=65_536)
    """Connections to all ports of one owner at a time, and never more than are left of `connections_max` for others."""
    connections_max: int = Field(default=4_096, ge=1, le=65_536)
    """Connections to all ports at a time."""
    sockets_per_address: int = Field(default=100, ge=1, le=65_536)
    """WebSockets through previews that one address (a /64 of IPv6) has open at a time without a credential."""
    health_s: float = Field(default=10.0, ge=0.1, le=3_600)
    """How often a registered port that is in use is asked for its health."""
