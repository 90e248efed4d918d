"""What every records store must do with the bounds of keys, as tests: how many there may be, and quotas of their own.

See `records_conformance` for how a store gives them its fixture `stores`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from atoll.domain.errors import QuotaExceeded, StaleVersion
from atoll.domain.quota import Bound, OverridesOf, QuotaChange, QuotaName, Spend
from atoll.records.base import Records
from atoll.testing.records_conformance import T0, event, key, sandbox, together


class KeyBoundsConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    @pytest.fixture
    async def stores(self) -> tuple[Records, Records]:
        raise NotImplementedError("give a fixture `stores`")

    async def test_of_two_changes_at_once_none_is_lost_and_each_event_says_what_then_holds(
        self, stores: tuple[Records, Records]
    ) -> None:
        names = [QuotaName.CPU, QuotaName.EGRESS, QuotaName.DAILY, QuotaName.SANDBOXES]
        changes = [QuotaChange("key_1", {name: at}) for at, name in enumerate(names)]
        outcomes = await together(
            *(stores[at % 2].change_quotas(one, event("key_1", "quota.set")) for at, one in enumerate(changes))
        )
        assert outcomes == [None] * 4
        found = await stores[0].get_quotas(["key_1"])
        assert found["key_1"].amounts == {name: at for at, name in enumerate(names)}
        told = [one.detail["quotas"] for one in await stores[0].list_events(target="key_1")]
        assert [len(each) for each in told] == [1, 2, 3, 4]
        cleared = QuotaChange("key_1", {QuotaName.CPU: None}, frozenset(names[1:]))
        await stores[1].change_quotas(cleared, event("key_1", "quota.set"))
        assert (await stores[0].get_quotas(["key_1"]))["key_1"].amounts == {QuotaName.CPU: None}

    async def test_a_key_and_its_quotas_are_one_change(self, stores: tuple[Records, Records]) -> None:
        records, bound = stores[0], {QuotaName.SANDBOXES: 1}
        parent, child = key(), key()
        child = replace(child, parent=parent.id, owner=parent.id)
        await records.add_key(parent, event(parent.id, "key.created"), most=1, quotas=bound)
        await records.add_child_key(child, event(child.id, "key.created"), siblings_max=1, quotas=bound)
        for one in (parent, child):
            assert (await records.get_quotas([one.id]))[one.id].amounts == bound
            [told] = await records.list_events(target=one.id)
            assert told.detail["quotas"] == {"concurrent_sandboxes": 1}
        # what is refused leaves nothing
        late = replace(key(), parent=parent.id, owner=parent.id)
        with pytest.raises(QuotaExceeded):
            await records.add_child_key(late, event(late.id, "key.created"), siblings_max=1, quotas=bound)
        wider = QuotaChange(child.id, {QuotaName.SANDBOXES: 9})
        with pytest.raises(StaleVersion):
            await records.swap_key(replace(child, version=7), event(child.id, "key.changed"), quotas=wider)
        assert await records.get_quotas([late.id, child.id]) == {child.id: OverridesOf(child.id, bound)}
        await records.swap_key(replace(child, name="other"), event(child.id, "key.changed"), quotas=wider)
        assert (await records.get_quotas([child.id]))[child.id].amounts == wider.amounts
        told = (await records.list_events(target=child.id))[-1]
        assert told.detail["quotas"] == {"concurrent_sandboxes": 9}

    async def test_with_a_swap_the_keys_that_it_made_may_end_each_with_its_event(
        self, stores: tuple[Records, Records]
    ) -> None:
        records, parent = stores[0], key()
        first, second, ended, below = (replace(key(), parent=parent.id) for _ in range(4))
        below = replace(below, parent=first.id)
        ended = replace(ended, revoked_at=T0)
        for one in (parent, first, second, ended, below):
            await records.add_key(one, event(one.id, "key.created"))
        end = replace(event("", "key.revoked"), at=T0 + timedelta(minutes=1))
        with pytest.raises(StaleVersion):
            await records.swap_key(replace(parent, version=7), event(parent.id, "key.rotated"), children_end=end)
        await records.swap_key(parent, event(parent.id, "key.rotated"), children_end=end)
        for one, events in ((first, 2), (second, 2), (ended, 1), (below, 1)):
            assert len(await records.list_events(target=one.id)) == events
        for one in (first, second):
            assert await stores[1].get_key(one.id) == replace(one, revoked_at=end.at, version=2)
        assert await stores[1].get_key(ended.id) == ended
        assert await stores[1].get_key(below.id) == below
        found = await stores[1].get_key(parent.id)
        assert found is not None and found.revoked_at is None

    async def test_an_owner_makes_so_many_keys_at_once_and_no_more(self, stores: tuple[Records, Records]) -> None:
        owner = "user_" + "7" * 24
        ended = replace(key(), owner=owner, expires_at=T0)
        childs = replace(key(), owner=owner, parent="key_1")
        for one in (ended, childs):
            await stores[0].add_key(one, event(one.id, "key.created"))
        many = [replace(key(), owner=owner) for _ in range(8)]
        outcomes = await together(
            *(stores[at % 2].add_key(one, event(one.id, "key.created"), most=3) for at, one in enumerate(many))
        )
        assert sorted(type(one).__name__ for one in outcomes) == ["NoneType"] * 3 + ["QuotaExceeded"] * 5
        assert len(await stores[0].list_keys(owner=owner)) == 3 + 2

    async def test_what_bounds_a_key_counts_what_comes_from_it(self, stores: tuple[Records, Records]) -> None:
        records = stores[0]
        first = replace(key(), owner="user_1")
        second = replace(key(), owner="user_1", parent=first.id)
        third = replace(key(), owner="user_1", parent=second.id)
        other = replace(key(), owner="user_1")
        for one in (first, second, third, other):
            await records.add_key(one, event(one.id, "key.created"))
        bound = Bound(first.id, by_credential=True, sandboxes=2)
        for one in (other, third, second):
            await records.add_sandbox(replace(sandbox("user_1"), credential=one.id), event(), bounds=[bound])
        with pytest.raises(QuotaExceeded):
            late = replace(sandbox("user_1"), credential=third.id)
            await records.add_sandbox(late, event(), bounds=[bound])
        assert (await records.sandbox_use(bound)).sandboxes == 2
        assert (await records.sandbox_use(Bound(third.id, by_credential=True))).sandboxes == 1
        # and what is measured afterwards
        one = next(each for each in await records.list_sandboxes(owner="user_1") if each.credential == third.id)
        used = [Spend(subject, QuotaName.CPU, 1000) for subject in ("user_1", third.id)]
        await records.swap_sandbox(one, event(), charges=used)
        spent = await records.spent(["user_1", first.id, second.id, third.id, other.id], datetime.now(UTC))
        assert spent == {(who, QuotaName.CPU): 1000 for who in ("user_1", first.id, second.id, third.id)}
