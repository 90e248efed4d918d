"""Groups: who may do what with them, and what somebody who does not belong to one is told."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from atoll.domain.errors import AtollError, Conflict, Forbidden, InvalidInput, NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.group import Role
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.user import User
from atoll.services.identity.groups import GroupLimits, Groups
from atoll.services.identity.memberships import Memberships
from atoll.services.identity.principals import Principals
from atoll.testing.memory_records import MemoryRecords
from tests.principals import introduce

ALICE = Principal("key_a11ce0000000", KeyKind.STANDARD, frozenset(Scope), "alice")
BOB = Principal("key_b0b000000000", KeyKind.STANDARD, frozenset(Scope), "bob")
CAROL = Principal("key_ca0010000000", KeyKind.STANDARD, frozenset(Scope), "carol")
NOBODYS = "grp_" + "5" * 24


class Town:
    """Groups over records, with principals as the door would make them at each call."""

    def __init__(self, records: MemoryRecords, limits: GroupLimits | None = None) -> None:
        self.records = records
        self.memberships = Memberships(records)
        self.groups = Groups(records, self.memberships, Principals(records), limits=limits)
        self.lost: list[str] = []
        self.groups.left = self._left

    async def _left(self, principal_id: str) -> None:
        self.lost.append(principal_id)

    async def now(self, principal: Principal, **changes: Any) -> Principal:
        return replace(principal, groups=await self.memberships.of(principal.id), **changes)


@pytest.fixture
async def town() -> Town:
    records = MemoryRecords()
    await introduce(records, ALICE, BOB, CAROL)
    return Town(records)


async def group(town: Town, **members: Role) -> str:
    """One of alice's with others in it, by name."""
    made = await town.groups.create(await town.now(ALICE), "team")
    ids = {"bob": BOB.id, "carol": CAROL.id}
    for name, role in members.items():
        await town.groups.add(await town.now(ALICE), made.group.id, ids[name], role)
    return made.group.id


async def refused(call: Awaitable[object]) -> AtollError:
    with pytest.raises(AtollError) as raised:
        await call
    return raised.value


async def test_who_makes_a_group_is_its_admin_and_sees_it(town: Town) -> None:
    made = await town.groups.create(ALICE, "team", "ours")
    assert (made.group.name, made.group.description, made.role) == ("team", "ours", Role.ADMIN)
    alice = await town.now(ALICE)
    assert await town.groups.list(alice) == [made] == [await town.groups.get(alice, made.group.id)]
    assert [one.principal for one in await town.groups.members(alice, made.group.id)] == [ALICE.id]


async def test_a02_anothers_group_is_unknown_in_every_method(town: Town) -> None:
    theirs, bob = await group(town), await town.now(BOB)
    groups = town.groups
    for call in (
        lambda one: groups.get(bob, one),
        lambda one: groups.change(bob, one, name="mine"),
        lambda one: groups.delete(bob, one),
        lambda one: groups.members(bob, one),
        lambda one: groups.add(bob, one, BOB.id, Role.ADMIN),
        lambda one: groups.set_role(bob, one, ALICE.id, Role.VIEWER),
        lambda one: groups.remove(bob, one, BOB.id),
        lambda one: groups.remove(bob, one, ALICE.id),
    ):
        answers = [await refused(call(one)) for one in (theirs, NOBODYS, "nonsense", "")]
        assert {(type(one), one.message) for one in answers} == {(NotFound, "group not found")}
    assert await groups.list(bob) == []


@pytest.mark.parametrize("role", [Role.VIEWER, Role.MEMBER])
async def test_only_an_admin_changes_a_group(town: Town, role: Role) -> None:
    ours = await group(town, bob=role, carol=Role.VIEWER)
    bob, groups = await town.now(BOB), town.groups
    assert (await groups.get(bob, ours)).role is role
    assert len(await groups.members(bob, ours)) == 3
    for call in (
        groups.change(bob, ours, name="mine"),
        groups.delete(bob, ours),
        groups.add(bob, ours, BOB.id, Role.ADMIN),
        groups.set_role(bob, ours, BOB.id, Role.ADMIN),
        groups.remove(bob, ours, CAROL.id),
    ):
        assert isinstance(await refused(call), Forbidden)


async def test_a03_each_method_needs_its_scope(town: Town) -> None:
    ours = await group(town)
    reader = await town.now(ALICE, scopes=frozenset({Scope.READ}))
    writer = await town.now(ALICE, scopes=frozenset({Scope.WRITE, Scope.EXECUTE}))
    groups = town.groups
    for call in (
        groups.create(reader, "x"),
        groups.change(reader, ours, name="x"),
        groups.delete(reader, ours),
        groups.add(reader, ours, BOB.id, Role.VIEWER),
        groups.set_role(reader, ours, ALICE.id, Role.VIEWER),
        groups.remove(reader, ours, ALICE.id),
        groups.list(writer),
        groups.get(writer, ours),
        groups.members(writer, ours),
    ):
        assert isinstance(await refused(call), Forbidden)


async def test_a_member_leaves_by_itself_and_has_lost_the_group_at_once(town: Town) -> None:
    ours = await group(town, bob=Role.VIEWER)
    await town.groups.remove(await town.now(BOB), ours, BOB.id)
    assert (await town.now(BOB)).groups == {}
    assert town.lost == [BOB.id]
    assert isinstance(await refused(town.groups.remove(await town.now(ALICE), ours, BOB.id)), NotFound)


