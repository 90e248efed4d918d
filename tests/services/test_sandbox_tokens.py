"""Sandbox tokens: one sandbox, its maker's scopes, and an end with whatever they stand on (A07)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atoll.domain.errors import Forbidden, InvalidInput, NotFound, QuotaExceeded, Unauthenticated
from atoll.domain.group import Group, Member, Role
from atoll.domain.ids import new_id
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.domain.sandbox_token import TERMINAL_PREFIX, SandboxToken, TokenKind
from atoll.services import sandbox_tokens
from atoll.services.identity.connected import Connected
from atoll.services.identity.identity import Identity
from atoll.services.identity.memberships import Memberships
from atoll.services.identity.standing import Standing
from atoll.services.keys import Keys
from atoll.services.sandbox_tokens import SandboxTokens
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.records_conformance import event, sandbox


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Doors:
    """Two servers on the same records; nothing is remembered between questions, but for what is told."""

    records: MemoryRecords
    clock: Clock
    keys: Keys
    tokens: SandboxTokens
    identity: Identity
    restarted: Identity


def on(records: MemoryRecords, clock: Clock) -> tuple[Keys, SandboxTokens, Identity]:
    standing = Standing(records, cache_s=0, clock=clock)
    keys = Keys(records, cache_s=0, clock=clock)
    memberships = Memberships(records, 0)
    connected = Connected(records, standing, keys, memberships=memberships, cache_s=0, clock=clock)
    tokens = SandboxTokens(records, connected, standing, memberships, cache_s=0, clock=clock)
    return keys, tokens, Identity(keys, tokens, memberships=memberships, standing=standing)


@pytest.fixture
def doors() -> Doors:
    records, clock = MemoryRecords(), Clock()
    return Doors(records, clock, *on(records, clock), on(records, clock)[2])


async def holder(doors: Doors, **terms: object) -> tuple[Principal, str]:
    """Who has a new key, and the key's id."""
    made = await doors.keys.create("k", **terms)  # type: ignore[arg-type]
    return await doors.identity.authenticate(made.text), made.key.id


async def living(doors: Doors, owner: str) -> Sandbox:
    one = replace(sandbox(owner), state=SandboxState.RUNNING)
    await doors.records.add_sandbox(one, event(one.id))
    return one


async def a_group(doors: Doors, viewer: Principal) -> str:
    """Its id."""
    group = Group(new_id("grp"), "team", doors.clock(), doors.clock(), creator=viewer.id)
    admin = Member(group.id, "key_of_the_admin", Role.ADMIN, doors.clock())
    await doors.records.add_group(group, admin, event(group.id), quota=9)
    member = Member(group.id, viewer.id, Role.VIEWER, doors.clock())
    await doors.records.put_member(member, event(group.id), new=True, members_max=9, groups_max=9)
    return group.id


async def refused(doors: Doors, text: str) -> bool:
    """Whether it opens nothing, here and on another server."""
    for identity in (doors.identity, doors.restarted):
        with pytest.raises(Unauthenticated):
            await identity.authenticate(text)
    return True


async def test_a_token_opens_its_sandbox_alone_with_its_makers_scopes_after_a_restart_too(doors: Doors) -> None:
    who, _ = await holder(doors, scopes=frozenset({Scope.READ}), kind=KeyKind.OWNER)
    one, other = await living(doors, who.id), await living(doors, who.id)
    made = await doors.tokens.mint(who, one.id, kind=TokenKind.ACCESS, lasts_s=60)
    assert made.text.startswith("sbt_")
    found = await doors.restarted.authenticate(made.text)
    assert (found.id, found.scopes, found.kind, found.admin) == (who.id, {Scope.READ}, KeyKind.INTERNAL, False)
    assert found.lineage == who.lineage
    assert found.sees(who.id, one.id)
    assert not found.sees(who.id, other.id)
    with pytest.raises(Forbidden):
        found.owning(Scope.READ)
    with pytest.raises(NotFound):
        await doors.tokens.mint(found, other.id, kind=TokenKind.SESSION, lasts_s=60)


