"""What every records store must do with access keys, as tests: subclass as `RecordsConformance`, with its `stores`.

Each test holds one sentence of the contract in `atoll.records.access_keys`; the last one races.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta

import pytest

from atoll.domain.access_key import AccessKey
from atoll.domain.errors import Conflict, NotFound, QuotaExceeded
from atoll.domain.ids import new_id
from atoll.records.base import Records
from atoll.testing.records_conformance import T0, event, key, together


def access_key(of: str, *, age_s: float = 0) -> AccessKey:
    at = T0 - timedelta(seconds=age_s)
    return AccessKey(new_id("hmac"), of, "0" * 64, "key_owner", at, "local", secrets.token_bytes(60))


async def added(records: Records, of: str, *, age_s: float = 0, quota: int = 100) -> AccessKey:
    one = access_key(of, age_s=age_s)
    await records.add_access_key(one, event(one.id, "access_key.created"), quota=quota)
    return one


class AccessKeyRecordsConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    @pytest.fixture
    async def of(self, stores: tuple[Records, Records]) -> str:
        """An API key's id."""
        made = key()
        await stores[0].add_key(made, event(made.id))
        return made.id

    async def test_an_access_key_is_returned_as_it_was_stored(self, stores: tuple[Records, Records], of: str) -> None:
        one = await added(stores[0], of)
        assert await stores[1].get_access_key(one.id) == one
        assert await stores[1].get_access_key("hmac_0") is None
        assert [told.action for told in await stores[1].list_events(target=one.id)] == ["access_key.created"]

    async def test_access_keys_are_listed_oldest_first(self, stores: tuple[Records, Records], of: str) -> None:
        new, old = await added(stores[0], of), await added(stores[0], of, age_s=5)
        assert await stores[1].list_access_keys() == [old, new]
        assert await stores[1].list_access_keys(key=of, owner="key_owner") == [old, new]
        assert await stores[1].list_access_keys(key="key_0") == await stores[1].list_access_keys(owner=of) == []

    async def test_an_access_key_needs_its_api_key(self, stores: tuple[Records, Records]) -> None:
        with pytest.raises(NotFound):
            await added(stores[0], "key_000000000000")
        assert await stores[0].list_access_keys() == []

    async def test_the_same_id_twice_is_a_conflict(self, stores: tuple[Records, Records], of: str) -> None:
        one = await added(stores[0], of)
        with pytest.raises(Conflict):
            await stores[1].add_access_key(replace(one, vault="other"), event(one.id), quota=9)
        assert await stores[0].get_access_key(one.id) == one

    async def test_a_deleted_access_key_is_gone_once(self, stores: tuple[Records, Records], of: str) -> None:
        one, other = await added(stores[0], of), await added(stores[0], of)
        await stores[0].delete_access_key(one.id, event(one.id, "access_key.revoked"))
        with pytest.raises(NotFound):
            await stores[1].delete_access_key(one.id, event(one.id, "access_key.revoked"))
        assert await stores[1].list_access_keys() == [other]
        actions = sorted(told.action for told in await stores[1].list_events(target=one.id))
        assert actions == ["access_key.created", "access_key.revoked"]

    async def test_access_keys_go_with_their_api_key(self, stores: tuple[Records, Records], of: str) -> None:
        await added(stores[0], of)
        other = key()
        await stores[0].add_key(other, event(other.id))
        stays = await added(stores[0], other.id)
        await stores[0].delete_key(of, event(of, "key.deleted"))
        assert await stores[1].list_access_keys() == [stays]

    async def test_as_many_are_added_as_the_quota_says(self, stores: tuple[Records, Records], of: str) -> None:
        done = await together(*(added(stores[number % 2], of, quota=3) for number in range(8)))
        assert sum(isinstance(one, AccessKey) for one in done) == 3
        assert all(isinstance(one, AccessKey | QuotaExceeded) for one in done)
        assert len(await stores[0].list_access_keys(key=of)) == 3
