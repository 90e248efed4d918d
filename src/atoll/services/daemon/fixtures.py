"""Fixtures: the records of servers, watchers, signals and overlays, and the one task that attends to each.

`servers`, `watchers`, `signals` and `overlays` use it. Who may see a sandbox sees its fixtures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import structlog

from atoll.domain.errors import AtollError, Conflict, NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.fixture import Fixture, FixtureKind, fixture_id
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.sandboxes import Sandboxes

_log = structlog.get_logger()
TRIES = 8  # of one change against others that come between
CANCEL_S = 10.0


class Fixtures:
    """Finds them, changes them, and keeps their tasks."""

    def __init__(self, records: Records, sandboxes: Sandboxes, clock: Clock = utc_now) -> None:
        self.records = records
        self.sandboxes = sandboxes
        self.clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def sandbox(self, principal: Principal, sandbox_id: str, *scopes: Scope) -> Sandbox:
        """The principal's; Forbidden without one of the scopes, NotFound. One that rests stays asleep."""
        sandbox = await self.sandboxes.acting(principal, sandbox_id, scopes[0])
        for scope in scopes[1:]:
            principal.require(scope, sandbox.owner)
        return sandbox

    async def add(
        self,
        principal: Principal,
        sandbox: Sandbox,
        kind: FixtureKind,
        name: str,
        spec: dict[str, Any],
        state: dict[str, Any],
        *,
        quota: int,
    ) -> Fixture:
        """Conflict when there is one of that name, QuotaExceeded; Conflict when the sandbox has ended."""
        if sandbox.ended:
            raise Conflict(f"session already {sandbox.state}")
        now = self.clock()
        made = Fixture(sandbox.id, kind, name, sandbox.owner, now, now, spec, state)
        await self.records.add_fixture(made, self.event(f"{kind}.created", made, principal.id), quota=quota)
        return made

    async def get(self, sandbox_id: str, kind: FixtureKind, name: str) -> Fixture:
        """NotFound, which says what was looked for."""
        found = await self.records.get_fixture(fixture_id(sandbox_id, kind, name))
        if found is None:
            raise NotFound(f"{kind} not found")
        return found

    async def list(self, sandbox_id: str, kind: FixtureKind) -> list[Fixture]:
        return await self.records.list_fixtures(sandbox=sandbox_id, kind=kind)

    async def change(
        self,
        fixture: Fixture,
        state: dict[str, Any],
        *,
        spec: dict[str, Any] | None = None,
        action: str = "",
        actor: str = "system",
    ) -> Fixture:
        """Its state with these fields anew; an `action` is told as an event. NotFound when it is gone."""
        for _ in range(TRIES):
            event = self.event(action, fixture, actor) if action else None
            after = replace(
                fixture,
                state={**fixture.state, **state},
                spec=fixture.spec if spec is None else spec,
                updated_at=self.clock(),
            )
            try:
                return await self.records.swap_fixture(after, event)
            except StaleVersion:
                fixture = await self.get(fixture.sandbox, fixture.kind, fixture.name)
        raise Conflict(f"the {fixture.kind} keeps changing: try again")

    async def delete(self, fixture: Fixture, actor: str) -> None:
        await self.records.delete_fixture(fixture.id, self.event(f"{fixture.kind}.deleted", fixture, actor))

    def event(self, action: str, fixture: Fixture, actor: str) -> Event:
        return Event(
            action=action,
            target=fixture.sandbox,
            tenant=fixture.owner,
            actor=actor,
            outcome="ok",
            detail={"name": fixture.name},
            at=self.clock(),
        )

    # tasks

    def attend(self, fixture: Fixture, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """One task for each, while there is none; a fault is logged."""
        if fixture.id in self._tasks:
            return
        task = asyncio.create_task(_quietly(work, fixture.id), name=fixture.id)
        self._tasks[fixture.id] = task

        def done(ended: asyncio.Task[None]) -> None:
            if self._tasks.get(fixture.id) is ended:
                del self._tasks[fixture.id]

        task.add_done_callback(done)

    async def leave(self, name: str) -> None:
        """End its task, if it has one."""
        task = self._tasks.pop(name, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait((task,), timeout=CANCEL_S)

    async def close(self) -> None:
        """What is attended to goes on inside the sandboxes; another life of the server finds it again."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_S)


def owner_of(sandbox: Sandbox | Fixture) -> Principal:
    """In whose name what was asked for goes on when who asked has left."""
    return Principal(sandbox.owner, KeyKind.STANDARD, frozenset(Scope))


async def _quietly(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    try:
        await work()
    except AtollError as error:
        _log.info("fixture.refused", fixture=name, error=error.message)
    except Exception:
        _log.exception("fixture.failed", fixture=name)
