"""What every records store must do with secrets, as tests: subclass as `RecordsConformance`, with its `stores`.

Each test holds one sentence of the contract in `atoll.records.secrets`; the last one races.
"""

from __future__ import annotations

import secrets as randomness
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.group import Group, Member, Role
from atoll.domain.ids import new_id
from atoll.domain.secret import Secret
from atoll.records.base import Records
from atoll.testing.records_conformance import T0, event, together


def secret(name: str = "TOKEN", owner: str = "key_0", *, age_s: float = 0, **changes: Any) -> Secret:
    at = T0 - timedelta(seconds=age_s)
    key, sealed = randomness.token_bytes(60), randomness.token_bytes(40)
    return replace(Secret(new_id("sec"), owner, name, "local", key, sealed, at), **changes)


async def added(records: Records, *args: Any, **changes: Any) -> Secret:
    one = secret(*args, **changes)
    await records.add_secret(one, event(one.id, "secret.created"))
    return one


class SecretRecordsConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    async def test_a_secret_is_returned_as_it_was_stored(self, records: Records) -> None:
        one = await added(
            records,
            hosts=("api.example.org", "*.example.com"),
            description="é\n☃",
            revision=7,
            rotated_at=T0 + timedelta(days=1),
            sealed=bytes(range(256)),
        )
        assert await records.get_secret(one.id) == one
        assert await records.find_secret("key_0", "TOKEN") == one
        assert [happened.action for happened in await records.list_events(target=one.id)] == ["secret.created"]

    async def test_an_unknown_secret_is_none(self, records: Records) -> None:
        one = await added(records)
        assert await records.get_secret("sec_0") is None
        assert await records.find_secret("key_1", "TOKEN") is None
        assert await records.find_secret("key_0", one.name.lower()) is None

    async def test_a_name_is_its_owners_once(self, records: Records) -> None:
        await added(records)
        await added(records, owner="key_1")
        with pytest.raises(Conflict):
            await added(records)
        assert len(await records.list_events(tenant="key_0")) == 2  # nothing of the refused one

    async def test_they_are_listed_by_name_in_pages(self, records: Records) -> None:
        second, first = await added(records, "B"), await added(records, "A", age_s=9)
        other = await added(records, "C", "key_1", age_s=5)
        assert await records.list_secrets(owners=["key_0"]) == [first, second]
        assert await records.list_secrets(owners=["key_0", "key_1", "key_2"]) == [first, second, other]
        assert await records.list_secrets() == [first, second, other]
        assert await records.list_secrets(owners=[]) == []
        same = sorted([await added(records, "B", f"key_{number}") for number in (1, 2, 3)] + [second], key=_id)
        walked: list[Secret] = []
        while page := await records.list_secrets(after=_place(walked), limit=2):
            assert len(page) <= 2
            walked += page
        assert walked == [first, *same, other]

    async def test_a_list_within_bounds_is_bounded_before_it_is_cut_off(self, records: Records) -> None:
        for name in ("A", "B", "C"):
            await added(records, name)
        wanted, other = await added(records, "Z"), await added(records, "Y", "key_1")
        assert await records.list_secrets(within=[wanted.id], limit=1) == [wanted]
        assert await records.list_secrets(within=[wanted.id, "key_1"]) == [other, wanted]
        assert await records.list_secrets(owners=["key_0"], within=[other.id]) == []
        assert await records.list_secrets(within=[]) == []

    async def test_a_swap_needs_the_version_that_was_read(self, records: Records) -> None:
        one = await added(records)
        rotated = replace(one, sealed=b"other", key=b"k", revision=2, hosts=("h",), description="d", vault="transit")
        after = await records.swap_secret(rotated, event(one.id, "secret.rotated"))
        assert after == replace(rotated, version=2) == await records.get_secret(one.id)
        with pytest.raises(StaleVersion):
            await records.swap_secret(rotated, event(one.id))
        with pytest.raises(NotFound):
            await records.swap_secret(secret(), None)
        await records.swap_secret(after, None)
        actions = [happened.action for happened in await records.list_events(target=one.id)]
        assert actions == ["secret.created", "secret.rotated"]

    async def test_a_delete_leaves_nothing(self, records: Records) -> None:
        one = await added(records)
        with pytest.raises(StaleVersion):
            await records.delete_secret(replace(one, version=9), event(one.id))
        await records.delete_secret(one, event(one.id, "secret.deleted"))
        assert await records.get_secret(one.id) is None
        with pytest.raises(NotFound):
            await records.delete_secret(one, event(one.id))
        actions = [happened.action for happened in await records.list_events(target=one.id)]
        assert actions == ["secret.created", "secret.deleted"]
        await added(records)  # the name is free again

    async def test_a_group_with_secrets_stays_and_one_that_is_gone_gets_none(self, records: Records) -> None:
        group = Group(new_id("grp"), "g", T0, T0)
        first = Member(group.id, "key_0", Role.ADMIN, T0)
        await records.add_group(group, first, event(group.id, "group.created"))
        one = await added(records, owner=group.id)
        with pytest.raises(Conflict, match="1 secrets"):
            await records.delete_group(group.id, event(group.id))
        await records.delete_secret(one, event(one.id))
        await records.delete_group(group.id, event(group.id))
        with pytest.raises(NotFound):
            await added(records, owner=group.id)

    async def test_a_race_for_a_quota_has_exactly_as_many_winners(self, stores: tuple[Records, Records]) -> None:
        many = [secret(f"S{number}") for number in range(12)]
        adds = [
            stores[number % 2].add_secret(one, event(one.id, "secret.created"), quota=5)
            for number, one in enumerate(many)
        ]
        results = await together(*adds)
        assert sum(isinstance(result, QuotaExceeded) for result in results) == 7
        assert len(await stores[0].list_secrets(owners=["key_0"])) == 5


def _id(one: Secret) -> str:
    return one.id


def _place(walked: list[Secret]) -> tuple[str, str] | None:
    return (walked[-1].name, walked[-1].id) if walked else None
