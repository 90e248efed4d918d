"""Quotas and idempotent requests of MemoryRecords, in dictionaries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from atoll.domain.event import Event
from atoll.domain.idempotency import SMALL_BYTES, IdempotentRequest
from atoll.domain.key import ApiKey
from atoll.domain.quota import (
    Bound,
    Overrides,
    OverridesOf,
    QuotaChange,
    QuotaName,
    QuotaUse,
    SandboxUse,
    Spend,
    minute_of,
    told,
    window_start,
)
from atoll.domain.quota_rules import after_one_more, charged, refusal, with_quotas
from atoll.domain.sandbox import Sandbox
from atoll.records.idempotency import IdempotencyRecords
from atoll.records.quotas import QuotaRecords


class MemoryQuotas(IdempotencyRecords, QuotaRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    _sandboxes: dict[str, Sandbox]
    _keys: dict[str, ApiKey]

    def __init__(self) -> None:
        super().__init__()
        self._overrides: dict[str, OverridesOf] = {}
        self._spent: dict[tuple[str, QuotaName, int], int] = {}
        self._idempotent: dict[tuple[str, str], IdempotentRequest] = {}

    def _check(self) -> None:
        raise NotImplementedError

    def _log(self, event: Event | None) -> None:
        raise NotImplementedError

    # quotas

    async def get_quotas(self, subjects: Collection[str]) -> dict[str, OverridesOf]:
        self._check()
        return {subject: self._overrides[subject] for subject in subjects if subject in self._overrides}

    async def list_quotas(self, *, limit: int = 1000) -> list[OverridesOf]:
        self._check()
        return [one for _, one in sorted(self._overrides.items())][:limit]

    async def put_quotas(self, overrides: OverridesOf, event: Event) -> None:
        self._check()
        whole: Any = self
        whole._hold_owner(overrides.subject)
        if overrides.amounts:
            self._overrides[overrides.subject] = overrides
        else:
            self._overrides.pop(overrides.subject, None)
        self._log(event)

    async def change_quotas(self, change: QuotaChange, event: Event) -> None:
        self._check()
        self._log(with_quotas(event, self._change_overrides(change)))

    def _change_overrides(self, change: QuotaChange) -> Overrides:
        whole: Any = self
        whole._hold_owner(change.subject)
        known = self._overrides.pop(change.subject, OverridesOf(change.subject))
        after = change.applied(known.amounts)
        if after:
            self._overrides[change.subject] = OverridesOf(change.subject, after)
        return after

    async def sandbox_use(self, bound: Bound) -> SandboxUse:
        self._check()
        return self._has(bound)

    async def spend(self, spends: Sequence[Spend], now: datetime) -> list[QuotaUse]:
        self._check()
        used: list[QuotaUse] = []
        for one in spends:
            minutes = self._minutes(one.subject, one.name, now)
            refused = refusal(one, sum(minutes.values()), min(minutes, default=None), now)
            if refused is not None:
                raise refused
            amount = told(one.name, sum(minutes.values()) + one.amount)
            used.append(QuotaUse(one.name, one.subject, amount, one.limit))
        self._charge(spends, now)
        return used

    async def spent(self, subjects: Collection[str], now: datetime) -> dict[tuple[str, QuotaName], int]:
        self._check()
        found = {(subject, name): self._minutes(subject, name, now) for subject in subjects for name in QuotaName}
        return {key: sum(minutes.values()) for key, minutes in found.items() if minutes}

    async def prune_spent(self, now: datetime) -> int:
        self._check()
        old = [key for key in self._spent if key[2] < window_start(now)]
        for key in old:
            del self._spent[key]
        return len(old)

    async def add_event(self, event: Event) -> None:
        self._check()
        self._log(event)

    def _check_bounds(self, bounds: Iterable[Bound], memory_bytes: int, *, new: bool) -> list[QuotaUse]:
        return [use for bound in bounds for use in after_one_more(bound, self._has(bound), memory_bytes, new=new)]

    def _charge(self, charges: Iterable[Spend], now: datetime) -> None:
        for one in charged(charges, self._above):
            if one.amount:
                key = (one.subject, one.name, minute_of(now))
                self._spent[key] = self._spent.get(key, 0) + one.amount

    def _above(self, key_id: str) -> list[str]:
        found: list[str] = []
        key = self._keys.get(key_id)
        while key is not None and key.parent is not None:
            found.append(key.parent)
            key = self._keys.get(key.parent)
        return found

    def _minutes(self, subject: str, name: QuotaName, now: datetime) -> dict[int, int]:
        first = window_start(now)
        return {
            minute: amount
            for (whose, what, minute), amount in self._spent.items()
            if (whose, what) == (subject, name) and minute >= first
        }

    def _has(self, bound: Bound) -> SandboxUse:
        mine = [
            one
            for one in self._sandboxes.values()
            if bound.subject
            and (
                bound.subject in (one.credential, *self._above(one.credential)) and one.credential != ""
                if bound.by_credential
                else bound.subject == one.owner
            )
        ]
        live = [one for one in mine if one.live]
        made = [
            one
            for one in mine
            if bound.since and one.created_at >= bound.since and (one.live or one.started_at is not None)
        ]
        return SandboxUse(len(live), sum(one.spec.resources.memory_bytes for one in live), len(made))

    # idempotent requests

    async def begin_request(self, request: IdempotentRequest, *, forgotten: datetime) -> IdempotentRequest | None:
        self._check()
        known = self._idempotent.get((request.principal, request.key))
        if known is not None and known.created_at >= forgotten:
            return known
        self._idempotent[request.principal, request.key] = request
        return None

    async def answer_request(self, request: IdempotentRequest, *, bytes_max: int | None = None) -> None:
        self._check()
        answer = request.answer or b""
        if bytes_max is not None and len(answer) > SMALL_BYTES:
            theirs = (len(one.answer or b"") for one in self._idempotent.values() if one.owner == request.owner)
            if sum(size for size in theirs if size > SMALL_BYTES) + len(answer) > bytes_max:
                answer = b""
        known = self._idempotent.get((request.principal, request.key))
        if known is not None and known.server == request.server:
            self._idempotent[request.principal, request.key] = replace(known, answer=answer)

    async def forget_request(self, request: IdempotentRequest) -> None:
        self._check()
        known = self._idempotent.get((request.principal, request.key))
        if known is not None and known.server == request.server and known.answer is None:
            del self._idempotent[request.principal, request.key]

    async def prune_requests(self, before: datetime, *, kept: int | None = None) -> int:
        self._check()
        old = {key for key, one in self._idempotent.items() if one.created_at < before}
        for owner in {one.owner for one in self._idempotent.values()} if kept is not None else ():
            mine = [key for key, one in self._idempotent.items() if one.owner == owner]
            old.update(sorted(mine, key=lambda key: self._idempotent[key].created_at, reverse=True)[kept:])
        for key in old:
            del self._idempotent[key]
        return len(old)
