"""Capabilities: no chain of keys that make keys ever yields more than its first one has, and all end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.domain.errors import AtollError, Forbidden, InvalidInput, NotFound, QuotaExceeded, Unauthenticated
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Role
from atoll.domain.ids import new_id
from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxSpec
from atoll.services.identity.capabilities import CHILDREN_MAX, Capabilities
from atoll.services.identity.identity import Identity
from atoll.services.identity.memberships import Memberships
from atoll.services.key_lineage import DEPTH_MAX
from atoll.services.keys import Keys
from atoll.services.new_keys import NewKey
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.workspace_records_examples import made

GROUP, OTHERS = "grp_" + "a" * 24, "grp_" + "b" * 24
MINE, TEAMS, THEIRS = "sess_" + "1" * 12, "sess_" + "2" * 12, "sess_" + "3" * 12
NOW = datetime.now(UTC)


class Town:
    """Alice's key, with a sandbox and a workspace of her own and of her group, and things of others."""

    def __init__(self) -> None:
        self.records = MemoryRecords()
        self.keys = Keys(self.records)
        self.identity = Identity(self.keys, memberships=Memberships(self.records))
        self.capabilities = Capabilities(self.records, self.keys, WorkspaceAccess(self.records))
        self.owner_of: dict[str, str] = {}

    async def settle(self, **root: Any) -> NewKey:
        alice = await self.keys.create("alice", **root)
        for group, who in ((GROUP, alice.key.id), (OTHERS, "key_0b0b0b0b0b0b")):
            event = Event("group.created", group, group, who)
            await self.records.add_group(Group(group, "g", NOW, NOW), Member(group, who, Role.MEMBER, NOW), event)
        for one, owner in ((MINE, alice.key.id), (TEAMS, GROUP), (THEIRS, OTHERS)):
            sandbox = Sandbox(one, owner, SandboxSpec(), "fake", NOW)
            await self.records.add_sandbox(sandbox, Event("sandbox.created", one, owner, owner))
            self.owner_of[one] = owner
        for owner in (alice.key.id, GROUP, OTHERS):
            self.owner_of[(await made(self.records, owner=owner)).id] = owner
        return alice

    async def who(self, key: NewKey | str) -> Principal:
        return await self.identity.authenticate(key if isinstance(key, str) else key.text)

    async def mint(self, of: NewKey, **asked: Any) -> NewKey:
        return await self.capabilities.mint(await self.who(of), "child", **asked)

    def seen(self, principal: Principal) -> set[str]:
        return {one for one, owner in self.owner_of.items() if principal.sees(owner, one)}


async def refused(call: Awaitable[object], kind: type[AtollError], field: str | None = None) -> str:
    with pytest.raises(kind) as raised:
        await call
    assert getattr(raised.value, "field", None) == field
    return raised.value.message


async def test_a_child_is_its_parents_owners_and_has_what_is_not_said_from_its_parent() -> None:
    town = Town()
    alice = await town.settle(scopes=frozenset({Scope.READ, Scope.WRITE}), expires_in_days=3, plan="starter")
    child = await town.mint(alice)
    principal = await town.who(child)
    assert (principal.id, principal.credential) == (alice.key.id, child.key.id)
    assert principal.scopes == alice.key.scopes
    assert (child.key.parent, child.key.expires_at, child.key.plan) == (alice.key.id, alice.key.expires_at, "starter")
    assert (
        town.seen(principal)
        == town.seen(await town.who(alice))
        == set(town.owner_of) - {one for one, owner in town.owner_of.items() if owner == OTHERS}
    )


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("scopes", {"scopes": [Scope.READ, Scope.EXECUTE]}),
        ("scopes", {"scopes": [Scope.ADMIN]}),
        ("scopes", {"scopes": []}),
        ("resources", {"resources": []}),
        ("resources", {"resources": [THEIRS]}),
        ("resources", {"resources": [MINE, "sess_" + "9" * 12]}),
        ("resources", {"resources": [OTHERS]}),
        ("resources", {"resources": ["key_0b0b0b0b0b0b"]}),
        ("resources", {"resources": ["nonsense"]}),
        ("resources", {"resources": [MINE] * 101}),
        ("expires_in_days", {"expires_in_days": 3.1}),
        ("budget_micro_usd", {"budget_micro_usd": -1}),
        ("name", {"name": ""}),
    ],
)
async def test_whoever_asks_for_more_is_told_what(field: str, asked: dict[str, Any]) -> None:
    town = Town()
    alice = await town.settle(scopes=frozenset({Scope.READ}), expires_in_days=3)
    principal = await town.who(alice)
    await refused(town.capabilities.mint(principal, **({"name": "child"} | asked)), InvalidInput, field)
    assert await town.capabilities.list(principal) == []


