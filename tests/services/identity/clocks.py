"""Both clocks of the services, moved by hand, and passwords that cost nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from atoll.services.identity.passwords import Passwords


class Time:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.s = 1000.0

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.s += seconds

    def clock(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.s


def cheap_passwords(chars_min: int = 12) -> Passwords:
    return Passwords(chars_min=chars_min, time_cost=1, memory_kib=8, parallelism=1)
