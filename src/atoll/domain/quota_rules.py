"""When a quota is full: the rules by which every store decides, in the transaction that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from atoll.domain.errors import QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.ids import KEY_ID
from atoll.domain.quota import (
    WINDOW_MINUTES,
    Bound,
    Overrides,
    QuotaName,
    QuotaUse,
    SandboxUse,
    Spend,
    counted,
    minute_of,
    told,
)


def after_one_more(bound: Bound, has: SandboxUse, memory_bytes: int, *, new: bool) -> list[QuotaUse]:
    """What the bound's subject has with one more live sandbox of that memory; QuotaExceeded where that is too much.

    One that is not `new` was made before."""
    used: list[QuotaUse] = []
    live, made = bound.sandboxes, bound.made if new else None
    if made is not None and has.made >= made:
        raise _full("daily session limit", QuotaName.DAILY, bound, has.made, made)
    if live is not None and has.sandboxes >= live:
        raise _full("concurrent session limit", QuotaName.SANDBOXES, bound, has.sandboxes, live)
    memory = bound.memory_bytes
    if memory is not None and has.memory_bytes + memory_bytes > memory:
        raise QuotaExceeded(
            f"memory limit of all live sessions reached ({has.memory_bytes // 2**20} of {memory // 2**20} MiB, "
            f"and {memory_bytes // 2**20} more do not fit)",
            quota=QuotaName.MEMORY,
            subject=bound.subject,
            used=has.memory_bytes,
            limit=memory,
        )
    for name, amount, limit in (
        (QuotaName.DAILY, has.made + 1, made),
        (QuotaName.SANDBOXES, has.sandboxes + 1, live),
        (QuotaName.MEMORY, has.memory_bytes + memory_bytes, memory),
    ):
        if limit is not None:
            used.append(QuotaUse(name, bound.subject, amount, limit))
    return used


def with_quotas(event: Event, after: Overrides) -> Event:
    """The event that says what is set after it: nobody knows that before the transaction."""
    quotas = {name.value: most for name, most in sorted(after.items())}
    return replace(event, detail={**(event.detail or {}), "quotas": quotas})


def charged(charges: Iterable[Spend], made_by: Callable[[str], Sequence[str]]) -> list[Spend]:
    """The same, counted against the keys too that a key comes from (`made_by`); each subject once."""
    found = {(one.subject, one.name): one for one in charges}
    for one in list(found.values()):
        for above in made_by(one.subject) if one.amount and KEY_ID.match(one.subject) else ():
            found.setdefault((above, one.name), replace(one, subject=above, limit=None))
    return list(found.values())


def _full(what: str, name: QuotaName, bound: Bound, used: int, limit: int) -> QuotaExceeded:
    return QuotaExceeded(f"{what} reached ({used}/{limit})", quota=name, subject=bound.subject, used=used, limit=limit)


def refusal(spend: Spend, amount: int, first_minute: int | None, now: datetime) -> QuotaExceeded | None:
    """The error when so much is spent already; `first_minute` is of the oldest that
    counts."""
    if spend.limit is None:
        return None
    most = counted(spend.name, spend.limit)
    if amount + spend.amount <= most and (spend.amount or amount < most):
        return None
    used = told(spend.name, amount)
    moves_on = 60 * ((first_minute or minute_of(now)) + WINDOW_MINUTES + 1) - int(now.timestamp())
    return QuotaExceeded(
        f"{spend.name.value} limit reached ({used}/{spend.limit})",
        quota=spend.name,
        subject=spend.subject,
        used=used,
        limit=spend.limit,
        retry_after_s=max(1, moves_on),
    )