async def test_a_token_ends_by_itself_with_its_sandbox_with_its_key_and_with_the_keys_old_text(doors: Doors) -> None:
    who, key = await holder(doors)
    one = await living(doors, who.id)

    async def minted(kind: TokenKind = TokenKind.ACCESS) -> str:
        return (await doors.tokens.mint(who, one.id, kind=kind, lasts_s=60)).text

    expired = await minted()
    doors.clock.later(61)
    assert await refused(doors, expired)
    rotated = await minted()
    await doors.keys.rotate(key)
    assert await refused(doors, rotated)
    orphan = await minted()
    ended = await doors.records.swap_sandbox(one.to(SandboxState.STOPPED), None)
    assert await refused(doors, orphan)
    await doors.records.swap_sandbox(replace(ended, state=SandboxState.RUNNING, ended_at=None), None)
    keyless = await minted()
    assert (await doors.identity.authenticate(keyless)).id == who.id
    await doors.keys.revoke(key)
    assert await refused(doors, keyless)
    assert await refused(doors, "sbt_a_" + "0" * 64)


async def test_session_tokens_make_none_and_end_when_they_are_revoked(doors: Doors) -> None:
    who, key = await holder(doors)
    one = await living(doors, who.id)
    access = await doors.identity.authenticate(
        (await doors.tokens.mint(who, one.id, kind=TokenKind.ACCESS, lasts_s=60)).text
    )
    made = await doors.tokens.mint(access, one.id, kind=TokenKind.SESSION, lasts_s=600, description="for bob")
    session = await doors.identity.authenticate(made.text)
    for kind in (TokenKind.ACCESS, TokenKind.SESSION):
        with pytest.raises(Forbidden):
            await doors.tokens.mint(session, one.id, kind=kind, lasts_s=60)
    with pytest.raises(Forbidden):
        await doors.tokens.list(session, one.id)
    with pytest.raises(Forbidden):
        await doors.tokens.maker(session)
    assert (await doors.tokens.maker(access)).resources is None
    assert (await doors.tokens.maker(access)).credential == key
    assert [token.id for token in await doors.tokens.list(access, one.id)] == [made.id]
    await doors.tokens.revoke(access, one.id, made.id)
    assert await refused(doors, made.text)
    with pytest.raises(NotFound):
        await doors.tokens.revoke(access, one.id, made.id)
    with pytest.raises(NotFound):
        await doors.tokens.get(access, one.id, access.credential)


async def test_an_access_token_does_not_renew_itself_and_nothing_made_from_it_outlives_it(doors: Doors) -> None:
    who, _ = await holder(doors)
    one, child = await living(doors, who.id), await living(doors, who.id)
    given = await doors.tokens.access(who, one.id)
    doors.clock.later(6 * 86_400)  # where a key gets another
    access = await doors.identity.authenticate(given.text)
    assert await doors.tokens.access(access, one.id, given.text) == given
    with pytest.raises(Forbidden):
        await doors.tokens.mint(access, one.id, kind=TokenKind.ACCESS, lasts_s=60)
    session = await doors.tokens.mint(access, one.id, kind=TokenKind.SESSION, lasts_s=30 * 86_400)
    link = await doors.tokens.mint(access, one.id, kind=TokenKind.MAGIC, lasts_s=300)
    followed, _ = await doors.tokens.redeem(link.text, one.id)
    within = await doors.tokens.of(access)
    below = await doors.tokens.access(await doors.tokens.maker(access), child.id, within=within)
    assert {one.expires_at for one in (session, followed, below)} == {given.expires_at}
    assert await doors.tokens.access(who, child.id) != below, "its owner's own ends with no token"
    assert (await doors.tokens.access(who, one.id)).expires_at > given.expires_at, "who has a key renews it"


