"""What every records store must do with the marketplace's workers, as tests; `RecordsConformance` says how."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.worker import Worker, WorkerQuery
from atoll.records.base import Records
from atoll.testing.records_conformance import T0, event, together

SOON = T0 + timedelta(seconds=60)
ALICE, BOB = "key_0000000000a1", "key_0000000000b0"
ALL = WorkerQuery(BOB)


def worker(name: str = "summarise", author: str = ALICE, **changes: object) -> Worker:
    made = Worker(new_id("wkr"), author, name, "", "Sums a text up", T0, T0, command=("wc", "-w"))
    return replace(made, **changes)  # type: ignore[arg-type]


async def published(records: Records, one: Worker) -> Worker:
    return await records.publish_worker(one, told(one), quota=10, versions=3)


def told(one: Worker, action: str = "worker.published") -> Event:
    return event(one.id, action, one.author)


class WorkersConformance:
    """Give `stores` as for `RecordsConformance`."""

    @pytest.fixture
    async def stores(self) -> tuple[Records, Records]:
        raise NotImplementedError("give a fixture `stores`")

    @pytest.fixture
    def records(self, stores: tuple[Records, Records]) -> Records:
        return stores[0]

    async def test_a_worker_is_returned_as_it_was_published(self, records: Records) -> None:
        full = worker(tags=("a", "b c"), endpoint_url="https://example.com/é", template="py", public=False)
        full = replace(full, pricing={"per_run": 0.25, "note": "é"}, price_micro_usd=250_000)
        made = await published(records, full)
        assert made == replace(full, version="1.0.0")
        assert await records.get_worker(made.id) == made
        assert await records.get_worker(made.id, "1.0.0") == made
        assert await records.get_worker(made.id, "2.0.0") is None
        assert await records.get_worker("none") is None
        assert await records.worker_versions("none") == []
        assert [one.action for one in await records.list_events(target=made.id)] == ["worker.published"]

    async def test_the_same_name_again_is_the_next_version_of_the_same_worker(self, records: Records) -> None:
        first = await published(records, worker())
        again = worker(updated_at=SOON, created_at=SOON, description="Better", command=("cat",))
        second = await published(records, again)
        assert (second.id, second.version, second.created_at) == (first.id, "1.0.1", T0)
        assert await records.get_worker(first.id) == second
        assert await records.get_worker(first.id, "1.0.0") == first
        assert await records.worker_versions(first.id) == [second, first]
        [event_] = (await records.list_events(target=first.id))[1:]
        assert event_.detail["version"] == "1.0.1"
        with pytest.raises(Conflict, match=r"above 1\.0\.1"):
            await published(records, replace(again, version="1.0.1"))
        assert (await published(records, replace(again, version="2.0.0-rc.1"))).version == "2.0.0-rc.1"
        with pytest.raises(QuotaExceeded, match=r"version limit reached \(3/3\)"):
            await published(records, again)
        assert (await published(records, worker(author=BOB))).id != first.id

    async def test_of_many_who_publish_one_name_at_once_each_makes_a_version(
        self, stores: tuple[Records, Records]
    ) -> None:
        made = await together(*(published(stores[n % 2], worker()) for n in range(3)))
        assert {one.id for one in made if isinstance(one, Worker)} == {made[0].id}  # type: ignore[union-attr]
        versions = await stores[0].worker_versions(made[0].id)  # type: ignore[union-attr]
        assert [one.version for one in versions] == ["1.0.2", "1.0.1", "1.0.0"]

    async def test_an_author_has_so_many_and_no_more(self, stores: tuple[Records, Records]) -> None:
        adds = [
            stores[n % 2].publish_worker(one, told(one), quota=2, versions=9)
            for n, one in enumerate(worker(f"w{n}") for n in range(5))
        ]
        assert sum(isinstance(one, QuotaExceeded) for one in await together(*adds)) == 3
        assert len(await stores[0].search_workers(ALL)) == 2

    async def test_a_search_finds_what_costs_no_more_than_that(self, records: Records) -> None:
        free, dear = [await published(records, worker(name, price_micro_usd=n)) for name, n in (("a", 0), ("b", 5))]
        for most, ids in ((0, {free.id}), (4, {free.id}), (5, {free.id, dear.id}), (None, {free.id, dear.id})):
            query = replace(ALL, price_max_micro_usd=most)
            assert {each.id for each in await records.search_workers(query)} == ids, most

    async def test_a_search_finds_text_in_any_case_and_any_of_the_tags(self, records: Records) -> None:
        one = await published(records, worker("Alpha", description="50% of É_x", tags=("text", "a b")))
        two = await published(records, worker("beta", created_at=SOON, tags=("b",)))
        hidden = await published(records, worker("hidden", public=False))

        async def found(**query: object) -> list[str]:
            return [each.id for each in await records.search_workers(replace(ALL, **query))]  # type: ignore[arg-type]

        assert await found() == [two.id, one.id]
        assert await found(text="ALPHA") == await found(text="% of é_X") == await found(tags=("text", "x")) == [one.id]
        assert await found(tags=("b", "a b")) == [two.id, one.id]
        assert await found(text="5_%") == await found(tags=("a",)) == await found(tags=("%",)) == []
        assert await found(author=BOB) == [] and len(await found(author=ALICE)) == 2
        assert hidden.id in await found(seer=ALICE)
        assert [each.id for each in await records.search_workers(ALL, limit=1, offset=1)] == [one.id]

    async def test_installs_count_principals_and_put_first_who_has_most(self, stores: tuple[Records, Records]) -> None:
        records = stores[0]
        one, _ = await published(records, worker()), await published(records, worker("newer", created_at=SOON))
        installed = told(one, "worker.installed")
        done = await together(*(stores[n % 2].install_worker(one, f"p{n % 3}", T0, installed) for n in range(6)))
        assert not [each for each in done if isinstance(each, BaseException)]
        found = await records.get_worker(one.id)
        assert found is not None and found.installs == 3
        assert len(await records.list_events(target=one.id)) == 1 + 3
        assert (await records.search_workers(ALL))[0] == found
        assert (await published(records, worker())).installs == 3  # the next version keeps them

    async def test_who_installed_or_ran_it_rates_it_once(self, stores: tuple[Records, Records]) -> None:
        records = stores[0]
        one = await published(records, worker())
        with pytest.raises(Conflict, match="installed or run"):
            await records.rate_worker(one, BOB, 5, told(one, "worker.rated"))
        assert await records.worker_use(one.id, BOB) is None
        await records.note_worker_run(one, BOB, SOON, told(one, "worker.ran"))
        await records.install_worker(one, "p", T0, told(one))
        use = await records.worker_use(one.id, BOB)
        assert use is not None and (use.ran_at, use.installed_at, use.stars) == (SOON, None, None)
        for stars in (1, 2, 4):
            await records.rate_worker(one, BOB, stars, told(one, "worker.rated"))
        rated = await records.rate_worker(one, "p", 5, told(one, "worker.rated"))
        assert (rated.ratings, rated.stars, rated.rating) == (2, 9, 4.5)
        assert await records.get_worker(one.id) == rated

    async def test_what_is_unpublished_is_gone_with_all_of_it(self, records: Records) -> None:
        one = await published(records, worker())
        await records.install_worker(one, BOB, T0, told(one))
        assert await records.delete_worker(one, told(one, "worker.unpublished"))
        assert not await records.delete_worker(one, told(one, "worker.unpublished"))
        assert await records.get_worker(one.id) is None and await records.worker_versions(one.id) == []
        assert await records.worker_use(one.id, BOB) is None
        for change in (
            records.install_worker(one, BOB, T0, told(one)),
            records.note_worker_run(one, BOB, T0, told(one)),
            records.rate_worker(one, BOB, 3, told(one)),
        ):
            with pytest.raises(NotFound):
                await change
        assert (await published(records, worker())).version == "1.0.0"
