"""Users: who may manage them, what their fields may be, and who comes from an identity provider."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from atoll.domain.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    StaleVersion,
    Unauthenticated,
    Unavailable,
)
from atoll.domain.event import Event
from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.user import User
from atoll.domain.workspace import DEFAULT_NAME, Permission, Reason, Share
from atoll.services.identity import capabilities
from atoll.services.identity.users import OPERATOR, UserChanges, is_in_person, principal_of
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.workspace_records_examples import event, lineage, revision, snapshot, workspace
from tests.services.identity.logged_in import PASSWORD, Pair

STANDARD = Principal("key_a11ce0000000", KeyKind.STANDARD, DEFAULT_SCOPES, "alice")


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.mark.parametrize("who", [STANDARD, replace(STANDARD, kind=KeyKind.INTERNAL)])
async def test_only_who_administers_manages_users_whatever_they_are(pair: Pair, who: Principal) -> None:
    user = await pair.here.user()
    users = pair.here.users
    for ref in (user.id, "ann", "nobody"):
        for work in (
            users.get(who, ref),
            users.change(who, ref, UserChanges(admin=True)),
            users.set_password(who, ref, PASSWORD),
            users.delete(who, ref),
        ):
            with pytest.raises(Forbidden):
                await work
    for work in (users.list(who), users.create(who, "eve", PASSWORD, admin=True)):
        with pytest.raises(Forbidden):
            await work
    assert await pair.actions() == ["user.created"]


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        *(
            ("username", {"username": name})
            for name in ("", "a b", "é", ".ann", "a" * 129, "user_" + "0" * 24, "key_x", "grp_x", "a/b", "a\0", "a\n")
        ),
        ("password", {"username": "ann", "password": "short"}),
        ("name", {"username": "ann", "name": "n" * 256}),
        ("name", {"username": "ann", "name": "a\nb"}),
    ],
)
async def test_a_wrong_field_is_named(pair: Pair, field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        await pair.here.users.create(OPERATOR, **arguments)
    assert refused.value.field == field
    assert await pair.here.users.list(OPERATOR) == []


async def test_the_default_workspace_goes_with_its_user_while_nothing_was_done_with_it(pair: Pair) -> None:
    user, records = await pair.here.user(), pair.records
    own = lineage(owner=user.id)
    new = workspace(own, DEFAULT_NAME, user.id)
    first = revision(new, reason=Reason.CREATED)
    await records.add_workspace(new, first, own, event(new.id, "workspace.created"))
    share = Share(new.id, "key_0", Permission.READ, first.created_at)
    named = snapshot(first, owner=user.id)
    await records.put_share(share, event())
    with pytest.raises(Conflict, match="1 workspaces"):
        await pair.here.users.delete(OPERATOR, "ann")
    await records.delete_share(new.id, "key_0", event())
    await records.add_snapshot(named, event())
    with pytest.raises(Conflict):
        await pair.here.users.delete(OPERATOR, "ann")
    await records.delete_snapshot(user.id, named.id, event())
    assert await records.get_workspace(new.id) == new
    await pair.here.users.delete(OPERATOR, "ann")
    gone = await records.get_workspace(new.id)
    assert gone is not None and gone.deleted_at is not None
    assert await records.get_user(user.id) is None


@pytest.mark.parametrize("changes", [{"tree_id": "tree", "runtime": "local"}, {"name": "kept"}, {"head": "second"}])
async def test_a_workspace_that_was_used_keeps_its_user(pair: Pair, changes: dict[str, str]) -> None:
    user, records = await pair.here.user(), pair.records
    own = lineage(owner=user.id)
    new = workspace(own, DEFAULT_NAME, user.id)
    await records.add_workspace(new, revision(new, reason=Reason.CREATED), own, event(new.id, "workspace.created"))
    if "head" in changes:
        await records.add_revision(revision(new, 2), new, event())
    else:
        await records.swap_workspace(replace(new, **changes), None)
    with pytest.raises(Conflict):
        await pair.here.users.delete(OPERATOR, "ann")
    assert await records.get_user(user.id) == user


async def test_a_username_is_taken_in_any_case_also_at_once(pair: Pair) -> None:
    done = await asyncio.gather(*(pair.here.user(name) for name in ("ann", "Ann", "ANN")), return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["Conflict", "Conflict", "User"]


async def test_changes_are_events_and_no_change_is_none(pair: Pair) -> None:
    user = await pair.here.user()
    change = pair.here.users.change
    assert await change(OPERATOR, "ann", UserChanges()) == user
    changed = await change(OPERATOR, user.id, UserChanges(name="Ann", admin=True))
    assert (changed.name, changed.admin, changed.usable) == ("Ann", True, True)
    assert not (await change(OPERATOR, user.id, UserChanges(disabled=True))).usable
    assert await pair.actions() == ["user.created", "user.changed", "user.disabled"]
    for work in (change(OPERATOR, "nobody", UserChanges()), pair.here.users.get(OPERATOR, "user_" + "0" * 24)):
        with pytest.raises(NotFound):
            await work


async def test_a_change_wins_over_concurrent_ones(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    await pair.here.user()
    stale, real = 3, pair.records.swap_user

    async def swap(user: User, event: Event | None, *, end_logins: str | None = None) -> User:
        nonlocal stale
        stale -= 1
        if stale >= 0:
            raise StaleVersion
        return await real(user, event, end_logins=end_logins)

    monkeypatch.setattr(pair.records, "swap_user", swap)
    assert (await pair.here.users.change(OPERATOR, "ann", UserChanges(name="Ann"))).name == "Ann"
    stale = 99
    with pytest.raises(Conflict):
        await pair.here.users.change(OPERATOR, "ann", UserChanges(name="Ben"))
    with pytest.raises(Conflict):
        await pair.here.users.set_password(OPERATOR, "ann", PASSWORD)


# who comes from an identity provider


async def test_the_first_login_at_a_provider_makes_the_user_once(pair: Pair) -> None:
    found = await asyncio.gather(
        *(server.users.of_subject("https://i.example", "auth0|1", "Ann") for server in (pair.here, pair.there) * 3)
    )
    assert len({user.id for user in found}) == 1
    user = found[0]
    assert (user.username, user.name, user.issuer, user.subject) == (user.id, "Ann", "https://i.example", "auth0|1")
    assert (await pair.actions()).count("user.created") == 1
    assert (await pair.here.users.of_subject("https://j.example", "auth0|1")).id != user.id


async def test_who_comes_from_a_provider_has_no_password_and_a_disabled_one_is_refused(pair: Pair) -> None:
    user = await pair.here.users.of_subject("https://i.example", "auth0|1", "bad\nname")
    assert user.name == ""
    with pytest.raises(Conflict):
        await pair.here.users.set_password(OPERATOR, user.id, PASSWORD)
    await pair.here.users.change(OPERATOR, user.id, UserChanges(disabled=True))
    with pytest.raises(Unauthenticated):
        await pair.here.users.of_subject("https://i.example", "auth0|1")


async def test_everybody_is_welcomed_once_and_a_failure_keeps_nobody_out(pair: Pair) -> None:
    user = await pair.here.user()
    await pair.here.login()
    await pair.there.login()
    assert [one.id for one in pair.welcomed] == [user.id]
    assert (pair.welcomed[0].plan, pair.welcomed[0].kind) == ("user", KeyKind.STANDARD)

    async def fails(_: Principal) -> None:
        raise Unavailable("the disk is full")

    await pair.here.user("ben")
    pair.here.users._welcome = fails  # pyright: ignore[reportPrivateUsage]
    await pair.here.login("ben")
    await pair.there.login("ben")
    assert len(pair.welcomed) == 2


# their keys


async def test_a_key_of_a_user_has_their_plan_and_no_more_than_their_scopes(pair: Pair) -> None:
    user = await pair.here.user(admin=True)
    ann = principal_of(user, "login_" + "0" * 24, frozenset({Scope.READ}))
    made = await pair.here.own_keys.create(ann, "ci")
    principal = await pair.there.keys.authenticate(made.text)
    assert (principal.id, principal.plan, principal.scopes) == (user.id, "user", {Scope.READ})
    assert not principal.admin and not is_in_person(principal)
    with pytest.raises(InvalidInput) as refused:
        await pair.here.own_keys.create(ann, "ci", scopes=frozenset({Scope.WRITE}))
    assert refused.value.field == "scopes"
    for work in (
        pair.here.own_keys.create(principal, "child"),
        pair.here.own_keys.list(principal),
        pair.here.own_keys.get(STANDARD, made.key.id),
        pair.here.own_keys.revoke(principal, made.key.id),
    ):
        with pytest.raises(Forbidden):
            await work


async def test_keys_of_a_user_are_bounded_and_others_are_unknown(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "CHILDREN_MAX", 2)
    ann = principal_of(await pair.here.user(), "login_" + "0" * 24)
    ben = principal_of(await pair.here.user("ben"), "login_" + "1" * 24)
    made = [await pair.here.own_keys.create(ann, "ci") for _ in range(2)]
    with pytest.raises(QuotaExceeded):
        await pair.here.own_keys.create(ann, "ci")
    for key_id in (made[0].key.id, "key_000000000000", "nonsense"):
        with pytest.raises(NotFound):
            await pair.here.own_keys.revoke(ben, key_id)
    await pair.here.own_keys.revoke(ann, made[0].key.id)
    assert await pair.here.own_keys.list(ann) == [made[1].key]
    await pair.here.own_keys.create(ann, "ci")


async def test_a_key_that_ended_with_the_one_that_made_it_is_shown_so_to_its_user(pair: Pair) -> None:
    ann = principal_of(await pair.here.user(), "login_" + "0" * 24)
    made = await pair.here.own_keys.create(ann, "ci")
    child = await pair.here.capabilities.mint(await pair.here.keys.authenticate(made.text), "narrow")
    assert [one.revoked_at for one in await pair.here.own_keys.list(ann)] == [None, None]
    ended = await pair.here.own_keys.revoke(ann, made.key.id)
    [shown] = await pair.here.own_keys.list(ann)
    assert (shown.id, shown.revoked_at) == (child.key.id, ended.revoked_at)
    assert await pair.here.own_keys.get(ann, child.key.id) == shown


async def test_a_look_up_that_a_change_overtook_is_not_remembered(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    user = await pair.here.user()
    read, go_on = asyncio.Event(), asyncio.Event()
    standing = pair.server().standing

    async def slow(user_id: str) -> User | None:
        found = await MemoryRecords.get_user(pair.records, user_id)
        read.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(standing._users, "_find", slow)  # pyright: ignore[reportPrivateUsage]
    early = asyncio.create_task(standing.user(user.id))
    await read.wait()
    await pair.here.users.change(OPERATOR, user.id, UserChanges(disabled=True))
    standing.forget(user.id)
    go_on.set()
    await early
    with pytest.raises(Unauthenticated):
        await standing.user(user.id)


@pytest.mark.parametrize(
    "credential", ["key_000000000000", "sess_000000000000", "user_" + "0" * 24, "login_x", "", "admin"]
)
async def test_whatever_a_user_has_made_is_not_the_user(pair: Pair, credential: str) -> None:
    user = await pair.here.user()
    assert is_in_person(principal_of(user, "login_" + "0" * 24)) and is_in_person(
        principal_of(user, "oidc_" + "0" * 24)
    )
    with pytest.raises(Forbidden):
        await pair.here.own_keys.create(principal_of(user, credential), "ci")
    assert await pair.here.keys.list(owner=user.id) == []