async def test_an_access_token_is_seen_and_ended_with_all_that_was_made_from_it(doors: Doors) -> None:
    who, _ = await holder(doors)
    one, reader = await living(doors, who.id), replace(who, scopes=frozenset({Scope.READ}))
    given = await doors.tokens.access(who, one.id)
    access = await doors.identity.authenticate(given.text)
    session = await doors.tokens.mint(access, one.id, kind=TokenKind.SESSION, lasts_s=60)
    friend = await doors.identity.authenticate(session.text)
    terminal = await doors.tokens.mint(friend, one.id, kind=TokenKind.TERMINAL, lasts_s=60)
    await doors.identity.authenticate(terminal.text)
    assert [token.id for token in await doors.tokens.list(who, one.id, TokenKind.ACCESS)] == [given.id]
    for stranger in (access, reader):
        with pytest.raises(Forbidden):
            await doors.tokens.list(stranger, one.id, TokenKind.ACCESS)
        with pytest.raises(Forbidden):
            await doors.tokens.revoke(stranger, one.id, given.id, TokenKind.ACCESS)
    await doors.tokens.revoke(who, one.id, given.id, TokenKind.ACCESS)
    assert all([await refused(doors, text) for text in (given.text, session.text, terminal.text)])
    with pytest.raises(Unauthenticated):
        await doors.identity.still_good(terminal.text)
    assert (await doors.tokens.access(who, one.id)).text != given.text


async def test_what_a_terminal_token_opened_goes_on_after_its_minute(doors: Doors) -> None:
    who, key = await holder(doors)
    one = await living(doors, who.id)
    made = await doors.tokens.mint(who, one.id, kind=TokenKind.TERMINAL, lasts_s=60)
    assert made.text.startswith(TERMINAL_PREFIX)
    opened = await doors.identity.authenticate(made.text)
    with pytest.raises(Forbidden):
        await doors.tokens.mint(opened, one.id, kind=TokenKind.TERMINAL, lasts_s=60)
    doors.clock.later(61)
    await doors.records.prune_sandbox_tokens(doors.clock())
    assert await refused(doors, made.text)
    assert (await doors.identity.still_good(made.text)).covers(opened)
    await doors.keys.revoke(key)
    with pytest.raises(Unauthenticated):
        await doors.identity.still_good(made.text)


@pytest.mark.parametrize("ends", ["revoked", "expired"])
async def test_what_a_terminal_token_opened_ends_with_the_session_token_that_made_it(doors: Doors, ends: str) -> None:
    who, _ = await holder(doors)
    one = await living(doors, who.id)
    session = await doors.tokens.mint(who, one.id, kind=TokenKind.SESSION, lasts_s=50)
    friend = await doors.identity.authenticate(session.text)
    used = await doors.tokens.mint(friend, one.id, kind=TokenKind.TERMINAL, lasts_s=60)
    unused = await doors.tokens.mint(friend, one.id, kind=TokenKind.TERMINAL, lasts_s=60)
    opened = await doors.identity.authenticate(used.text)
    assert (await doors.identity.still_good(used.text)).covers(opened)
    if ends == "revoked":
        await doors.tokens.revoke(who, one.id, session.id)
    else:
        doors.clock.later(50)
    with pytest.raises(Unauthenticated):
        await doors.identity.still_good(used.text)
    assert await refused(doors, used.text)
    assert await refused(doors, unused.text)


async def test_a_token_for_a_groups_sandbox_ends_when_its_maker_leaves(doors: Doors) -> None:
    who, _ = await holder(doors)
    group = await a_group(doors, who)
    one = await living(doors, group)
    who = replace(who, groups={group: Role.VIEWER})
    made = await doors.tokens.mint(who, one.id, kind=TokenKind.ACCESS, lasts_s=60)
    found = await doors.identity.authenticate(made.text)
    assert found.scopes == {Scope.READ}
    assert found.sees(group, one.id)
    await doors.records.delete_member(group, who.id, event(group))
    assert await refused(doors, made.text)


async def test_the_access_token_of_a_groups_sandbox_is_the_same_again_until_the_role_changes(doors: Doors) -> None:
    who, _ = await holder(doors)
    group = await a_group(doors, who)
    one, viewer = await living(doors, group), replace(who, groups={group: Role.VIEWER})
    first = await doors.tokens.access(viewer, one.id)
    assert await doors.tokens.access(viewer, one.id) == first
    assert await doors.tokens.access(replace(who, groups={group: Role.MEMBER}), one.id) != first


