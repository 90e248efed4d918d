"""What every store does with accounts, requests for quotas and keys' use; the tests of records include it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from atoll.domain.account import Account, QuotaRequest
from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Role
from atoll.domain.ids import new_id, new_key_id, new_sandbox_id
from atoll.domain.key import DEFAULT_SCOPES, ApiKey, KeyKind, hash_key, new_key_text
from atoll.domain.quota import OverridesOf, QuotaName
from atoll.domain.rate import Rate
from atoll.domain.sandbox import Sandbox, SandboxSpec
from atoll.records.base import KeyUse, Records

Stores = tuple[Records, Records]
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def a_key(minutes: int = 0, **more: object) -> ApiKey:
    text = new_key_text()
    key = ApiKey(
        id=new_key_id(),
        hash=hash_key(text),
        prefix=text[:12],
        name="a key",
        kind=KeyKind.STANDARD,
        scopes=DEFAULT_SCOPES,
        created_at=NOW + timedelta(minutes=minutes),
    )
    return replace(key, **more)  # type: ignore[arg-type]


def event(action: str, target: str) -> Event:
    return Event(action, target, target, "admin")


class AccountRecordsConformance:
    """`stores` are two connections to one store."""

    async def test_a_keys_own_rate_is_kept(self, stores: Stores) -> None:
        key = a_key(rate=Rate(2.5, 7))
        await stores[0].add_key(key, event("key.created", key.id))
        assert await stores[1].get_key(key.id) == key

    async def test_keys_come_in_pages_newest_first(self, stores: Stores) -> None:
        keys = [a_key(n) for n in range(5)]
        keys[1] = replace(keys[1], revoked_at=NOW)
        keys[2] = replace(keys[2], expires_at=NOW + timedelta(hours=1))
        for key in keys:
            await stores[0].add_key(key, event("key.created", key.id))
        assert await stores[1].page_keys(limit=2, offset=1) == ([keys[3], keys[2]], 5)
        assert await stores[1].page_keys(limit=9, usable_at=NOW) == ([keys[4], keys[3], keys[2], keys[0]], 4)
        assert await stores[1].page_keys(limit=9, usable_at=NOW + timedelta(hours=1)) == (
            [keys[4], keys[3], keys[0]],
            3,
        )

    async def test_a_deleted_key_is_gone_with_its_use_and_its_account(self, stores: Stores) -> None:
        key, other = a_key(), a_key()
        for one in (key, other):
            await stores[0].add_key(one, event("key.created", one.id))
            await stores[0].log_key_use([KeyUse(one.id, "/x", "GET", 200, NOW, None, None)])
            await stores[0].add_account(Account(one.id, NOW), None)
        await stores[0].delete_key(key.id, event("key.deleted", key.id))
        assert await stores[1].get_key(key.id) is None
        assert await stores[1].find_key(key.hash) is None
        assert (await stores[1].key_stats(key.id)).requests == 0
        assert await stores[1].get_account(key.id) is None
        assert (await stores[1].key_stats(other.id)).requests == 1
        with pytest.raises(NotFound):
            await stores[1].delete_key(key.id, event("key.deleted", key.id))
        assert [one.action for one in await stores[1].list_events(target=key.id)] == ["key.created", "key.deleted"]

    async def test_a_deleted_key_leaves_its_groups_and_stays_while_it_is_the_only_admin_of_one(
        self, stores: Stores
    ) -> None:
        key, group = a_key(), Group(new_id("grp"), "g", NOW, NOW)
        await stores[0].add_key(key, event("key.created", key.id))
        await stores[0].add_group(group, Member(group.id, key.id, Role.ADMIN, NOW), event("group.created", group.id))
        await stores[0].put_quotas(OverridesOf(key.id, {QuotaName.SANDBOXES: 1}), event("quota.set", key.id))
        with pytest.raises(Conflict, match="at least one admin"):
            await stores[1].delete_key(key.id, event("key.deleted", key.id))
        assert await stores[0].get_key(key.id) is not None
        assert set(await stores[0].get_quotas((key.id,))) == {key.id}
        await stores[0].put_member(Member(group.id, "key_0", Role.ADMIN, NOW), event("member.added", group.id))
        await stores[1].delete_key(key.id, event("key.deleted", key.id))
        assert [one.principal for one in await stores[0].list_members(group.id)] == ["key_0"]
        assert await stores[0].get_quotas((key.id,)) == {}

    async def test_what_a_key_was_used_for_is_counted(self, stores: Stores) -> None:
        key = a_key()
        await stores[0].add_key(key, event("key.created", key.id))
        assert (await stores[0].key_stats(key.id)).last_at is None
        uses = [
            KeyUse(key.id, "/x", "GET", status, NOW + timedelta(minutes=n), None, None)
            for n, status in enumerate((200, 404, 101, 500))
        ]
        await stores[0].log_key_use(uses)
        stats = await stores[1].key_stats(key.id)
        assert (stats.requests, stats.successful, stats.last_at) == (4, 2, uses[-1].at)
        since = await stores[1].key_stats(key.id, NOW + timedelta(minutes=2))
        assert (since.requests, since.successful) == (2, 1)

    async def test_an_owners_sandboxes_since_a_moment(self, stores: Stores) -> None:
        made = [
            Sandbox(new_sandbox_id(), owner, SandboxSpec(), "fake", NOW + timedelta(hours=n))
            for n, owner in enumerate(("a", "a", "b", "a"))
        ]
        for one in made:
            await stores[0].add_sandbox(one, event("sandbox.created", one.id))
        found = await stores[1].list_sandboxes_since("a", NOW + timedelta(hours=1), limit=10)
        assert [one.id for one in found] == [made[3].id, made[1].id]

    async def test_an_account_is_changed_only_as_it_was_read(self, stores: Stores) -> None:
        account = Account("key_1", NOW, "a@example.com", {"daily_requests_limit": 3})
        await stores[0].add_account(account, event("account.created", "key_1"))
        assert await stores[1].get_account("key_1") == account
        with pytest.raises(Conflict):
            await stores[1].add_account(account, None)
        after = await stores[1].swap_account(replace(account, limits={}), event("account.changed", "key_1"))
        assert after == replace(account, limits={}, version=2) == await stores[0].get_account("key_1")
        with pytest.raises(StaleVersion):
            await stores[0].swap_account(account, event("account.changed", "key_1"))

    async def test_an_address_belongs_to_one_account(self, stores: Stores) -> None:
        key = a_key()
        first = Account(key.id, NOW, "a@example.com")
        await stores[0].add_account_key(first, key, event("key.created", key.id), most=2)
        assert await stores[1].get_key(key.id) == key
        other = a_key()
        with pytest.raises(Conflict):
            await stores[1].add_account_key(
                Account(other.id, NOW, "a@example.com"), other, event("key.created", other.id), most=2
            )
        with pytest.raises(QuotaExceeded):
            await stores[1].add_account_key(
                Account(other.id, NOW, "b@example.com"), other, event("key.created", other.id), most=1
            )
        assert await stores[0].get_key(other.id) is None
        await stores[0].add_account(Account("key_2", NOW), None)
        with pytest.raises(Conflict):
            await stores[0].swap_account(Account("key_2", NOW, "a@example.com"), event("account.changed", "key_2"))

    async def test_requests_for_quotas_are_numbered_and_bounded(self, stores: Stores) -> None:
        asked = [QuotaRequest(f"{n}@example.com", NOW, detail={"use_case": "ü"}) for n in range(6)]
        happened = event("quota.requested", "")
        added = await asyncio.gather(
            *(stores[n % 2].add_quota_request(one, happened, most=4) for n, one in enumerate(asked)),
            return_exceptions=True,
        )
        numbers = [one.id for one in added if isinstance(one, QuotaRequest)]
        assert len(set(numbers)) == 4
        assert sum(isinstance(one, QuotaExceeded) for one in added) == 2
        listed = await stores[0].list_quota_requests()
        assert [one.id for one in listed] == sorted(numbers, reverse=True)
        assert listed[0].detail == {"use_case": "ü"}
        assert len(await stores[0].list_events(target=f"quota_request_{numbers[0]}")) == 1
