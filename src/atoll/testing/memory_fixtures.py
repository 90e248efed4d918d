"""The fixtures' part of MemoryRecords, in a dictionary."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.fixture import Fixture, FixtureKind
from atoll.records.fixtures import FixtureRecords


class MemoryFixtures(FixtureRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    _check: Any  # what the rest of MemoryRecords has
    _log: Any
    _sandboxes: Any

    def __init__(self) -> None:
        super().__init__()
        self._fixtures: dict[str, Fixture] = {}

    async def add_fixture(self, fixture: Fixture, event: Event, *, quota: int) -> None:
        self._check()
        if fixture.sandbox not in self._sandboxes:
            raise NotFound(f"sandbox {fixture.sandbox} does not exist")
        if fixture.id in self._fixtures:
            raise Conflict(f"there is a {fixture.kind} {fixture.name!r} in this sandbox already")
        kept = [one for one in self._fixtures.values() if (one.sandbox, one.kind) == (fixture.sandbox, fixture.kind)]
        if len(kept) >= quota:
            raise QuotaExceeded(f"a sandbox has at most {quota} {fixture.kind}s")
        self._fixtures[fixture.id] = copy.deepcopy(fixture)
        self._log(event)

    async def get_fixture(self, fixture_id: str) -> Fixture | None:
        self._check()
        return copy.deepcopy(self._fixtures.get(fixture_id))

    async def list_fixtures(
        self, *, sandbox: str | None = None, kind: FixtureKind | None = None, limit: int = 100_000
    ) -> list[Fixture]:
        self._check()
        found = [one for one in self._fixtures.values() if sandbox in (None, one.sandbox) and kind in (None, one.kind)]
        return copy.deepcopy(sorted(found, key=lambda one: (one.created_at, one.id))[:limit])

    async def swap_fixture(self, fixture: Fixture, event: Event | None) -> Fixture:
        self._check()
        stored = self._fixtures.get(fixture.id)
        if stored is None:
            raise NotFound(f"{fixture.kind} {fixture.id} does not exist")
        if stored.version != fixture.version:
            raise StaleVersion(f"{fixture.kind} {fixture.id} changed since it was read")
        after = copy.deepcopy(replace(fixture, version=fixture.version + 1))
        self._fixtures[fixture.id] = after
        if event is not None:
            self._log(event)
        return copy.deepcopy(after)

    async def delete_fixture(self, fixture_id: str, event: Event) -> None:
        self._check()
        if self._fixtures.pop(fixture_id, None) is None:
            raise NotFound(f"{fixture_id} does not exist")
        self._log(event)

    async def drop_fixtures(self, sandbox: str) -> int:
        self._check()
        gone = [one.id for one in self._fixtures.values() if one.sandbox == sandbox]
        for fixture_id in gone:
            del self._fixtures[fixture_id]
        return len(gone)
