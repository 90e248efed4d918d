"""What every records store must do with users, logins and signing keys, as tests; see `records_conformance`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atoll.domain.errors import Conflict, NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Role
from atoll.domain.ids import new_id, new_key_id, new_sandbox_id
from atoll.domain.key import DEFAULT_SCOPES, ApiKey, KeyKind
from atoll.domain.quota import OverridesOf, QuotaName
from atoll.domain.sandbox import Sandbox, SandboxSpec
from atoll.domain.user import Login, RefreshToken, SigningKey, User
from atoll.domain.workspace import Permission, Share
from atoll.records.base import Records
from atoll.testing.records_conformance import together
from atoll.testing.webhook_records_conformance import webhook
from atoll.testing.workspace_records_examples import made

T0 = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LATER = T0 + timedelta(days=1)


def user(username: str = "ann@example.com", **changes: Any) -> User:
    return replace(User(new_id("user"), username, T0), **changes)


def happened(action: str = "user.created", target: str = "t") -> Event:
    return Event(action, target, target, "cli", at=T0)


def login(owner: User, *, age_s: float = 0, lasts_s: float = 3600) -> Login:
    made = T0 - timedelta(seconds=age_s)
    return Login(new_id("login"), owner.id, made, made + timedelta(seconds=lasts_s))


def token(of: Login, name: str = "first", *, lasts_s: float = 600) -> RefreshToken:
    text = (name + of.id).encode().hex()
    return RefreshToken(text.ljust(64, "0")[:64], of.id, T0, T0 + timedelta(seconds=lasts_s))


def signing_key(age_s: float = 0) -> SigningKey:
    return SigningKey(
        new_id("sig"), "EdDSA", "-----BEGIN", b"\0sealed", b"\0wrapped", "local", T0 - timedelta(seconds=age_s)
    )


class UserRecordsConformance:
    """Give `stores`, as of `RecordsConformance`."""

    @pytest.fixture
    async def someone(self, records: Records) -> User:
        made = user()
        await records.add_user(made, happened(target=made.id))
        return made

    @pytest.fixture
    async def logged_in(self, records: Records, someone: User) -> tuple[Login, RefreshToken]:
        made = login(someone)
        await records.add_login(made, token(made), happened("login.created", made.id), kept=10, user_version=1)
        return made, token(made)

    # users

    async def test_a_user_is_returned_as_it_was_stored_every_field_of_it(self, records: Records) -> None:
        full = user(
            "ben",
            password_hash="$argon2id$v=19$m=8,t=1,p=1$YQ$Yg",
            name="Ben ☃",
            admin=True,
            issuer="https://issuer.example/",
            subject="auth0|1",
            disabled_at=LATER,
            welcomed_at=LATER,
        )
        await records.add_user(full, happened(target=full.id))
        assert await records.get_user(full.id) == full
        assert await records.find_user("ben") == full
        assert await records.find_subject("https://issuer.example/", "auth0|1") == full
        assert await records.find_subject("https://issuer.example", "auth0|1") is None
        assert await records.find_user("Ben") is None
        assert await records.get_user("user_\0") is None
        assert [event.action for event in await records.list_events(target=full.id)] == ["user.created"]

    async def test_ids_usernames_and_subjects_are_unique_and_no_subject_is_no_subject(self, records: Records) -> None:
        first = user("a", issuer="i", subject="s")
        await records.add_user(first, happened())
        for same in (user("a"), replace(first, username="b"), user("c", issuer="i", subject="s")):
            with pytest.raises(Conflict):
                await records.add_user(same, happened())
        others = [user("d"), user("e"), user("f", issuer="i", subject="t")]
        for other in others:
            await records.add_user(other, happened())
        with pytest.raises(Conflict):
            await records.swap_user(replace(others[0], username="a"), happened())
        assert len(await records.list_events()) == 4

    async def test_users_are_listed_by_name_a_page_at_a_time(self, records: Records) -> None:
        for name in ("c", "a", "b"):
            await records.add_user(user(name), happened())
        assert [one.username for one in await records.list_users(limit=2)] == ["a", "b"]
        assert [one.username for one in await records.list_users(after="b")] == ["c"]

    async def test_a_user_changes_by_compare_and_set(self, records: Records, someone: User) -> None:
        after = await records.swap_user(replace(someone, name="Ann"), happened("user.changed", someone.id))
        assert after == replace(someone, name="Ann", version=2) == await records.get_user(someone.id)
        with pytest.raises(StaleVersion):
            await records.swap_user(someone, happened("user.changed"))
        with pytest.raises(NotFound):
            await records.swap_user(user("z"), None)

    async def test_a_change_may_end_every_login_of_the_user(
        self, records: Records, someone: User, logged_in: tuple[Login, RefreshToken]
    ) -> None:
        await records.swap_user(someone, happened("user.changed"))
        assert await records.get_login(logged_in[0].id) == logged_in[0]
        await records.swap_user(replace(someone, version=2), happened("user.disabled"), end_logins="disabled")
        assert await records.get_login(logged_in[0].id) == replace(logged_in[0], ended_at=T0, reason="disabled")

    async def test_a_deleted_user_leaves_neither_logins_nor_keys_that_open(
        self, records: Records, someone: User, logged_in: tuple[Login, RefreshToken]
    ) -> None:
        key = ApiKey(new_key_id(), "h" * 64, "sk_", "k", KeyKind.STANDARD, DEFAULT_SCOPES, T0, owner=someone.id)
        await records.add_key(key, happened())
        with pytest.raises(StaleVersion):
            await records.delete_user(replace(someone, version=7), happened("user.deleted"))
        await records.delete_user(someone, happened("user.deleted", someone.id))
        assert await records.get_user(someone.id) is None
        assert await records.get_login(logged_in[0].id) is None
        assert await records.find_refresh_token(logged_in[1].hash) is None
        stored = await records.get_key(key.id)
        assert stored is not None and stored.revoked_at == T0
        with pytest.raises(NotFound):
            await records.delete_user(someone, happened("user.deleted"))
        assert [event.action for event in await records.list_events(target=someone.id)][-1] == "user.deleted"

    async def test_a_deleted_user_leaves_neither_webhooks_quotas_nor_shares(
        self, stores: tuple[Records, Records], someone: User
    ) -> None:
        records, own = stores[0], await made(stores[0])
        hook, other = webhook(someone.id), webhook("key_0")
        for one in (hook, other):
            await records.add_webhook(one, happened(target=one.id), quota=10)
        quotas = OverridesOf(someone.id, {QuotaName.SANDBOXES: 1})
        share = Share(own.id, someone.id, Permission.READ, T0)
        await records.put_quotas(quotas, happened())
        await records.put_share(share, happened())
        await records.delete_user(someone, happened("user.deleted"))
        assert await records.get_webhook(hook.id) is None
        assert await records.get_webhook(other.id) == other
        assert await records.get_quotas((someone.id,)) == {}
        assert await records.list_shares(own.id) == []
        for late in (
            records.add_webhook(webhook(someone.id), happened(), quota=10),
            records.put_quotas(quotas, happened()),
            records.put_share(share, happened()),
        ):
            with pytest.raises(NotFound):
                await late

    async def test_who_owns_something_is_not_deleted(self, records: Records, someone: User) -> None:
        await records.add_sandbox(Sandbox(new_sandbox_id(), someone.id, SandboxSpec(), "local", T0), happened())
        with pytest.raises(Conflict):
            await records.delete_user(someone, happened("user.deleted"))
        assert await records.get_user(someone.id) == someone

    async def test_a_workspace_that_goes_with_its_user_goes_in_the_same_transaction(
        self, records: Records, someone: User
    ) -> None:
        own, other = await made(records, "default", someone.id), await made(records, "code", someone.id)
        gone = replace(own, deleted_at=T0), Event("workspace.deleted", own.id, someone.id, "cli", at=T0)
        with pytest.raises(Conflict):  # the other one stays theirs
            await records.delete_user(someone, happened("user.deleted"), takes=gone)
        assert await records.get_workspace(own.id) == own
        await records.swap_workspace(replace(other, deleted_at=T0), None)
        with pytest.raises(StaleVersion):
            await records.delete_user(someone, happened("user.deleted"), takes=(replace(gone[0], version=7), gone[1]))
        await records.delete_user(someone, happened("user.deleted"), takes=gone)
        assert await records.get_user(someone.id) is None
        assert await records.get_workspace(own.id) == replace(own, deleted_at=T0, version=2)
        assert [one.action for one in await records.list_events(target=own.id)][-1] == "workspace.deleted"

    async def test_nobody_s_sandbox_is_made_for_a_user_who_is_gone(self, records: Records) -> None:
        made = Sandbox(new_sandbox_id(), new_id("user"), SandboxSpec(), "local", T0)
        with pytest.raises(NotFound):
            await records.add_sandbox(made, happened())

    async def test_a_sandbox_and_the_end_of_its_user_at_once_leave_no_sandbox_without_one(
        self, stores: tuple[Records, Records], someone: User
    ) -> None:
        made = Sandbox(new_sandbox_id(), someone.id, SandboxSpec(), "local", T0)
        await together(
            stores[0].add_sandbox(made, happened()), stores[1].delete_user(someone, happened("user.deleted"))
        )
        there = await stores[0].get_sandbox(made.id) is not None
        assert there is (await stores[0].get_user(someone.id) is not None)

    async def test_a_group_s_only_admin_is_not_deleted_and_others_leave_their_groups(
        self, records: Records, someone: User
    ) -> None:
        other = user("ben")
        await records.add_user(other, happened())
        group = Group(new_id("grp"), "g", T0, T0)
        await records.add_group(group, Member(group.id, someone.id, Role.ADMIN, T0), happened())
        await records.put_member(Member(group.id, other.id, Role.MEMBER, T0), happened())
        with pytest.raises(Conflict):
            await records.delete_user(someone, happened("user.deleted"))
        await records.delete_user(other, happened("user.deleted"))
        assert [one.principal for one in await records.list_members(group.id)] == [someone.id]

    # logins

    async def test_a_login_and_its_token_are_returned_as_they_were_stored(
        self, records: Records, someone: User, logged_in: tuple[Login, RefreshToken]
    ) -> None:
        made, first = logged_in
        assert await records.get_login(made.id) == made
        assert await records.find_refresh_token(first.hash) == (first, made, someone)
        assert await records.find_refresh_token("0" * 64) is None
        with pytest.raises(Conflict):
            await records.add_login(made, first, happened(), kept=10, user_version=1)
        stale = login(someone)
        with pytest.raises(StaleVersion):
            await records.add_login(stale, token(stale), happened(), kept=10, user_version=2)
        assert await records.get_login(stale.id) is None
        nobody = login(user("z"))
        with pytest.raises(NotFound):
            await records.add_login(nobody, token(nobody), happened(), kept=10, user_version=1)

    async def test_only_the_newest_logins_of_a_user_last(self, records: Records, someone: User) -> None:
        made = [login(someone, age_s=age) for age in (3, 2, 1)]
        for one in made:
            await records.add_login(one, token(one), happened(), kept=2, user_version=1)
        stored = [await records.get_login(one.id) for one in made]
        assert [one.reason for one in stored if one] == ["evicted", None, None]

    async def test_a_refresh_token_is_exchanged_once(
        self, records: Records, logged_in: tuple[Login, RefreshToken]
    ) -> None:
        made, first = logged_in
        second = token(made, "second")
        got = await records.rotate_refresh_token(
            first.hash, second, T0, happened("login.refreshed", made.id), happened("login.replayed")
        )
        assert got == made
        stored = await records.find_refresh_token(first.hash)
        assert stored is not None and stored[0] == replace(first, used_at=T0)
        found = await records.find_refresh_token(second.hash)
        assert found is not None and found[0] == second
        assert [event.action for event in await records.list_events(target=made.id)][-1] == "login.refreshed"

    async def test_a11_a_replayed_refresh_token_ends_its_whole_login(
        self, records: Records, logged_in: tuple[Login, RefreshToken]
    ) -> None:
        made, first = logged_in
        second, third = token(made, "second"), token(made, "third")
        said = happened("login.refreshed"), happened("login.replayed", made.id)
        await records.rotate_refresh_token(first.hash, second, T0, *said)
        assert await records.rotate_refresh_token(first.hash, third, T0, *said) is None
        assert await records.get_login(made.id) == replace(made, ended_at=T0, reason="replayed")
        assert await records.rotate_refresh_token(second.hash, third, T0, *said) is None
        assert await records.find_refresh_token(third.hash) is None
        assert [event.action for event in await records.list_events(target=made.id)].count("login.replayed") == 1

    async def test_a11_an_expired_token_that_was_used_is_a_replay_too(
        self, records: Records, logged_in: tuple[Login, RefreshToken]
    ) -> None:
        made, first = logged_in
        said = happened("login.refreshed"), happened("login.replayed")
        await records.rotate_refresh_token(first.hash, token(made, "second", lasts_s=3000), T0, *said)
        late = first.expires_at + timedelta(seconds=1)
        assert await records.rotate_refresh_token(first.hash, token(made, "third"), late, *said) is None
        stored = await records.get_login(made.id)
        assert stored is not None and stored.reason == "replayed"

    async def test_unknown_late_and_foreign_tokens_change_nothing(
        self, records: Records, someone: User, logged_in: tuple[Login, RefreshToken]
    ) -> None:
        made, first = logged_in
        other = login(someone, age_s=1)
        await records.add_login(other, token(other), happened(), kept=10, user_version=1)
        before = len(await records.list_events())
        second, said = token(made, "second"), (happened("login.refreshed"), happened("login.replayed"))
        assert await records.rotate_refresh_token("0" * 64, second, T0, *said) is None
        assert await records.rotate_refresh_token(first.hash, second, first.expires_at, *said) is None
        assert await records.rotate_refresh_token(first.hash, second, made.expires_at, *said) is None
        assert await records.rotate_refresh_token(token(other).hash, second, T0, *said) is None
        assert await records.get_login(made.id) == made
        assert len(await records.list_events()) == before

    async def test_a_login_ends_once(self, records: Records, logged_in: tuple[Login, RefreshToken]) -> None:
        made, first = logged_in
        assert await records.end_login(made.id, LATER, "logout", happened("login.ended", made.id))
        assert not await records.end_login(made.id, LATER, "logout", happened("login.ended", made.id))
        assert not await records.end_login("login_none", LATER, "logout", happened("login.ended"))
        assert await records.get_login(made.id) == replace(made, ended_at=LATER, reason="logout")
        said = happened("login.refreshed"), happened("login.replayed")
        assert await records.rotate_refresh_token(first.hash, token(made, "second"), T0, *said) is None
        assert [event.action for event in await records.list_events(target=made.id)].count("login.ended") == 1

    async def test_what_is_long_over_is_pruned(
        self, records: Records, someone: User, logged_in: tuple[Login, RefreshToken]
    ) -> None:
        ended = login(someone)
        await records.add_login(ended, token(ended), happened(), kept=10, user_version=1)
        await records.end_login(ended.id, T0, "logout", happened())
        assert await records.prune_logins(T0) == 0
        assert await records.prune_logins(T0 + timedelta(seconds=1)) == 1
        assert await records.find_refresh_token(token(ended).hash) is None
        assert await records.prune_logins(logged_in[0].expires_at + timedelta(seconds=1)) == 1
        assert await records.get_login(logged_in[0].id) is None

    async def test_a11_of_many_at_once_one_gets_the_login_and_it_ends_as_replayed(
        self, stores: tuple[Records, Records], logged_in: tuple[Login, RefreshToken]
    ) -> None:
        made, first = logged_in
        got = await together(
            *(
                stores[number % 2].rotate_refresh_token(
                    first.hash, token(made, f"n{number}"), T0, happened("login.refreshed"), happened("login.replayed")
                )
                for number in range(8)
            )
        )
        assert [one for one in got if one is not None] == [made]
        stored = await stores[0].get_login(made.id)
        assert stored is not None and stored.reason == "replayed"
        actions = [event.action for event in await stores[0].list_events()]
        assert (actions.count("login.refreshed"), actions.count("login.replayed")) == (1, 1)

    # keys that sign tokens

    async def test_a_signing_key_is_replaced_by_one_that_knew_it(self, records: Records) -> None:
        first, second = signing_key(age_s=5), signing_key()
        assert await records.add_signing_key(first, happened("signing_key.created"))
        assert await records.list_signing_keys() == [first]
        assert not await records.add_signing_key(second, happened())
        assert not await records.add_signing_key(second, happened(), retires="sig_other")
        assert await records.add_signing_key(second, happened(), retires=first.id)
        assert await records.list_signing_keys() == [second, replace(first, retired_at=second.created_at)]
        assert await records.delete_signing_key(first.id, happened("signing_key.deleted"))
        assert not await records.delete_signing_key(first.id, happened("signing_key.deleted"))
        assert len(await records.list_events()) == 3

    async def test_of_two_first_signing_keys_at_once_one_stays(self, stores: tuple[Records, Records]) -> None:
        made = await together(
            *(store.add_signing_key(signing_key(), happened("signing_key.created")) for store in stores)
        )
        assert sorted(map(bool, made)) == [False, True]
        assert len(await stores[0].list_signing_keys()) == 1
