"""The events' part of MemoryRecords: chains in lists."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from atoll.domain.checkpoint import AuditKey, Checkpoint, Head
from atoll.domain.errors import Conflict
from atoll.domain.event import Event, EventQuery
from atoll.domain.event_chain import GENESIS, HASHED, Link, event_hash, moment_text
from atoll.records.audit import AuditRecords
from atoll.records.rows import event_row


class MemoryEvents(AuditRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[Event] = []
        self._heads: dict[str, Head] = {}
        self._checkpoints: list[Checkpoint] = []
        self._audit_keys: list[AuditKey] = []

    async def add_events(self, events: Sequence[Event]) -> None:
        self._check()
        for event in events:
            self._log(event)

    async def list_events(
        self, *, tenant: str | None = None, target: str | None = None, after_id: int = 0, limit: int = 1000
    ) -> list[Event]:
        self._check()
        found = [
            event
            for event in self._events
            if (tenant is None or event.tenant == tenant)
            and (target is None or event.target == target)
            and (event.id or 0) > after_id
        ]
        return found[:limit]

    async def find_events(self, query: EventQuery) -> list[Event]:
        self._check()
        found = [event for event in self._events if _wanted(event, query)]
        if query.newest_first:
            found.reverse()
        return found[: query.limit]

    async def follow_events(self, tenant: str, after_seq: int, limit: int) -> list[Event]:
        self._check()
        return [one for one in self._events if one.tenant == tenant and (one.seq or 0) > after_seq][:limit]

    async def list_heads(self, tenants: Collection[str] | None = None) -> list[Head]:
        self._check()
        return [self._heads[name] for name in sorted(self._heads) if tenants is None or name in tenants]

    async def positions(self, after_id: int, tenants: Collection[str] | None = None) -> dict[str, int]:
        self._check()
        seen = [one for one in self._events if (one.id or 0) <= after_id and (tenants is None or one.tenant in tenants)]
        return {one.tenant: one.seq or 0 for one in seen}

    # verification

    async def read_links(self, after: tuple[str, int] | None, limit: int, tenant: str | None = None) -> list[Link]:
        self._check()
        signed = {(head.tenant, head.seq): head.hash for one in self._checkpoints for head in one.heads}
        found: list[Link] = []
        for event in sorted(self._events, key=lambda event: (event.tenant, event.seq or 0)):
            place = (event.tenant, event.seq or 0)
            if (after is not None and place <= after) or (tenant is not None and event.tenant != tenant):
                continue
            head = self._heads[event.tenant]
            found.append(
                Link(
                    *place,
                    event.id or 0,
                    moment_text(event.at),
                    event.action,
                    event.target,
                    event.actor,
                    event.credential,
                    event.outcome,
                    event.request_id,
                    event.address,
                    event_row(event)["detail"],
                    event.previous,
                    event.hash,
                    signed.get(place),
                    head.seq,
                    head.hash,
                )
            )
        return found[:limit]

    async def missing_events(self, tenant: str | None = None, limit: int = 100) -> list[Head]:
        self._check()
        there = {(event.tenant, event.seq) for event in self._events}
        said = {*self._heads.values(), *(head for one in self._checkpoints for head in one.heads)}
        found = [one for one in said if (one.tenant, one.seq) not in there and tenant in (None, one.tenant)]
        return sorted(found, key=lambda one: (one.tenant, one.seq))[:limit]

    # checkpoints

    async def unsigned_heads(self) -> tuple[Checkpoint | None, list[Head]]:
        self._check()
        signed = {(head.tenant, head.seq) for one in self._checkpoints for head in one.heads}
        last = replace(self._checkpoints[-1], heads=()) if self._checkpoints else None
        return last, [self._heads[name] for name in sorted(self._heads) if (name, self._heads[name].seq) not in signed]

    async def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._check()
        if any(one.number == checkpoint.number for one in self._checkpoints):
            raise Conflict(f"there is a checkpoint {checkpoint.number} already")
        self._checkpoints.append(checkpoint)

    async def list_checkpoints(self, after: int = 0, limit: int = 100) -> list[Checkpoint]:
        self._check()
        return [one for one in self._checkpoints if one.number > after][:limit]

    async def add_audit_key(self, key: AuditKey, *, first: bool, event: Event) -> None:
        self._check()
        if first and self._audit_keys:
            raise Conflict("there is a key for checkpoints already")
        self._audit_keys.append(key)
        self._log(event)

    async def list_audit_keys(self) -> list[AuditKey]:
        self._check()
        return list(self._audit_keys)

    def _check(self) -> None:
        """Unavailable while the store is down: `MemoryRecords` says when."""

    def _log(self, event: Event | None) -> None:
        if event is None:
            return
        head = self._heads.get(event.tenant, Head(event.tenant, 0, GENESIS))
        row: dict[str, Any] = event_row(event) | {
            "id": len(self._events) + 1,
            "seq": head.seq + 1,
            "at": moment_text(event.at),
        }
        digest = event_hash(head.hash, [row[name] for name in HASHED])
        self._heads[event.tenant] = Head(event.tenant, head.seq + 1, digest)
        self._events.append(replace(event, id=row["id"], seq=row["seq"], previous=head.hash, hash=digest))


def _wanted(event: Event, query: EventQuery) -> bool:
    action = query.action
    return (
        (query.tenants is None or event.tenant in query.tenants)
        and (query.targets is None or event.target in query.targets)
        and (
            action is None or (event.action.startswith(action[:-1]) if action.endswith("*") else event.action == action)
        )
        and (query.actor is None or event.actor == query.actor)
        and (query.outcome is None or event.outcome == query.outcome)
        and (query.request_id is None or event.request_id == query.request_id)
        and (query.since is None or event.at >= query.since)
        and (query.until is None or event.at < query.until)
        and (query.after_id is None or (event.id or 0) > query.after_id)
        and (query.before_id is None or (event.id or 0) < query.before_id)
    )
