"""What every records store must do with groups, as tests: subclass as `RecordsConformance`, with its `stores`.

Each test holds one sentence of the contract in `atoll.records.groups`; the last ones race.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Membership, Role
from atoll.domain.ids import new_id
from atoll.domain.quota import OverridesOf, QuotaName
from atoll.domain.sandbox import SandboxState
from atoll.domain.workspace import Permission, Share
from atoll.records.base import Records
from atoll.testing.records_conformance import T0, event, key, sandbox, together
from atoll.testing.webhook_records_conformance import webhook
from atoll.testing.workspace_records_examples import made


def group(name: str = "g", *, age_s: float = 0, **changes: Any) -> Group:
    at = T0 - timedelta(seconds=age_s)
    return replace(Group(new_id("grp"), name, at, at), **changes)


def member(of: Group, principal: str = "key_0", role: Role = Role.ADMIN, *, after_s: float = 0) -> Member:
    return Member(of.id, principal, role, T0 + timedelta(seconds=after_s))


async def added(records: Records, name: str = "g", principal: str = "key_0", **changes: Any) -> Group:
    one = group(name, creator=principal, **changes)
    await records.add_group(one, member(one, principal), event(one.id, "group.created"))
    return one


async def actions(records: Records, one: Group) -> list[str]:
    found: list[Event] = await records.list_events(target=one.id)
    return [event.action for event in found]


class GroupRecordsConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    async def test_a_group_is_returned_as_it_was_stored_with_its_first_member(self, records: Records) -> None:
        one = await added(records, "büro ☃", description="two\nlines")
        assert await records.get_group(one.id) == one
        assert await records.list_members(one.id) == [member(one)]
        assert await records.get_member(one.id, "key_0") == member(one)
        assert await records.list_memberships("key_0") == [Membership(one, Role.ADMIN)]
        assert await actions(records, one) == ["group.created"]

    async def test_an_unknown_group_is_none_and_has_nobody(self, records: Records) -> None:
        assert await records.get_group("grp_0") is None
        assert await records.get_member("grp_0", "key_0") is None
        assert await records.list_members("grp_0") == []
        assert await records.list_memberships("key_1") == []

    async def test_a_second_group_with_the_same_id_is_a_conflict_and_leaves_no_event(self, records: Records) -> None:
        one = await added(records)
        with pytest.raises(Conflict):
            await records.add_group(one, member(one, "key_1"), event(one.id))
        assert await actions(records, one) == ["group.created"]
        assert await records.list_members(one.id) == [member(one)]

    async def test_a_principal_makes_so_many_groups_at_most_also_after_it_has_left_them(self, records: Records) -> None:
        one = await added(records)
        await records.put_member(member(one, "key_1"), event(one.id, "member.added"))
        await records.delete_member(one.id, "key_0", event(one.id, "member.removed"))
        another = group(creator="key_0")
        with pytest.raises(QuotaExceeded):
            await records.add_group(another, member(another), event(another.id), quota=1)
        assert await records.get_group(another.id) is None
        await records.delete_group(one.id, event(one.id))
        await records.add_group(another, member(another), event(another.id), quota=1)

    async def test_groups_that_others_made_take_no_place_of_one_s_own_and_are_bounded_apart(
        self, records: Records
    ) -> None:
        theirs = [await added(records, name, "key_1") for name in ("g", "h", "i")]
        for one in theirs[:2]:
            await records.put_member(member(one), event(one.id), groups_max=2)
        with pytest.raises(QuotaExceeded):
            await records.put_member(member(theirs[2]), event(theirs[2].id), groups_max=2)
        own = group(creator="key_0")
        await records.add_group(own, member(own), event(own.id), quota=1)
        assert {one.group.id for one in await records.list_memberships("key_0")} == {theirs[0].id, theirs[1].id, own.id}

    async def test_a_swap_of_a_group_changes_it_and_an_old_version_is_refused(self, records: Records) -> None:
        one = await added(records)
        after = await records.swap_group(replace(one, name="other"), event(one.id, "group.changed"))
        assert after == replace(one, name="other", version=2) == await records.get_group(one.id)
        with pytest.raises(StaleVersion):
            await records.swap_group(one, event(one.id))
        with pytest.raises(NotFound):
            await records.swap_group(group(), event(one.id))
        assert await actions(records, one) == ["group.created", "group.changed"]

    async def test_members_are_added_changed_and_removed_with_an_event_each(self, records: Records) -> None:
        one = await added(records)
        await records.put_member(member(one, "key_1", Role.VIEWER, after_s=1), event(one.id, "member.added"))
        assert await records.get_member(one.id, "key_1") == member(one, "key_1", Role.VIEWER, after_s=1)
        changed = member(one, "key_1", Role.ADMIN, after_s=9)
        await records.put_member(changed, event(one.id, "member.changed"))
        assert await records.list_members(one.id) == [member(one), member(one, "key_1", Role.ADMIN, after_s=1)]
        assert await records.delete_member(one.id, "key_0", event(one.id, "member.removed"))
        assert not await records.delete_member(one.id, "key_0", event(one.id, "member.removed"))
        assert not await records.delete_member("grp_0", "key_0", event(one.id, "member.removed"))
        assert await records.list_memberships("key_0") == []
        assert await actions(records, one) == ["group.created", "member.added", "member.changed", "member.removed"]
        with pytest.raises(NotFound):
            await records.put_member(member(group()), event(one.id))

    async def test_a_group_keeps_an_admin(self, records: Records) -> None:
        one = await added(records)
        await records.put_member(member(one, "key_1", Role.MEMBER), event(one.id, "member.added"))
        with pytest.raises(Conflict):
            await records.delete_member(one.id, "key_0", event(one.id, "member.removed"))
        with pytest.raises(Conflict):
            await records.put_member(member(one, role=Role.MEMBER), event(one.id, "member.changed"))
        assert await records.get_member(one.id, "key_0") == member(one)
        assert await actions(records, one) == ["group.created", "member.added"]

    async def test_a_group_has_so_many_members_at_most_and_those_may_change(self, records: Records) -> None:
        one = await added(records)
        await records.put_member(member(one, "key_1"), event(one.id), members_max=2)
        with pytest.raises(QuotaExceeded):
            await records.put_member(member(one, "key_2"), event(one.id), members_max=2)
        await records.put_member(member(one, "key_1", Role.VIEWER), event(one.id), members_max=2)
        assert {one.principal for one in await records.list_members(one.id)} == {"key_0", "key_1"}

    async def test_memberships_are_listed_oldest_group_first(self, records: Records) -> None:
        ages = {age_s: await added(records, age_s=age_s) for age_s in (5, 50, 20)}
        assert [one.group for one in await records.list_memberships("key_0")] == [ages[50], ages[20], ages[5]]

    async def test_a_group_goes_once_it_owns_nothing_and_takes_its_shares_along(self, records: Records) -> None:
        one, own = await added(records), await made(records)
        await records.put_share(Share(own.id, one.id, Permission.READ, T0), event(own.id))
        await records.delete_group(one.id, event(one.id, "group.deleted"))
        assert await records.get_group(one.id) is None
        assert await records.list_memberships("key_0") == []
        assert await records.list_shares(own.id) == []
        assert await actions(records, one) == ["group.created", "group.deleted"]
        with pytest.raises(NotFound):
            await records.delete_group(one.id, event(one.id))

    async def test_a_group_s_webhooks_and_quotas_go_with_it(self, records: Records) -> None:
        one = await added(records)
        hook = webhook(one.id)
        await records.add_webhook(hook, event(hook.id), quota=10)
        await records.put_quotas(OverridesOf(one.id, {QuotaName.SANDBOXES: 1}), event(one.id, "quota.set"))
        await records.delete_group(one.id, event(one.id))
        assert await records.get_webhook(hook.id) is None
        assert await records.get_quotas((one.id,)) == {}
        with pytest.raises(NotFound):
            await records.add_webhook(hook, event(hook.id), quota=10)
        with pytest.raises(NotFound):
            await records.put_quotas(OverridesOf(one.id, {QuotaName.SANDBOXES: 1}), event(one.id))

    async def test_a_new_member_is_no_member_yet_also_for_two_who_add_it_at_once(
        self, stores: tuple[Records, Records]
    ) -> None:
        one = await added(stores[0])
        roles = Role.ADMIN, Role.VIEWER
        puts = [
            store.put_member(member(one, "key_1", role), event(one.id, "member.added"), new=True)
            for store, role in zip(stores, roles, strict=True)
        ]
        outcomes = await together(*puts)
        assert [isinstance(outcome, Conflict) for outcome in outcomes].count(True) == 1
        stored = await stores[0].get_member(one.id, "key_1")
        assert stored is not None and stored.role is roles[outcomes.index(None)]
        assert (await actions(stores[0], one)).count("member.added") == 1

    async def test_a_group_stays_while_it_owns_something(self, records: Records) -> None:
        one = await added(records)
        asleep = sandbox(one.id, state=SandboxState.SUSPENDED)
        await records.add_sandbox(asleep, event(asleep.id))
        own = key(owner=one.id)
        await records.add_key(own, event(own.id))
        kept = await made(records, owner=one.id)
        with pytest.raises(Conflict, match="1 sandboxes, 1 workspaces, 1 keys"):
            await records.delete_group(one.id, event(one.id))
        await records.swap_sandbox(replace(asleep, state=SandboxState.KILLED), None)
        await records.swap_key(replace(own, revoked_at=T0), None)
        with pytest.raises(Conflict, match="owns 1 workspaces:"):
            await records.delete_group(one.id, event(one.id))
        await records.swap_workspace(replace(kept, deleted_at=T0), None)
        await records.delete_group(one.id, event(one.id))

    async def test_nothing_is_added_that_a_group_owns_which_is_gone(self, records: Records) -> None:
        gone = group()
        with pytest.raises(NotFound):
            await records.add_sandbox(sandbox(gone.id), event())
        with pytest.raises(NotFound):
            await made(records, owner=gone.id)

    async def test_sandboxes_and_workspaces_of_several_owners_are_listed_together(self, records: Records) -> None:
        for n, owner in enumerate(("key_0", "key_1", "key_2")):
            await records.add_sandbox(sandbox(owner, age_s=n), event())
            await made(records, owner=owner)
        both = ("key_2", "key_0")
        assert [one.owner for one in await records.list_sandboxes(owner=both)] == ["key_0", "key_2"]
        assert {one.owner for one in await records.list_workspaces(owner=both)} == set(both)
        assert await records.list_sandboxes(owner=()) == []

    async def test_of_two_admins_that_leave_at_once_one_stays(self, stores: tuple[Records, Records]) -> None:
        for _ in range(5):
            one = await added(stores[0])
            await stores[0].put_member(member(one, "key_1"), event(one.id))
            results = await together(
                *(stores[n].delete_member(one.id, f"key_{n}", event(one.id, "member.removed")) for n in (0, 1))
            )
            assert sorted(type(result).__name__ for result in results) == ["Conflict", "bool"], results
            assert len(await stores[0].list_members(one.id)) == 1

    async def test_a_group_is_deleted_or_gets_a_sandbox_never_both(self, stores: tuple[Records, Records]) -> None:
        for _ in range(5):
            one = await added(stores[0])
            new = sandbox(one.id)
            await together(stores[0].delete_group(one.id, event(one.id)), stores[1].add_sandbox(new, event(new.id)))
            there = await stores[0].get_group(one.id) is not None
            assert there == (await stores[0].get_sandbox(new.id) is not None)

    async def test_concurrent_joins_of_a_group_stop_at_its_maximum(self, stores: tuple[Records, Records]) -> None:
        one = await added(stores[0])
        calls = (
            stores[n % 2].put_member(member(one, f"key_{n}"), event(one.id, "member.added"), members_max=4)
            for n in range(1, 9)
        )
        results = await together(*calls)
        assert sum(isinstance(result, QuotaExceeded) for result in results) == 5
        assert len(await stores[0].list_members(one.id)) == 4