async def test_whoever_gets_a_lesser_role_is_told_of_and_whoever_gets_more_is_not(town: Town) -> None:
    ours = await group(town, bob=Role.MEMBER)
    alice = await town.now(ALICE)
    await town.groups.set_role(alice, ours, BOB.id, Role.ADMIN)
    assert (await town.now(BOB)).groups == {ours: Role.ADMIN}
    assert town.lost == []
    await town.groups.set_role(alice, ours, BOB.id, Role.VIEWER)
    assert town.lost == [BOB.id]


async def test_a_group_keeps_an_admin_and_names_its_members_once(town: Town) -> None:
    ours, alice = await group(town, bob=Role.MEMBER), await town.now(ALICE)
    assert isinstance(await refused(town.groups.remove(alice, ours, ALICE.id)), Conflict)
    assert isinstance(await refused(town.groups.set_role(alice, ours, ALICE.id, Role.MEMBER)), Conflict)
    assert isinstance(await refused(town.groups.add(alice, ours, BOB.id, Role.ADMIN)), Conflict)


@pytest.mark.parametrize("who", ["key_000000000000", "bob", NOBODYS, "\ud800", "x" * 300, ""])
async def test_only_a_principal_of_this_server_becomes_a_member(town: Town, who: str) -> None:
    ours = await group(town)
    error = await refused(town.groups.add(await town.now(ALICE), ours, who, Role.MEMBER))
    assert isinstance(error, InvalidInput) and error.field == "principal"


@pytest.mark.parametrize("name", ["", "  ", "a/b", "x" * 129, "a\nb", NOBODYS])
async def test_a_group_has_a_name_that_can_stand_before_a_slash(town: Town, name: str) -> None:
    error = await refused(town.groups.create(ALICE, name))
    assert isinstance(error, InvalidInput) and error.field == "name"


async def test_a_principal_makes_so_many_groups() -> None:
    town = Town(MemoryRecords(), GroupLimits(groups_max=1))
    await town.groups.create(ALICE, "a")
    assert isinstance(await refused(town.groups.create(ALICE, "b")), QuotaExceeded)


async def test_whoever_adds_somebody_to_groups_unasked_keeps_them_from_no_group_of_their_own(town: Town) -> None:
    town = Town(town.records, GroupLimits(groups_max=2, joined_max=2))
    for name in ("a", "b"):
        made = await town.groups.create(BOB, name)
        await town.groups.add(await town.now(BOB), made.group.id, ALICE.id, Role.ADMIN)
        await town.groups.remove(await town.now(BOB), made.group.id, BOB.id)
    assert isinstance(await refused(town.groups.create(BOB, "c")), QuotaExceeded)
    for name in ("a", "b"):
        await town.groups.create(ALICE, name)


async def test_a_credential_with_bounds_sees_the_groups_that_they_name_and_makes_none(town: Town) -> None:
    ours, other = await group(town), await group(town)
    bound = await town.now(ALICE, resources=frozenset({ours, "ws_" + "1" * 32}))
    assert [one.group.id for one in await town.groups.list(bound)] == [ours]
    assert isinstance(await refused(town.groups.get(bound, other)), NotFound)
    assert isinstance(await refused(town.groups.create(bound, "x")), Forbidden)


async def test_a_groups_own_key_looks_at_the_group_and_changes_nothing_of_it(town: Town) -> None:
    ours = await group(town)
    own = Principal(ours, KeyKind.STANDARD, frozenset(Scope), "a bot")
    assert (await town.groups.get(own, ours)).role is Role.MEMBER
    assert isinstance(await refused(town.groups.add(own, ours, BOB.id, Role.ADMIN)), Forbidden)
    assert isinstance(await refused(town.groups.create(own, "nested")), Forbidden)


async def test_each_change_writes_one_event_in_the_groups_tenant(town: Town) -> None:
    ours, alice = await group(town, bob=Role.MEMBER), await town.now(ALICE)
    await town.groups.change(alice, ours, name="crew")
    await town.groups.change(alice, ours, name="crew")  # nothing changes
    await town.groups.set_role(alice, ours, BOB.id, Role.ADMIN)
    await town.groups.remove(alice, ours, BOB.id)
    await town.groups.delete(alice, ours)
    events = await town.records.list_events(tenant=ours)
    assert [(one.action, one.target, one.actor) for one in events] == [
        (action, ours, ALICE.id)
        for action in (
            "group.created", "member.added", "group.changed", "member.changed", "member.removed", "group.deleted",
        )
    ]  # fmt: skip
    assert await town.groups.list(await town.now(ALICE)) == []


async def test_a_member_leaves_by_username_as_by_id(town: Town) -> None:
    user = User("user_" + "c" * 24, "cher", datetime.now(UTC))
    await town.records.add_user(user, Event("user.created", user.id, user.id, "system"))
    cher = Principal(user.id, KeyKind.STANDARD, frozenset(Scope), "cher")
    ours = await group(town, bob=Role.MEMBER)
    await town.groups.add(await town.now(ALICE), ours, "cher", Role.VIEWER)
    assert isinstance(await refused(town.groups.remove(await town.now(BOB), ours, "cher")), Forbidden)
    await town.groups.remove(await town.now(cher), ours, "cher")
    assert await town.groups.list(await town.now(cher)) == []
