"""The marketplace's workers in SQL: a part of `SqlRecords`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from atoll.domain.errors import NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.worker import Worker, WorkerQuery, WorkerUse, next_version, rated, sought_in
from atoll.records.locks import Lock
from atoll.records.schema import worker_uses, worker_versions, workers
from atoll.records.sql_chain import append_event
from atoll.records.sql_groups import hold_owner
from atoll.records.sql_store import SqlStore, event_values, lock_owner, put, storable
from atoll.records.workers import WorkerRecords

_PLAIN = ("version", "description", "endpoint_url", "template", "price_micro_usd", "updated_at")
_COUNTED = ("id", "author", "name", "public", "installs", "ratings", "stars", "created_at")
_DETAILS = (*_PLAIN, "tags", "command", "pricing")
_PUT_USE = put(worker_uses)


class SqlWorkers(SqlStore, WorkerRecords):
    """See `WorkerRecords` for what each method does."""

    async def publish_worker(self, worker: Worker, event: Event, *, quota: int, versions: int) -> Worker:
        storable(_row(worker))

        def publish(connection: Connection) -> Worker:
            lock_owner(connection, Lock.WORKERS, worker.author)
            hold_owner(connection, worker.author)
            mine = (workers.c.author == worker.author) & (workers.c.name == worker.name)
            row = connection.execute(select(workers).where(mine).with_for_update()).mappings().first()
            made = next_version(None if row is None else _of(row), worker)
            if row is None:
                _check(connection, workers.c.author == worker.author, "worker", quota)
                connection.execute(insert(workers), _row(made))
            else:
                connection.execute(update(workers).where(workers.c.id == made.id).values(_row(made)))
            number = _check(connection, worker_versions.c.worker == made.id, "version", versions)
            details = {name: value for name, value in _row(made).items() if name in _DETAILS}
            connection.execute(insert(worker_versions), {"worker": made.id, "number": number + 1, **details})
            told = replace(event, target=made.id, detail={**event.detail, "version": made.version})
            append_event(connection, event_values(told))
            return made

        return await self._commit(publish)

    async def delete_worker(self, worker: Worker, event: Event) -> bool:
        happened = event_values(event)

        def forget(connection: Connection) -> bool:
            there = connection.execute(delete(workers).where(workers.c.id == worker.id)).rowcount == 1
            if there:
                connection.execute(delete(worker_versions).where(worker_versions.c.worker == worker.id))
                connection.execute(delete(worker_uses).where(worker_uses.c.worker == worker.id))
                append_event(connection, happened)
            return there

        return await self._commit(forget)

    async def get_worker(self, worker_id: str, version: str | None = None) -> Worker | None:
        found = await self._all(select(workers).where(workers.c.id == worker_id), _of)
        if not found or version is None:
            return found[0] if found else None
        wanted = (worker_versions.c.worker == worker_id) & (worker_versions.c.version == version)
        versions = await self._all(select(worker_versions).where(wanted), _version_of(found[0]))
        return versions[0] if versions else None

    async def worker_versions(self, worker_id: str, *, limit: int = 1000) -> Sequence[Worker]:
        current = await self.get_worker(worker_id)
        if current is None:
            return []
        query = select(worker_versions).where(worker_versions.c.worker == worker_id)
        return await self._all(query.order_by(worker_versions.c.number.desc()).limit(limit), _version_of(current))

    async def search_workers(self, query: WorkerQuery, *, limit: int = 100, offset: int = 0) -> Sequence[Worker]:
        storable({"q": query.text, "tags": "\n".join(query.tags), "author": query.author})
        wanted = select(workers).where(or_(workers.c.public, workers.c.author == query.seer))
        if query.text:
            wanted = wanted.where(workers.c.sought.contains(query.text.casefold(), autoescape=True))
        if query.tags:
            tagged = [workers.c.tags.contains(f"\n{tag}\n", autoescape=True) for tag in query.tags]
            wanted = wanted.where(or_(*tagged))
        if query.author is not None:
            wanted = wanted.where(workers.c.author == query.author)
        if query.price_max_micro_usd is not None:
            wanted = wanted.where(workers.c.price_micro_usd <= query.price_max_micro_usd)
        order = workers.c.installs.desc(), workers.c.created_at.desc(), workers.c.id
        return await self._all(wanted.order_by(*order).limit(limit).offset(offset), _of)

    async def worker_use(self, worker_id: str, principal: str) -> WorkerUse | None:
        return (await self._all(select(worker_uses).where(_of_both(worker_id, principal)), _use_of) or [None])[0]

    async def install_worker(self, worker: Worker, principal: str, at: datetime, event: Event) -> Worker:
        happened = event_values(event)

        def install(connection: Connection) -> Worker:
            found, use = _locked(connection, worker.id, principal)
            if use.installed_at is not None:
                return found
            _change_use(connection, replace(use, installed_at=at))
            found = replace(found, installs=found.installs + 1)
            connection.execute(update(workers).where(workers.c.id == worker.id).values(installs=found.installs))
            append_event(connection, happened)
            return found

        return await self._commit(install)

    async def note_worker_run(self, worker: Worker, principal: str, at: datetime, event: Event) -> None:
        happened = event_values(event)

        def note(connection: Connection) -> None:
            _, use = _locked(connection, worker.id, principal)
            _change_use(connection, replace(use, ran_at=at))
            append_event(connection, happened)

        await self._commit(note, durable=False)

    async def rate_worker(self, worker: Worker, principal: str, stars: int, event: Event) -> Worker:
        happened = event_values(event)

        def rate(connection: Connection) -> Worker:
            found, use = _locked(connection, worker.id, principal)
            found = rated(found, use, stars)
            _change_use(connection, replace(use, stars=stars))
            counted = {"ratings": found.ratings, "stars": found.stars}
            connection.execute(update(workers).where(workers.c.id == worker.id).values(counted))
            append_event(connection, happened)
            return found

        return await self._commit(rate)


def _check(connection: Connection, wanted: Any, what: str, quota: int) -> int:
    """How many there are; QuotaExceeded when there may be no more."""
    table = workers if what == "worker" else worker_versions
    have: int = connection.execute(select(func.count()).select_from(table).where(wanted)).scalar_one()
    if have >= quota:
        raise QuotaExceeded(f"{what} limit reached ({have}/{quota})")
    return have


def _locked(connection: Connection, worker_id: str, principal: str) -> tuple[Worker, WorkerUse]:
    """The worker and what the principal had of it, as they are until the transaction ends."""
    row = connection.execute(select(workers).where(workers.c.id == worker_id).with_for_update()).mappings().first()
    if row is None:
        raise NotFound(f"worker {worker_id} does not exist")
    nothing = {"worker": worker_id, "principal": principal, "installed_at": None, "ran_at": None, "stars": None}
    _PUT_USE.run(connection, storable(nothing))
    use = connection.execute(select(worker_uses).where(_of_both(worker_id, principal))).mappings().one()
    return _of(row), _use_of(use)


def _change_use(connection: Connection, use: WorkerUse) -> None:
    changed = {"installed_at": use.installed_at, "ran_at": use.ran_at, "stars": use.stars}
    connection.execute(update(worker_uses).where(_of_both(use.worker, use.principal)).values(changed))


def _of_both(worker_id: str, principal: str) -> Any:
    return (worker_uses.c.worker == worker_id) & (worker_uses.c.principal == principal)


def _row(worker: Worker) -> dict[str, Any]:
    return {name: getattr(worker, name) for name in (*_PLAIN, *_COUNTED)} | {
        "tags": "\n" + "".join(f"{tag}\n" for tag in worker.tags),
        "command": json.dumps(worker.command),
        "pricing": json.dumps(dict(worker.pricing)),
        "sought": sought_in(worker),
    }


def _details_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _PLAIN} | {
        "tags": tuple(row["tags"].split("\n")[1:-1]),
        "command": tuple(json.loads(row["command"])),
        "pricing": json.loads(row["pricing"]),
    }


def _of(row: Mapping[Any, Any]) -> Worker:
    return Worker(**{name: row[name] for name in _COUNTED}, **_details_of(row))


def _version_of(current: Worker) -> Callable[[Mapping[Any, Any]], Worker]:
    def made(row: Mapping[Any, Any]) -> Worker:
        return replace(current, **_details_of(row))

    return made


def _use_of(row: Mapping[Any, Any]) -> WorkerUse:
    return WorkerUse(**row)
