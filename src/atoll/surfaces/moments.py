"""Moments on the wire: of files, which may carry any time at all, and of what a sandbox tells, which may be anything.

The wire's year has four digits and its time begins in 1970: what lies outside is told as the nearest moment within.
"""

from __future__ import annotations

from datetime import UTC, datetime

LAST_S = 253_402_300_799  # the end of the year 9999


def moment(unix_s: float) -> datetime:
    """From seconds since 1970."""
    return datetime.fromtimestamp(min(max(0.0, unix_s), LAST_S), UTC)  # in this order no NaN comes through


def moment_of_ns(unix_ns: int) -> datetime:
    """From nanoseconds since 1970; it keeps the microseconds."""
    return moment(min(max(0, unix_ns // 1000), LAST_S * 1_000_000) / 1_000_000)
