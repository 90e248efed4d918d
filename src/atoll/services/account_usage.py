"""What an owner used by the hour and by the day, with what it would cost: an estimate from the records of sandboxes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from atoll.domain.sandbox import Sandbox, SandboxState

CENTS_OF_ONE, CENTS_OF_CPU_S, CENTS_OF_GB_S = 1, 5, 1


@dataclass(slots=True)
class Used:
    """Of an hour or a day: how many sandboxes were made in it, how long they ran, what that costs, how many failed."""

    executions: int = 0
    duration_ms: int = 0
    cost_cents: int = 0
    errors: int = 0

    def add(self, sandbox: Sandbox, now: datetime) -> None:
        duration_s = lasted_s(sandbox, now)
        self.executions += 1
        self.duration_ms += round(duration_s * 1000)
        self.cost_cents += cost_cents(sandbox, duration_s)
        self.errors += sandbox.state is SandboxState.FAILED


def by_hour(sandboxes: Iterable[Sandbox], now: datetime, hours: int = 24) -> dict[datetime, Used]:
    """The last hours, the one under way included, oldest first; empty ones too."""
    this = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    found = {this - timedelta(hours=n): Used() for n in range(hours - 1, -1, -1)}
    for one in sandboxes:
        hour = one.created_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        if hour in found:
            found[hour].add(one, now)
    return found


def by_day(sandboxes: Iterable[Sandbox], now: datetime, days: int) -> dict[date, Used]:
    """The last days of UTC, today included, oldest first; empty ones too."""
    today = now.astimezone(UTC).date()
    found = {today - timedelta(days=n): Used() for n in range(days - 1, -1, -1)}
    for one in sandboxes:
        day = one.created_at.astimezone(UTC).date()
        if day in found:
            found[day].add(one, now)
    return found


def first_moment(now: datetime, days: int) -> datetime:
    """From which on `by_day`, and `by_hour` of a day, look at sandboxes."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return min(midnight - timedelta(days=days - 1), now - timedelta(days=1))


def lasted_s(sandbox: Sandbox, now: datetime) -> float:
    """How long it ran; what is not measured yet by the clock."""
    if sandbox.usage.duration_s or sandbox.started_at is None:
        return sandbox.usage.duration_s
    return max(0.0, ((sandbox.ended_at or now) - sandbox.started_at).total_seconds())


def cost_cents(sandbox: Sandbox, duration_s: float) -> int:
    """1 + 5 for each second of CPU + 1 for each second of a GB of memory, in whole cents."""
    gb_s = sandbox.spec.resources.memory_bytes / 2**30 * duration_s
    return round(CENTS_OF_ONE + CENTS_OF_CPU_S * sandbox.usage.cpu_s + CENTS_OF_GB_S * gb_s)
