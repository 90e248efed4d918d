"""What every records store must do with fixtures, as tests: subclass as `RecordsConformance`, with its `stores`.

Each test holds one sentence of the contract in `atoll.records.fixtures`; the last one races.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.fixture import Fixture, FixtureKind, fixture_id
from atoll.records.base import Records
from atoll.testing.records_conformance import T0, event, sandbox, together

KIND = FixtureKind.SERVER
SPEC = {"start": "run \u00e9", "port": 3000, "environment": {"A": "b"}, "depends_on": ["x"]}


def fixture(of: str, name: str = "web", *, kind: FixtureKind = KIND, age_s: float = 0) -> Fixture:
    at = T0 - timedelta(seconds=age_s)
    return Fixture(of, kind, name, "key_owner", at, at, SPEC, {"status": "running", "pid": None})


async def added(records: Records, one: Fixture, quota: int = 100) -> Fixture:
    await records.add_fixture(one, event(one.sandbox, f"{one.kind}.created"), quota=quota)
    return one


class FixtureRecordsConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    @pytest.fixture
    async def of(self, stores: tuple[Records, Records]) -> str:
        """A sandbox's id."""
        made = sandbox()
        await stores[0].add_sandbox(made, event(made.id))
        return made.id

    async def test_a_fixture_is_returned_as_it_was_stored(self, stores: tuple[Records, Records], of: str) -> None:
        one = await added(stores[0], fixture(of))
        assert await stores[1].get_fixture(fixture_id(of, KIND, "web")) == one
        assert await stores[1].get_fixture(fixture_id(of, FixtureKind.WATCHER, "web")) is None
        assert await stores[1].get_fixture("no\0such") is None
        assert "server.created" in [told.action for told in await stores[1].list_events(target=of)]

    async def test_fixtures_are_listed_oldest_first(self, stores: tuple[Records, Records], of: str) -> None:
        new, old = await added(stores[0], fixture(of)), await added(stores[0], fixture(of, "old", age_s=5))
        watcher = await added(stores[0], fixture(of, kind=FixtureKind.WATCHER, age_s=9))
        assert await stores[1].list_fixtures() == [watcher, old, new]
        assert await stores[1].list_fixtures(sandbox=of, kind=KIND) == [old, new]
        assert await stores[1].list_fixtures(sandbox="sess_000000000000") == []
        assert await stores[1].list_fixtures(limit=1) == [watcher]

    async def test_a_fixture_needs_its_sandbox(self, stores: tuple[Records, Records]) -> None:
        with pytest.raises(NotFound):
            await added(stores[0], fixture("sess_000000000000"))
        assert await stores[0].list_fixtures() == []

    async def test_the_same_name_twice_is_a_conflict_also_at_the_quota(
        self, stores: tuple[Records, Records], of: str
    ) -> None:
        one = await added(stores[0], fixture(of))
        with pytest.raises(Conflict):
            await added(stores[1], replace(one, spec={}), quota=1)
        assert await stores[0].get_fixture(one.id) == one

    async def test_a_change_needs_the_version_that_was_read(self, stores: tuple[Records, Records], of: str) -> None:
        one = await added(stores[0], fixture(of))
        changed = replace(one, spec={"start": "other"}, state={"n": [1, None]}, updated_at=T0 + timedelta(seconds=1))
        stored = await stores[0].swap_fixture(changed, None)
        assert stored == replace(changed, version=one.version + 1) == await stores[1].get_fixture(one.id)
        with pytest.raises(StaleVersion):
            await stores[1].swap_fixture(replace(one, state={}), event(of, "server.stopped"))
        assert await stores[0].get_fixture(one.id) == stored
        await stores[1].swap_fixture(replace(stored, state={}), event(of, "server.restarted"))
        actions = [told.action for told in await stores[0].list_events(target=of)]
        assert "server.restarted" in actions and "server.stopped" not in actions

    async def test_a_deleted_fixture_is_gone_once(self, stores: tuple[Records, Records], of: str) -> None:
        one, other = await added(stores[0], fixture(of)), await added(stores[0], fixture(of, "other"))
        await stores[0].delete_fixture(one.id, event(of, "server.deleted"))
        with pytest.raises(NotFound):
            await stores[1].delete_fixture(one.id, event(of, "server.deleted"))
        with pytest.raises(NotFound):
            await stores[1].swap_fixture(one, None)
        assert await stores[1].list_fixtures() == [other]
        assert [told.action for told in await stores[1].list_events(target=of)].count("server.deleted") == 1

    async def test_fixtures_are_dropped_with_their_sandbox(self, stores: tuple[Records, Records], of: str) -> None:
        another = sandbox()
        await stores[0].add_sandbox(another, event(another.id))
        await added(stores[0], fixture(of))
        await added(stores[0], fixture(of, kind=FixtureKind.WATCHER))
        stays = await added(stores[0], fixture(another.id))
        assert await stores[0].drop_fixtures(of) == 2
        assert await stores[1].drop_fixtures(of) == 0
        assert await stores[1].list_fixtures() == [stays]

    async def test_as_many_are_added_as_the_quota_says(self, stores: tuple[Records, Records], of: str) -> None:
        done = await together(*(added(stores[n % 2], fixture(of, f"s{n}"), quota=3) for n in range(8)))
        assert sum(isinstance(one, Fixture) for one in done) == 3
        assert all(isinstance(one, Fixture | QuotaExceeded) for one in done)
        assert len(await stores[0].list_fixtures(sandbox=of)) == 3