async def test_a_magic_link_that_finds_no_room_is_good_for_another_try(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_tokens, "PER_SANDBOX", 1)
    who, _ = await holder(doors)
    one = await living(doors, who.id)
    given = await doors.tokens.mint(who, one.id, kind=TokenKind.SESSION, lasts_s=60)
    link = await doors.tokens.mint(who, one.id, kind=TokenKind.MAGIC, lasts_s=60, description="/play/")
    with pytest.raises(QuotaExceeded):
        await doors.tokens.redeem(link.text, one.id)
    await doors.tokens.revoke(who, one.id, given.id)
    made, description = await doors.tokens.redeem(link.text, one.id)
    assert (description, (await doors.restarted.authenticate(made.text)).id) == ("/play/", who.id)
    with pytest.raises(Unauthenticated):
        await doors.tokens.redeem(link.text, one.id)


async def test_who_logs_in_again_and_again_has_an_access_token_and_takes_nobody_elses(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_tokens, "PER_SANDBOX", 3)
    ann, _ = await holder(doors)
    bob, _ = await holder(doors)
    group = await a_group(doors, bob)
    one = await living(doors, group)
    viewer = replace(bob, groups={group: Role.VIEWER})
    bobs = await doors.tokens.access(viewer, one.id)
    member = Member(group, ann.id, Role.MEMBER, doors.clock())
    await doors.records.put_member(member, event(group), new=True, members_max=9, groups_max=9)
    made = []
    for _ in range(4):
        doors.clock.later(1)
        tokens = on(doors.records, doors.clock)[1]  # a restarted server remembers no text
        made.append(await tokens.access(replace(ann, groups={group: Role.MEMBER}), one.id))
    assert all([await refused(doors, old.text) for old in made[:2]])
    for good, whose in ((made[2], ann), (made[3], ann), (bobs, bob)):
        assert (await doors.restarted.authenticate(good.text)).id == whose.id


async def test_two_logins_at_once_that_find_no_room_make_room_for_two(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_tokens, "PER_SANDBOX", 2)
    who, _ = await holder(doors)
    one = await living(doors, who.id)
    for _ in range(2):
        doors.clock.later(1)
        await on(doors.records, doors.clock)[1].access(who, one.id)
    both, listed = asyncio.Barrier(2), doors.records.list_sandbox_tokens

    async def list_both(*args: Any) -> list[SandboxToken]:
        found = await listed(*args)
        await both.wait()  # both have seen the same oldest
        return found

    monkeypatch.setattr(doors.records, "list_sandbox_tokens", list_both)
    async with asyncio.timeout(5):
        made = await asyncio.gather(*(on(doors.records, doors.clock)[1].access(who, one.id) for _ in range(2)))
    for good in made:
        assert (await doors.restarted.authenticate(good.text)).id == who.id


@pytest.mark.parametrize("lasts_s", [0, -1, 31 * 86_400.0])
async def test_a_token_lasts_for_a_bounded_time(doors: Doors, lasts_s: float) -> None:
    who, _ = await holder(doors)
    one = await living(doors, who.id)
    with pytest.raises(InvalidInput) as refusal:
        await doors.tokens.mint(who, one.id, kind=TokenKind.SESSION, lasts_s=lasts_s)
    assert refusal.value.field == "expiresIn"


async def test_nobody_makes_a_token_for_somebody_elses_sandbox_or_one_that_has_ended(doors: Doors) -> None:
    who, _ = await holder(doors)
    gone = await living(doors, who.id)
    await doors.records.swap_sandbox(gone.to(SandboxState.KILLED), None)
    theirs = await living(doors, "key_other")
    said = set[str]()
    for sandbox_id in (theirs.id, gone.id, "sess_000000000000", "x"):
        with pytest.raises(NotFound) as refusal:
            await doors.tokens.mint(who, sandbox_id, kind=TokenKind.ACCESS, lasts_s=60)
        said.add(refusal.value.message)
    assert len(said) == 1