async def test_a02_anothers_thing_is_refused_as_one_that_does_not_exist() -> None:
    town = Town()
    alice = await town.settle()
    missing = "sess_" + "9" * 12
    theirs = await refused(town.mint(alice, resources=[THEIRS]), InvalidInput, "resources")
    nobodys = await refused(town.mint(alice, resources=[missing]), InvalidInput, "resources")
    assert theirs.replace(THEIRS, "ID") == nobodys.replace(missing, "ID")


async def test_a_child_of_single_things_reaches_those_and_makes_nothing_new() -> None:
    town = Town()
    child = await town.who(await town.mint(await town.settle(), resources=[MINE, TEAMS]))
    assert town.seen(child) == {MINE, TEAMS}
    with pytest.raises(Forbidden, match="single things"):
        child.owning(Scope.EXECUTE)
    with pytest.raises(NotFound):
        child.owning(Scope.EXECUTE, GROUP)


async def test_a_child_of_a_group_reaches_all_that_the_group_has_and_makes_things_there() -> None:
    town = Town()
    child = await town.who(await town.mint(await town.settle(), resources=[GROUP]))
    assert town.seen(child) == {one for one, owner in town.owner_of.items() if owner == GROUP}
    assert child.owning(Scope.EXECUTE, GROUP) == GROUP
    with pytest.raises(Forbidden):
        child.owning(Scope.EXECUTE)


async def test_a_budget_is_given_away_once_whatever_becomes_of_the_child() -> None:
    town = Town()
    alice = await town.settle(budget_micro_usd=100)
    await refused(town.mint(alice), InvalidInput, "budget_micro_usd")
    first = await town.mint(alice, budget_micro_usd=70)
    await town.capabilities.revoke(await town.who(alice), first.key.id)
    assert "at most 30" in await refused(town.mint(alice, budget_micro_usd=31), QuotaExceeded)
    second = await town.mint(alice, budget_micro_usd=30)
    await refused(town.mint(second, budget_micro_usd=31), QuotaExceeded)
    await refused(town.mint(alice, budget_micro_usd=1), QuotaExceeded)


async def test_b08_concurrent_children_share_the_budget_and_stop_at_their_number() -> None:
    town = Town()
    alice = await town.settle(budget_micro_usd=100)
    results = await asyncio.gather(*(town.mint(alice, budget_micro_usd=30) for _ in range(9)), return_exceptions=True)
    assert sum(isinstance(one, NewKey) for one in results) == 3
    other = await town.keys.create("bob")
    results = await asyncio.gather(*(town.mint(other) for _ in range(CHILDREN_MAX + 3)), return_exceptions=True)
    assert sum(isinstance(one, QuotaExceeded) for one in results) == 3


async def test_a07_children_end_with_what_they_come_from() -> None:
    town = Town()
    alice = await town.settle()
    child = await town.mint(alice)
    grandchild = await town.mint(child)
    assert (await town.who(grandchild)).id == alice.key.id
    await town.keys.revoke(child.key.id)
    for key in (child, grandchild):
        with pytest.raises(Unauthenticated):
            await town.who(key)
    other = await town.mint(alice)
    await town.keys.change(alice.key.id, lambda key: replace(key, expires_at=NOW - timedelta(seconds=1)), "key.changed")
    with pytest.raises(Unauthenticated):
        await town.who(other)


async def test_a07_a_rotated_keys_children_end_with_its_old_text() -> None:
    town = Town()
    alice = await town.settle()
    child = await town.mint(alice)
    grandchild = await town.mint(child)
    assert (await town.who(grandchild)).id == alice.key.id
    renewed = await town.keys.rotate(alice.key.id)
    for key in (alice, child, grandchild):
        with pytest.raises(Unauthenticated):
            await town.who(key)
    assert (await town.who(await town.mint(renewed))).id == alice.key.id
    [told] = [one for one in await town.records.list_events(target=child.key.id) if one.action == "key.revoked"]
    assert told.detail == {"reason": "key.rotated"}


async def test_a_scope_that_the_parent_loses_its_children_lose_too() -> None:
    town = Town()
    alice = await town.settle()
    grandchild = await town.mint(await town.mint(alice))
    await town.keys.change(alice.key.id, lambda key: replace(key, scopes=frozenset({Scope.READ})), "key.changed")
    assert (await town.who(grandchild)).scopes == {Scope.READ}


async def test_keys_make_keys_only_so_deep_and_all_of_those_work() -> None:
    town = Town()
    key = await town.settle()
    for _ in range(DEPTH_MAX - 1):
        key = await town.mint(key)
        await town.who(key)
    await refused(town.mint(key), Forbidden)


