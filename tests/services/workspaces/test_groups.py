"""What a group owns: who of its members may do what with its workspaces and sandboxes, and what ends with a role."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from atoll.domain.errors import AtollError, Conflict, Forbidden, NotFound
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Role
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import SandboxSpec, SandboxState
from atoll.domain.workspace import Permission, WorkspaceMount
from atoll.services.workspaces.access import NotPermitted, NoWorkspace
from atoll.services.workspaces.views import Changes
from tests.principals import introduce
from tests.services.conftest import ALICE, BOB
from tests.services.workspaces.workshop import Workshop

TEAM, OTHER = "grp_" + "1" * 24, "grp_" + "2" * 24
NOW = datetime.now(UTC)
CAROL = Principal("key_ca0010000000", KeyKind.STANDARD, frozenset(Scope), "carol")


async def found(shop: Workshop, group: str = TEAM, name: str = "team", **roles: Role) -> None:
    """A group of alice's with bob and carol in these roles."""
    event = Event("group.created", group, group, ALICE.id)
    await shop.records.add_group(Group(group, name, NOW, NOW), Member(group, ALICE.id, Role.ADMIN, NOW), event)
    await introduce(shop.records, CAROL)
    ids = {"bob": BOB.id, "carol": CAROL.id}
    for who, role in roles.items():
        await shop.records.put_member(Member(group, ids[who], role, NOW), event)


async def now(shop: Workshop, principal: Principal) -> Principal:
    memberships = await shop.records.list_memberships(principal.id)
    return replace(principal, groups={one.group.id: one.role for one in memberships})


async def leave(shop: Workshop, principal: Principal, group: str = TEAM) -> None:
    assert await shop.records.delete_member(group, principal.id, Event("member.removed", group, group, ALICE.id))
    await shop.workspaces.left(principal.id)


async def error(call: object) -> AtollError:
    with pytest.raises(AtollError) as raised:
        await call  # type: ignore[misc]
    return raised.value


async def test_a_groups_workspace_is_its_members_by_their_roles(shop: Workshop) -> None:
    await found(shop, bob=Role.MEMBER, carol=Role.VIEWER)
    alice, bob, carol = [await now(shop, one) for one in (ALICE, BOB, CAROL)]
    made = await shop.workspaces.create(bob, "w", group=TEAM)
    one = made.workspace
    assert (one.owner, made.permission, made.owner_name) == (TEAM, Permission.WRITE, "team")
    for who, permission in ((alice, None), (bob, Permission.WRITE), (carol, Permission.READ)):
        for ref in (one.id, f"{TEAM}/w", "team/w"):
            assert (await shop.workspaces.get(who, ref)).permission is permission
        assert [view.workspace.id for view in await shop.workspaces.list(who)] == [one.id]
    assert isinstance(await error(shop.workspaces.take(carol, one.id)), NotPermitted)
    await shop.workspaces.take(bob, one.id)
    assert isinstance(await error(shop.workspaces.change(bob, one.id, Changes(name="v"))), NotPermitted)
    assert isinstance(await error(shop.workspaces.delete(bob, one.id)), NotPermitted)
    await shop.workspaces.change(alice, one.id, Changes(name="v"))
    await shop.workspaces.delete(alice, f"{TEAM}/v")


async def test_a02_who_does_not_belong_to_the_group_finds_nothing(shop: Workshop) -> None:
    await found(shop)
    made = await shop.workspaces.create(await now(shop, ALICE), "w", group=TEAM)
    sandbox = await shop.sandboxes.create(await now(shop, ALICE), SandboxSpec(), group=TEAM)
    bob = await now(shop, BOB)
    for ref in (made.workspace.id, f"{TEAM}/w", "team/w", "w"):
        assert isinstance(await error(shop.workspaces.get(bob, ref)), NoWorkspace)
    assert await shop.workspaces.list(bob, shared=True) == [] == await shop.sandboxes.list(bob)
    assert isinstance(await error(shop.sandboxes.get(bob, sandbox.id)), NotFound)
    for group in (TEAM, OTHER, "nonsense"):
        for call in (
            shop.workspaces.create(bob, "w", group=group),
            shop.sandboxes.create(bob, SandboxSpec(), group=group),
        ):
            refused = await error(call)
            assert (type(refused), refused.message) == (NotFound, "group not found")


