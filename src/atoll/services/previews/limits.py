"""How many previews there may be and for how long their tokens hold; filled from the settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PreviewLimits:
    """`domain` is where previews have names of their own; empty: they are reached by path only."""

    domain: str = ""
    per_owner: int = 1_000
    token_s: float = 3_600.0  # when nothing else is asked for
    token_s_max: float = 86_400.0
    start_fallback: bool = True  # a sandbox that ended is begun anew from its workspace's latest snapshot
    cache_s: float = 2.0  # that another server on the same database may lag behind
