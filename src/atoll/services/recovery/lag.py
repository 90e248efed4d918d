"""Lag: how far the second store is behind, as health tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(slots=True)
class Lag:
    """What the last pass found, and what it did since."""

    objects: int = 0  # that the second store lacks
    bytes: int = 0
    oldest: datetime | None = None  # when the oldest of them was stored
    lost: tuple[str, ...] = ()  # keys that the records name and neither store has
    unreadable: set[str] = field(default_factory=set[str])  # keys of what reading has shown to be whole in neither
    error: str | None = None  # of the last pass
    taken: bool = False  # the store belongs to another installation: nothing is copied
    passed_at: datetime | None = None  # the last pass that copied everything
    backup: str | None = None  # the moment of the newest whole one

    @property
    def all_lost(self) -> set[str]:
        """Whichever way that was found out."""
        return self.unreadable.union(self.lost)

    def seconds(self, now: datetime) -> float:
        """Since the oldest of them was stored."""
        return 0.0 if self.oldest is None else max((now - self.oldest).total_seconds(), 0.0)

    def describe(self, now: datetime) -> dict[str, str]:
        """For health: nothing of what a fault said, which may name paths and addresses."""
        ago = "never" if self.passed_at is None else f"{(now - self.passed_at).total_seconds():.0f} s ago"
        told = [f"{self.objects} objects ({self.bytes} bytes), {self.seconds(now):.0f} s behind"]
        if self.taken:
            told.append("nothing is copied: the store belongs to another installation")
        lost = len(self.all_lost)
        told.append(f"{lost} lost" + (" (in neither store)" if lost else ""))
        told.append(f"last whole pass {ago}")
        healthy = self.error is None and not lost
        return {"status": "healthy" if healthy else "unhealthy", "detail": "; ".join(told)}
