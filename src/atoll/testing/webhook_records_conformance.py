"""What every records store must do with webhooks, as tests; `RecordsConformance` says how."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from atoll.domain.errors import NotFound, QuotaExceeded, StaleVersion
from atoll.domain.ids import new_id
from atoll.domain.webhook import Webhook
from atoll.records.base import Records
from atoll.testing.records_conformance import T0, event, together

SOON = T0 + timedelta(seconds=60)


def webhook(owner: str = "key_0", **changes: object) -> Webhook:
    made = Webhook(new_id("hook"), owner, "https://example.com/", ("*",), T0, vault="memory", secret=b"wrapped")
    return replace(made, **changes)  # type: ignore[arg-type]


async def added(records: Records, *some: Webhook) -> list[Webhook]:
    for one in some:
        await records.add_webhook(one, event(one.id, "webhook.created", one.owner), quota=10)
    return list(some)


class WebhookRecordsConformance:
    """Give `stores` as for `RecordsConformance`."""

    @pytest.fixture
    async def stores(self) -> tuple[Records, Records]:
        raise NotImplementedError("give a fixture `stores`")

    @pytest.fixture
    def records(self, stores: tuple[Records, Records]) -> Records:
        return stores[0]

    async def test_a_webhook_is_returned_as_it_was_stored(self, records: Records) -> None:
        full = webhook(actions=("a.b", "c.*"), description="é", everyone=True, disabled_at=T0, disabled_why="w")
        full = replace(full, maker="user_0", credential="key_9")
        (other,) = await added(records, replace(webhook("key_1"), created_at=SOON))
        await added(records, full)
        assert await records.get_webhook(full.id) == full
        assert await records.list_webhooks(("key_0", "key_1")) == [full, other]
        assert await records.list_webhooks(("key_1",)) == [other]
        assert await records.list_webhooks(()) == []
        assert await records.get_webhook("none") is None
        assert await records.delete_webhook(full, event(full.id))
        assert not await records.delete_webhook(full, event("again"))
        assert await records.get_webhook(full.id) is None
        assert [one.action for one in await records.list_events(target="again")] == []

    async def test_an_owner_has_so_many_and_no_more(self, stores: tuple[Records, Records]) -> None:
        adds = (stores[n % 2].add_webhook(webhook(), event(), quota=3) for n in range(8))
        outcomes = await together(*adds)
        assert sum(isinstance(outcome, QuotaExceeded) for outcome in outcomes) == 5
        assert len(await stores[0].list_webhooks(("key_0",))) == 3

    async def test_a_change_of_an_old_version_or_of_nothing_is_refused(self, records: Records) -> None:
        (first,) = await added(records, webhook())
        swapped = await records.swap_webhook(replace(first, url="https://example.net/"), event(first.id))
        assert (swapped.url, swapped.version) == ("https://example.net/", 1)
        assert await records.get_webhook(first.id) == swapped
        with pytest.raises(StaleVersion):
            await records.swap_webhook(first, event("stale"))
        with pytest.raises(NotFound):
            await records.swap_webhook(webhook(), event("stale"))
        assert await records.list_events(target="stale") == []

    async def test_it_is_told_of_what_happens_from_then_on(self, records: Records) -> None:
        await records.add_events([event() for _ in range(3)])
        mine, everyone = await added(records, webhook(), webhook(everyone=True))
        assert await records.webhook_places(mine) == {"key_0": 3}
        assert await records.webhook_places(everyone) == {"key_0": 4}
        await records.add_events([event(tenant="key_1")])
        assert await records.webhook_places(mine) == {"key_0": 3}
        assert await records.webhook_places(everyone) == {"key_0": 4, "key_1": 0}

    async def test_of_several_servers_one_delivers(self, stores: tuple[Records, Records]) -> None:
        one, two = stores
        (mine,) = await added(one, webhook())
        found = await together(*(store.lease_webhooks(f"h{n}", T0, SOON, 5, each=5) for n, store in enumerate(stores)))
        assert sorted(len(some) for some in found) == [0, 1]
        holder = "h0" if found[0] else "h1"
        other = "h1" if found[0] else "h0"
        assert not await two.move_webhook(mine.id, other, "key_0", 1, SOON, T0)
        assert await two.move_webhook(mine.id, holder, "key_0", 1, SOON, T0)
        stored = await one.get_webhook(mine.id)
        assert stored is not None
        assert stored.delivered_at == T0
        assert await one.webhook_places(mine) == {}
        await one.release_webhook(mine.id, other)
        await one.add_events([event()])
        assert await one.lease_webhooks("h2", T0, SOON, 5, each=5) == []
        await one.release_webhook(mine.id, holder)
        assert [held.id for held in await one.lease_webhooks("h2", T0, SOON, 5, each=5)] == [mine.id]

    async def test_a_lease_that_ran_out_is_anybodys(self, records: Records) -> None:
        await added(records, webhook())
        assert len(await records.lease_webhooks("h0", T0, SOON, 5, each=5)) == 1
        later = SOON + timedelta(seconds=1)
        assert len(await records.lease_webhooks("h1", later, later, 5, each=5)) == 1
        assert await records.lease_webhooks("h1", later, later, 0, each=5) == []

    async def test_makers_take_turns_and_none_holds_more_than_so_many(self, stores: tuple[Records, Records]) -> None:
        records = stores[0]
        many = [replace(webhook("key_0"), created_at=T0 + timedelta(seconds=n)) for n in range(4)]
        of_group = replace(webhook("key_2", maker="key_0"), created_at=T0 - timedelta(seconds=1))
        late = replace(webhook("key_1"), created_at=T0 + timedelta(seconds=30))
        await added(records, *many, of_group, late)
        now = T0 + timedelta(seconds=40)
        until = now + timedelta(seconds=60)

        async def leased(limit: int) -> list[str]:
            return [one.id for one in await records.lease_webhooks("h0", now, until, limit, each=2)]

        assert await leased(2) == [of_group.id, late.id]
        assert await leased(8) == [many[0].id]
        assert await leased(8) == []
        await records.release_webhook(of_group.id, "h0")
        assert await leased(8) == [many[1].id]  # not the same one again: others have waited longer
        other = await stores[1].lease_webhooks("h1", now, until, 8, each=2)
        assert [one.id for one in other] == [many[2].id, many[3].id]  # of another server's places

    async def test_after_a_failure_there_is_a_pause_and_a_success_ends_it(self, records: Records) -> None:
        (mine,) = await added(records, webhook())
        await records.lease_webhooks("h0", T0, SOON, 5, each=5)
        await records.fail_webhook(mine.id, "no", failures=9, since=T0, next_at=SOON, error="no")
        await records.fail_webhook(mine.id, "h0", failures=2, since=T0, next_at=SOON, error="it answered 500")
        stored = await records.get_webhook(mine.id)
        assert stored is not None
        assert (stored.failures, stored.failing_since, stored.next_at) == (2, T0, SOON)
        assert await records.lease_webhooks("h0", SOON - timedelta(seconds=1), SOON, 5, each=5) == []
        assert await records.lease_webhooks("h0", SOON, SOON, 5, each=5) == [stored]
        assert await records.move_webhook(mine.id, "h0", "key_0", 1, SOON, SOON)
        stored = await records.get_webhook(mine.id)
        assert stored is not None
        assert (stored.failures, stored.failing_since, stored.next_at, stored.last_error) == (0, None, None, None)

    async def test_one_that_is_disabled_is_not_called_and_begins_anew_when_it_is_enabled(
        self, records: Records
    ) -> None:
        (mine,) = await added(records, webhook())
        await records.lease_webhooks("h0", T0, SOON, 5, each=5)
        await records.fail_webhook(mine.id, "h0", failures=2, since=T0, next_at=SOON, error="e")
        off = await records.swap_webhook(replace(mine, disabled_at=T0, disabled_why="w"), event())
        assert await records.lease_webhooks("h0", SOON, SOON, 5, each=5) == []
        on = await records.swap_webhook(replace(off, disabled_at=None, disabled_why=None), event())
        assert (on.failures, on.failing_since, on.next_at, on.last_error) == (0, None, None, None)
        assert [one.id for one in await records.lease_webhooks("h0", T0, SOON, 5, each=5)] == [mine.id]
