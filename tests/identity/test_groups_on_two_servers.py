"""What one server ends, another on the same database soon takes no more: who left a group, a key whose parent ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.domain.errors import Unauthenticated
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Role
from atoll.records.sql import open_records
from atoll.services.identity.identity import Identity
from atoll.services.identity.memberships import Memberships
from atoll.services.keys import Keys
from atoll.testing.records_conformance import T0
from tests.records.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/atoll.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


async def test_a07_another_server_hears_of_who_left_and_of_a_revoked_parent_within_the_cache(url: str) -> None:
    here, there = open_records(url), open_records(url)
    await here.start()
    await there.start()
    try:
        now = [0.0]
        keys = Keys(here)
        other = Keys(there, cache_s=2.0, monotonic=lambda: now[0])
        identity = Identity(other, memberships=Memberships(there, 2.0, monotonic=lambda: now[0]))
        parent = await keys.create("parent")
        child = await keys.create("child", owner=parent.key.id, parent=parent.key.id)
        group = Group("grp_" + "1" * 24, "g", T0, T0)
        event = Event("group.created", group.id, group.id, parent.key.id)
        await here.add_group(group, Member(group.id, "key_000000000000", Role.ADMIN, T0), event)
        await here.put_member(Member(group.id, parent.key.id, Role.MEMBER, T0), event)
        assert (await identity.authenticate(child.text)).groups == {group.id: Role.MEMBER}
        await here.delete_member(group.id, parent.key.id, event)
        now[0] += 2.0
        assert (await identity.authenticate(child.text)).groups == {}
        await keys.revoke(parent.key.id)
        now[0] += 2.0
        with pytest.raises(Unauthenticated):
            await identity.authenticate(child.text)
    finally:
        await here.close()
        await there.close()
