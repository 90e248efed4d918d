"""The object-store door: a listener of its own, for clients of object stores."""

from __future__ import annotations

from pydantic import Field

from atoll.settings.section import GIB, KIB, Section


class ObjectSettings(Section):
    """Workspaces as gs://<bucket>/<workspace>/, for gsutil and others that speak the same XML."""

    enabled: bool = False
    """Whether the door is open. Its clients sign with access keys: `atoll keys hmac create`."""
    host: str = "127.0.0.1"
    """Address to listen on. What is sent is signed and not encrypted: put TLS before any that is not loopback."""
    port: int = Field(default=8090, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    bucket: str = Field(default="testbase-workspaces", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    """Name of the one bucket."""
    object_bytes: int = Field(default=5 * GIB, ge=1 * KIB, le=1024 * GIB)
    """Largest object that is taken; it is kept in the data folder until all of it is there."""
    clock_skew_s: float = Field(default=900.0, ge=1, le=86_400)
    """How far the clock of a client may be off: what was signed longer ago is refused."""