async def test_a_groups_sandbox_is_its_members_and_events_say_who_did_it(shop: Workshop) -> None:
    await found(shop, bob=Role.MEMBER, carol=Role.VIEWER)
    alice, bob, carol = [await now(shop, one) for one in (ALICE, BOB, CAROL)]
    sandbox = await shop.sandboxes.create(bob, SandboxSpec(), group=TEAM)
    own = await shop.sandboxes.create(bob, SandboxSpec())
    assert (sandbox.owner, own.owner) == (TEAM, BOB.id)
    assert [one.id for one in await shop.sandboxes.list(alice)] == [sandbox.id]
    assert {one.id for one in await shop.sandboxes.list(bob)} == {sandbox.id, own.id}
    assert set(await shop.sandboxes.usages(carol, [sandbox, own])) == {sandbox.id}
    assert (await shop.sandboxes.get(carol, sandbox.id)).id == sandbox.id
    assert isinstance(await error(shop.sandboxes.kill(carol, sandbox.id)), Forbidden)
    assert isinstance(await error(shop.sandboxes.create(carol, SandboxSpec(), group=TEAM)), Forbidden)
    await shop.sandboxes.kill(alice, sandbox.id)
    events = await shop.records.list_events(target=sandbox.id)
    assert {one.tenant for one in events} == {TEAM}
    actors = {one.action: one.actor for one in events}
    assert (actors["sandbox.created"], actors["sandbox.started"]) == (BOB.id, BOB.id)
    assert actors["sandbox.killed"] == ALICE.id


async def test_a_groups_sandbox_mounts_what_the_group_may_have_and_nothing_of_a_members(shop: Workshop) -> None:
    await found(shop, bob=Role.MEMBER)
    alice, bob = await now(shop, ALICE), await now(shop, BOB)
    await shop.workspaces.create(bob, "own")
    await shop.workspaces.create(bob, "ours", group=TEAM)

    def spec(ref: str, read_only: bool = False) -> SandboxSpec:
        return SandboxSpec(workspaces=(WorkspaceMount(ref, read_only=read_only),))

    await shop.sandboxes.create(bob, spec("team/ours"), group=TEAM)
    await shop.sandboxes.create(alice, spec("team/ours"))
    assert isinstance(await error(shop.sandboxes.create(bob, spec("own"), group=TEAM)), NotPermitted)
    await shop.workspaces.sharing.share(bob, "own", [TEAM], Permission.READ)
    assert isinstance(await error(shop.sandboxes.create(bob, spec("own"), group=TEAM)), NotPermitted)
    await shop.sandboxes.create(bob, spec("own", read_only=True), group=TEAM)


async def test_what_is_shared_with_a_group_is_its_members_up_to_their_roles(shop: Workshop) -> None:
    await found(shop, bob=Role.MEMBER, carol=Role.VIEWER)
    alice, bob, carol = [await now(shop, one) for one in (ALICE, BOB, CAROL)]
    made = await shop.workspaces.create(alice, "w")
    await shop.workspaces.sharing.share(alice, "w", [TEAM], Permission.WRITE)
    for who, permission in ((bob, Permission.WRITE), (carol, Permission.READ)):
        assert (await shop.workspaces.get(who, made.workspace.id)).permission is permission
        assert await shop.workspaces.list(who) == []
        assert [one.permission for one in await shop.workspaces.list(who, shared=True)] == [permission]
    await shop.workspaces.sharing.share(alice, "w", [CAROL.id], Permission.ADMIN)
    assert (await shop.workspaces.get(carol, made.workspace.id)).permission is Permission.ADMIN  # her own holds too
    await shop.workspaces.sharing.revoke(alice, "w", TEAM)
    assert isinstance(await error(shop.workspaces.get(bob, made.workspace.id)), NoWorkspace)


async def test_nobody_shares_with_a_group_that_they_do_not_belong_to(shop: Workshop) -> None:
    await found(shop)
    await shop.workspaces.create(BOB, "w")
    theirs = await error(shop.workspaces.sharing.share(BOB, "w", [TEAM], Permission.READ))
    nobodys = await error(shop.workspaces.sharing.share(BOB, "w", [OTHER], Permission.READ))
    assert theirs.message.replace(TEAM, "ID") == nobodys.message.replace(OTHER, "ID")


async def test_a07_who_leaves_a_group_loses_its_mounts(shop: Workshop) -> None:
    await found(shop, bob=Role.MEMBER, carol=Role.MEMBER)
    bob, carol = await now(shop, BOB), await now(shop, CAROL)
    await shop.workspaces.create(bob, "ours", group=TEAM)
    await shop.workspaces.create(bob, "own")
    mount = (WorkspaceMount("team/ours"),)
    theirs, groups = [
        await shop.sandboxes.create(bob, SandboxSpec(workspaces=mount), group=group) for group in (None, TEAM)
    ]
    own = await shop.sandboxes.create(bob, SandboxSpec(workspaces=(WorkspaceMount("own"),)))
    others = await shop.sandboxes.create(carol, SandboxSpec(workspaces=mount))
    await leave(shop, BOB)
    states = {}
    for one in (theirs, groups, own, others):
        record = await shop.records.get_sandbox(one.id)
        assert record is not None
        states[one.id] = record.state
    assert states.pop(theirs.id) is SandboxState.KILLED
    assert set(states.values()) == {SandboxState.RUNNING}
    assert isinstance(await error(shop.workspaces.get(await now(shop, BOB), "team/ours")), NoWorkspace)


