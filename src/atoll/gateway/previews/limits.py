"""Bounds and deadlines of what goes through previews; filled from the settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CarryLimits:
    """What one request, one port and all ports together may take."""

    body_bytes: int = 2**30
    frame_bytes: int = 2**20
    connect_s: float = 10.0
    first_byte_s: float = 30.0
    idle_s: float = 600.0
    kept_s: float = 15.0
    kept_per_port: int = 32
    connections_per_port: int = 256
    connections_per_sandbox: int = 512
    connections_per_owner: int = 1_024
    connections_max: int = 4_096
    sockets_per_address: int = 100
