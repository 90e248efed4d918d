"""A webhook ends with what it came from: its owner, who made it, the credential that they made it with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from atoll.domain.errors import Forbidden
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Role
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.webhook import Webhook
from atoll.services.identity.connected import Connected
from atoll.services.identity.principals import Principals
from atoll.services.identity.standing import Standing
from atoll.services.keys import Keys
from atoll.services.new_keys import NewKey
from atoll.services.outbound import Outbound
from atoll.services.webhooks.owners import Owners
from atoll.services.webhooks.webhooks import Webhooks
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault

URL = "https://example.com/hook"
GROUP = "grp_" + "5" * 24
READ_WRITE = frozenset({Scope.READ, Scope.WRITE})


class Town:
    """A key with a child, and a group that the key administers."""

    parent: NewKey
    child: NewKey

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)
        self.records, vault = MemoryRecords(), MemoryVault()
        self.keys = Keys(self.records, cache_s=0, clock=lambda: self.now)
        connected = Connected(self.records, Standing(self.records, cache_s=0), self.keys, cache_s=0)
        self.owners = Owners(self.records, Principals(self.records, lambda: self.now), connected.scopes_left)
        self.webhooks = Webhooks(self.records, vault, Outbound())

    async def start(self) -> None:
        self.parent = await self.keys.create("parent")
        owner = self.parent.key.id
        self.child = await self.keys.create(
            "child", owner=owner, parent=owner, scopes=READ_WRITE, expires_in_days=1, actor=owner
        )
        for name in ("other", "member"):
            key = await self.keys.create(name)
            setattr(self, name, key)
        group = Group(GROUP, "g", self.now, self.now)
        await self.records.add_group(group, Member(GROUP, owner, Role.ADMIN, self.now), self.event())

    def event(self) -> Event:
        return Event("group.changed", GROUP, GROUP, "cli", at=self.now)

    async def principal(self, key: NewKey) -> Principal:
        found = await self.keys.authenticate(key.text)
        groups = {one.group.id: one.role for one in await self.records.list_memberships(found.id)}
        return replace(found, groups=groups)

    async def made(self, key: NewKey, group: str | None = None) -> Webhook:
        hook = (await self.webhooks.create(await self.principal(key), URL, group=group)).webhook
        assert await self.owners.why_not(hook) is None
        return hook


@pytest.fixture
async def town() -> Town:
    town = Town()
    await town.start()
    return town


async def expires(town: Town) -> None:
    town.now += timedelta(days=2)


async def is_revoked(town: Town) -> None:
    await town.keys.revoke(town.child.key.id)


async def is_deleted(town: Town) -> None:
    await town.keys.delete(town.child.key.id)


async def may_read_no_more(town: Town) -> None:
    await town.keys.change(town.child.key.id, lambda key: replace(key, scopes=frozenset({Scope.WRITE})), "key.changed")


async def loses_what_its_parent_lost(town: Town) -> None:
    await town.keys.change(town.parent.key.id, lambda key: replace(key, scopes=frozenset({Scope.WRITE})), "key.changed")


ENDS = [expires, is_revoked, is_deleted, may_read_no_more, loses_what_its_parent_lost]


@pytest.mark.parametrize("end", ENDS)
async def test_a_webhook_ends_with_the_key_that_made_it(town: Town, end: Callable[[Town], Awaitable[None]]) -> None:
    hook = await town.made(town.child)
    await end(town)
    why = await town.owners.why_not(hook)
    assert why is not None
    assert town.child.key.id in why


async def test_whoever_enables_it_or_leads_it_elsewhere_has_it_from_then_on(town: Town) -> None:
    hook = await town.made(town.child)
    parent = await town.principal(town.parent)
    told = await town.webhooks.change(parent, hook.id, description="the same webhook")
    assert told.credential == town.child.key.id
    off = await town.webhooks.change(parent, hook.id, enabled=False)
    on = await town.webhooks.change(parent, hook.id, enabled=True)
    assert (off.credential, on.credential) == (town.child.key.id, town.parent.key.id)
    await is_revoked(town)
    assert await town.owners.why_not(on) is None
    elsewhere = await town.webhooks.change(parent, (await town.made(town.parent)).id, url=URL + "/2")
    assert elsewhere.maker == parent.id


async def test_a_groups_webhook_ends_for_a_member_who_is_removed(town: Town) -> None:
    other: NewKey = town.other  # type: ignore[attr-defined]
    member = Member(GROUP, other.key.id, Role.MEMBER, town.now)
    await town.records.put_member(member, town.event())
    mine, theirs = await town.made(town.parent, GROUP), await town.made(other, GROUP)
    moved = await town.webhooks.change(await town.principal(other), mine.id, url=URL + "/mallory")
    assert (moved.owner, moved.maker) == (GROUP, other.key.id)
    await town.records.delete_member(GROUP, other.key.id, town.event())
    for hook in (theirs, moved):
        why = await town.owners.why_not(hook)
        assert why is not None
        assert "does not belong to the group" in why


@pytest.mark.parametrize("scopes", [{Scope.WRITE}, {Scope.WRITE, Scope.EXECUTE}])
async def test_who_may_not_read_events_is_told_of_none(town: Town, scopes: set[Scope]) -> None:
    hook = await town.made(town.parent)
    writer = replace(await town.principal(town.parent), scopes=frozenset(scopes))
    with pytest.raises(Forbidden, match="may not read"):
        await town.webhooks.create(writer, URL)
    for changes in ({"url": URL + "/2"}, {"actions": ["*"]}, {"enabled": True}):
        with pytest.raises(Forbidden, match="may not read"):
            await town.webhooks.change(writer, hook.id, **changes)  # type: ignore[arg-type]
    assert (await town.webhooks.change(writer, hook.id, enabled=False)).disabled_at is not None


async def test_a_credential_with_bounds_leads_no_webhook_elsewhere(town: Town) -> None:
    hook = await town.made(town.parent)
    bound = Principal(hook.owner, KeyKind.STANDARD, READ_WRITE, resources=frozenset({hook.id}))
    with pytest.raises(Forbidden, match="bound to some resources"):
        await town.webhooks.change(bound, hook.id, url=URL + "/2")
    assert await town.records.get_webhook(hook.id) == hook