async def test_a07_who_becomes_a_viewer_keeps_what_is_mounted_to_read(shop: Workshop) -> None:
    await found(shop, bob=Role.MEMBER)
    bob = await now(shop, BOB)
    await shop.workspaces.create(bob, "ours", group=TEAM)
    reading, writing = [
        await shop.sandboxes.create(bob, SandboxSpec(workspaces=(WorkspaceMount("team/ours", read_only=read_only),)))
        for read_only in (True, False)
    ]
    event = Event("member.changed", TEAM, TEAM, ALICE.id)
    await shop.records.put_member(Member(TEAM, BOB.id, Role.VIEWER, NOW), event)
    await shop.workspaces.left(BOB.id)
    for one, state in ((reading, SandboxState.RUNNING), (writing, SandboxState.KILLED)):
        record = await shop.records.get_sandbox(one.id)
        assert record is not None and record.state is state


async def test_a_group_has_names_of_its_own_and_a_fork_may_be_the_groups(shop: Workshop) -> None:
    await found(shop, bob=Role.MEMBER)
    bob = await now(shop, BOB)
    own, ours = await shop.workspaces.create(bob, "w"), await shop.workspaces.create(bob, "w", group=TEAM)
    assert (await shop.workspaces.get(bob, "w")).workspace.id == own.workspace.id
    assert (await shop.workspaces.get(bob, "team/w")).workspace.id == ours.workspace.id
    assert isinstance(await error(shop.workspaces.create(bob, "w", group=TEAM)), Conflict)
    forked = await shop.workspaces.forks.fork(bob, "w", "forked", group=TEAM)
    assert (forked.workspace.owner, forked.workspace.lineage != own.workspace.lineage) == (TEAM, True)
    near = await shop.workspaces.forks.fork(bob, "team/w", "near", group=TEAM)
    assert near.workspace.lineage == ours.workspace.lineage


async def test_a_command_in_a_groups_workspace_runs_in_the_groups_sandbox(shop: Workshop) -> None:
    from atoll.domain.process import ProcessSpec

    await found(shop, bob=Role.MEMBER)
    bob = await now(shop, BOB)
    await shop.workspaces.create(bob, "ours", group=TEAM)
    ran = await shop.workspaces.executing.run(bob, "team/ours", ProcessSpec(("true",)), lambda _: SandboxSpec())
    assert ran.workspace.sandbox_id is not None
    sandbox = await shop.sandboxes.get(bob, ran.workspace.sandbox_id)
    assert sandbox.owner == TEAM


async def test_what_acts_in_the_groups_own_name_is_no_admin_of_it(shop: Workshop) -> None:
    """Else a member would be one, by way of a sandbox of the group's that has a capability."""
    await found(shop, bob=Role.MEMBER)
    made = await shop.workspaces.create(await now(shop, BOB), "ours", group=TEAM)
    own = Principal(TEAM, KeyKind.STANDARD, frozenset(Scope), credential="sess_" + "1" * 12)
    for ref in ("ours", made.workspace.id):
        await shop.workspaces.take(own, ref)
        assert isinstance(await error(shop.workspaces.delete(own, ref)), NotPermitted)
        assert isinstance(await error(shop.workspaces.sharing.share(own, ref, [BOB.id], Permission.READ)), NotPermitted)


async def test_a_credential_of_single_things_finds_no_other_workspace(shop: Workshop) -> None:
    await found(shop, bob=Role.MEMBER)
    bob = await now(shop, BOB)
    own, other = await shop.workspaces.create(bob, "own"), await shop.workspaces.create(bob, "other")
    ours = await shop.workspaces.create(bob, "ours", group=TEAM)
    bound = replace(bob, resources=frozenset({own.workspace.id}))
    assert [one.workspace.id for one in await shop.workspaces.list(bound, shared=True)] == [own.workspace.id]
    assert (await shop.workspaces.get(bound, "own")).workspace.id == own.workspace.id
    for ref in ("other", other.workspace.id, "team/ours", ours.workspace.id):
        assert isinstance(await error(shop.workspaces.get(bound, ref)), NoWorkspace)
    for call in (shop.workspaces.create(bound, "new"), shop.workspaces.forks.fork(bound, "own", "new")):
        assert isinstance(await error(call), Forbidden)
    team = replace(bob, resources=frozenset({TEAM}))
    assert [one.workspace.id for one in await shop.workspaces.list(team)] == [ours.workspace.id]
    assert (await shop.workspaces.create(team, "more", group=TEAM)).workspace.owner == TEAM