async def test_one_sees_and_revokes_what_descends_from_oneself_and_nothing_else() -> None:
    town = Town()
    alice = await town.settle()
    child, sibling = await town.mint(alice), await town.mint(alice)
    grandchild = await town.mint(child)
    me, it, bob = await town.who(alice), await town.who(child), await town.who(await town.keys.create("bob"))
    capabilities = town.capabilities
    assert [one.id for one in await capabilities.list(me)] == [child.key.id, sibling.key.id]
    assert [one.id for one in await capabilities.list(it)] == [grandchild.key.id]
    for asker, key_id in (
        (it, sibling.key.id), (it, alice.key.id), (it, child.key.id), (bob, child.key.id), (me, alice.key.id),
        (me, "key_000000000000"), (me, "nonsense"),
    ):  # fmt: skip
        assert await refused(capabilities.get(asker, key_id), NotFound) == "key not found"
        assert await refused(capabilities.revoke(asker, key_id), NotFound) == "key not found"
    assert (await capabilities.revoke(me, grandchild.key.id)).revoked_at is not None
    assert await capabilities.list(it) == []


async def test_an_owner_keys_child_administers_nothing_and_has_no_quota_either() -> None:
    town = Town()
    child = await town.who(await town.mint(await town.settle(kind=KeyKind.OWNER)))
    assert (child.kind, child.admin) == (KeyKind.INTERNAL, False)


@pytest.mark.parametrize("credential", ["sess_" + "1" * 12, "admin", "boot_0123"])
async def test_what_is_neither_a_stored_key_nor_a_user_in_person_makes_no_keys(credential: str) -> None:
    town = Town()
    alice = await town.settle()
    for owner in (alice.key.id, "user_" + "1" * 24 if credential.startswith("sess_") else "admin"):
        asker = Principal(owner, KeyKind.STANDARD, DEFAULT_SCOPES, credential=credential)
        await refused(town.capabilities.mint(asker, "child"), Forbidden)
        await refused(town.capabilities.list(asker), Forbidden)


async def test_each_mint_and_revocation_writes_one_event_without_the_text() -> None:
    town = Town()
    alice = await town.settle()
    child = await town.mint(alice)
    await town.capabilities.revoke(await town.who(alice), child.key.id)
    events = await town.records.list_events(target=child.key.id)
    assert [(one.action, one.tenant, one.actor) for one in events] == [
        ("key.created", alice.key.id, alice.key.id), ("key.revoked", alice.key.id, alice.key.id),
    ]  # fmt: skip
    assert child.text not in str(events)


ASKED = st.fixed_dictionaries(
    {},
    optional={
        "scopes": st.lists(st.sampled_from(list(Scope)), max_size=4),
        "resources": st.lists(st.sampled_from([MINE, TEAMS, THEIRS, GROUP, OTHERS, "self", "workspace"]), max_size=3),
        "budget_micro_usd": st.integers(0, 120),
        "expires_in_days": st.floats(0.001, 6),
    },
)


@settings(max_examples=150, deadline=None)
@given(root=ASKED, mints=st.lists(st.tuples(st.integers(0, 20), ASKED), max_size=12))
def test_no_chain_of_mints_yields_more_than_the_first_key_has(
    root: dict[str, Any], mints: list[tuple[int, dict[str, Any]]]
) -> None:
    asyncio.run(_chains(root, mints))


async def _chains(root: dict[str, Any], mints: list[tuple[int, dict[str, Any]]]) -> None:
    town = Town()
    wanted = {name: value for name, value in root.items() if name != "resources"}
    wanted["scopes"] = frozenset(root.get("scopes") or DEFAULT_SCOPES)
    alice = await town.settle(**wanted)
    workspace = next(one for one in town.owner_of if one.startswith("ws_"))
    family = [alice]
    for n, asked in mints:
        parent = family[n % len(family)]
        asked = dict(asked)
        if "resources" in asked:
            names = {"self": alice.key.id, "workspace": workspace}
            asked["resources"] = [names.get(one, one) for one in asked["resources"]]
        try:
            child = await town.mint(parent, **asked)
        except (InvalidInput, QuotaExceeded, Forbidden):
            continue
        family.append(child)
        of, it = await town.who(parent), await town.who(child)
        assert it.id == alice.key.id and not it.admin
        assert it.scopes <= of.scopes <= alice.key.scopes
        assert town.seen(it) <= town.seen(of)
        assert _may_make(it) <= _may_make(of)
        if parent.key.expires_at is not None:
            assert child.key.expires_at is not None and child.key.expires_at <= parent.key.expires_at
        if "resources" in asked:
            assert all(town.owner_of.get(one, one) in (alice.key.id, GROUP) for one in asked["resources"])
    for parent in family:
        budget = parent.key.budget_micro_usd
        children = [one.key.budget_micro_usd for one in family if one.key.parent == parent.key.id]
        if budget is not None:
            assert None not in children and sum(one or 0 for one in children) <= budget


def _may_make(principal: Principal) -> set[str]:
    """Whose things it may make."""
    found: set[str] = set()
    for group in (None, GROUP, OTHERS, new_id("grp")):
        try:
            found.add(principal.owning(next(iter(principal.scopes)), group))
        except (Forbidden, NotFound):
            continue
    return found
