"""Quotas: what a principal may use, by name and by plan, and what is counted against them.

Services decide with them, records count in these words; workspaces have sizes of their own (`workspace.Quota`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

MIB, GIB = 2**20, 2**30
WINDOW = timedelta(hours=1)  # of what is counted by the hour; it rolls
WINDOW_MINUTES = 60
AMOUNT_MAX = 2**62  # of a bound


class QuotaName(StrEnum):
    """What there can be a bound on."""

    EXECUTIONS = "executions_per_hour"  # commands started in one sandbox
    SANDBOXES = "concurrent_sandboxes"  # live ones
    DAILY = "sandboxes_per_day"  # made since midnight, UTC
    MEMORY = "memory_bytes"  # of all live sandboxes, as they asked for it
    STORED = "stored_bytes"  # of all workspaces, compressed and each chunk once
    CPU = "cpu_s_per_hour"  # used by all sandboxes
    EGRESS = "egress_bytes_per_hour"  # sent by all sandboxes
    SANDBOX_MEMORY = "sandbox_memory_bytes"  # of one sandbox
    SANDBOX_S = "sandbox_s"  # age of one sandbox


HOURLY = frozenset({QuotaName.EXECUTIONS, QuotaName.CPU, QuotaName.EGRESS})
# What is counted in finer units than it is told in.
COUNTED_IN = {QuotaName.CPU: 1000}

Amounts = Mapping[QuotaName, int]
Overrides = Mapping[QuotaName, int | None]  # None: no bound, whatever the plan says

KEY_PLAN, USER_PLAN, GROUP_PLAN = "", "user", "group"

_PERSON: Amounts = {
    QuotaName.EXECUTIONS: 120,
    QuotaName.SANDBOXES: 10,
    QuotaName.MEMORY: 2048 * MIB,
    QuotaName.STORED: 5 * GIB,
    QuotaName.CPU: 3600,
    QuotaName.EGRESS: 1 * GIB,
}


def _tier(daily: int, concurrent: int, seconds: int, memory_mib: int) -> Amounts:
    return {
        QuotaName.DAILY: daily,
        QuotaName.SANDBOXES: concurrent,
        QuotaName.SANDBOX_S: seconds,
        QuotaName.SANDBOX_MEMORY: memory_mib * MIB,
    }


# Without settings. The first is a key's that nobody gave a plan; users are those who come with a token.
PLANS: Mapping[str, Amounts] = {
    KEY_PLAN: {},
    USER_PLAN: _PERSON,
    GROUP_PLAN: _PERSON,
    "anonymous": _tier(3, 1, 60, 512),
    "free": _tier(10, 5, 60, 512),
    "starter": _tier(100, 10, 300, 1024),
    "pro": _tier(1000, 50, 600, 2048),
    "enterprise": {},
}


@dataclass(frozen=True, slots=True)
class Bound:
    """What `subject`, an owner or (`by_credential`) a key of an owner's, may have of live sandboxes; None: anything."""

    subject: str
    by_credential: bool = False
    sandboxes: int | None = None
    memory_bytes: int | None = None
    made: int | None = None
    since: datetime | None = None  # of `made`

    @property
    def holds(self) -> bool:
        """Whether it bounds anything."""
        return (self.sandboxes, self.memory_bytes, self.made) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Spend:
    """So much more of what is counted by the hour; QuotaExceeded beyond `limit`. Amount 0 asks whether any is left."""

    subject: str
    name: QuotaName
    amount: int = 0
    limit: int | None = None  # in the units that are told; `amount` is in those that are counted


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """How much of a quota is used, now."""

    name: QuotaName
    subject: str
    used: int
    limit: int | None

    @property
    def remaining(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used)

    def reaches(self, percent: int) -> bool:
        """Whether so much of it is used, or more."""
        return self.limit is not None and self.used * 100 >= self.limit * percent


@dataclass(frozen=True, slots=True)
class SandboxUse:
    """What a subject has of sandboxes: live ones, their memory, and those made since a moment."""

    sandboxes: int = 0
    memory_bytes: int = 0
    made: int = 0


@dataclass(frozen=True, slots=True)
class OverridesOf:
    """What is set for one user, group or key in place of its plan's amounts."""

    subject: str
    amounts: Overrides = field(default_factory=dict[QuotaName, int | None], hash=False)


@dataclass(frozen=True, slots=True)
class QuotaChange:
    """What is to be set for one subject, and what no more; what it does not name stays as it is."""

    subject: str
    amounts: Overrides = field(default_factory=dict[QuotaName, int | None], hash=False)
    cleared: frozenset[QuotaName] = frozenset()

    def applied(self, before: Overrides) -> Overrides:
        """What is set afterwards."""
        kept = {name: most for name, most in before.items() if name not in self.cleared}
        return {**kept, **self.amounts}


def minute_of(moment: datetime) -> int:
    """The minutes since 1970: what is counted by the hour is kept by the minute."""
    return int(moment.timestamp()) // 60


def window_start(moment: datetime) -> int:
    """The first minute that counts: a whole hour, and the minute that is under way, so never less than an hour."""
    return minute_of(moment) - WINDOW_MINUTES


def counted(name: QuotaName, amount: float) -> int:
    """An amount in the units in which it is counted."""
    return int(amount * COUNTED_IN.get(name, 1))


def told(name: QuotaName, amount: int) -> int:
    """The same in the units of its bound, rounded up: a quota that is begun is used."""
    return -(-amount // COUNTED_IN.get(name, 1))
