"""What every records store must do with previews, as tests: subclass as `RecordsConformance`, with its `stores`.

Each test holds one sentence of the contract in `atoll.records.previews`; the last one races.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.ids import new_sandbox_id
from atoll.domain.preview import Preview
from atoll.records.base import Records
from atoll.testing.records_conformance import T0, event, sandbox, together


def preview(sandbox_id: str = "", port: int = 3000, *, owner: str = "key_owner", age_s: float = 0) -> Preview:
    made_at = T0 - timedelta(seconds=age_s)
    return Preview(sandbox_id or new_sandbox_id(), port, owner, "0" * 16, made_at, metadata={"framework": "vite"})


async def added(records: Records, one: Preview, *, quota: int = 100) -> Preview:
    await records.add_preview(one, event(one.id, "preview.registered"), quota=quota)
    return one


class PreviewRecordsConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    async def test_a_preview_is_returned_as_it_was_stored(self, stores: tuple[Records, Records]) -> None:
        one = await added(stores[0], replace(preview(), public=True, health_path="/up", fallback_sandbox_id="sess_1"))
        assert await stores[1].get_preview(one.id) == one
        assert await stores[1].get_preview("sess_0:1") is None
        assert [told.action for told in await stores[1].list_events(target=one.id)] == ["preview.registered"]

    async def test_previews_are_listed_by_id_and_in_pages_of_the_owners_asked_for(
        self, stores: tuple[Records, Records]
    ) -> None:
        first, second = sorted([await added(stores[0], preview()) for _ in range(2)], key=lambda one: one.id)
        other = await added(stores[0], preview(owner="key_other"))
        assert await stores[1].list_previews(["key_owner"]) == [first, second]
        assert await stores[1].list_previews(["key_owner"], limit=1) == [first]
        assert await stores[1].list_previews(["key_owner"], after=first.id) == [second]
        assert await stores[1].list_previews(["key_owner"], after=second.id) == []
        assert await stores[1].list_previews([]) == []
        both = ["key_owner", "key_other"]
        assert await stores[1].list_previews(both, within=[second.sandbox_id, "key_other"]) == sorted(
            [second, other], key=lambda one: one.id
        )
        assert await stores[1].list_previews(["key_owner"], within=["key_other"]) == []

    async def test_a_port_has_one_preview(self, stores: tuple[Records, Records]) -> None:
        one = await added(stores[0], preview())
        with pytest.raises(Conflict):
            await added(stores[1], replace(one, public=True))
        assert await stores[0].get_preview(one.id) == one

    async def test_a_change_needs_the_version_that_was_read(self, stores: tuple[Records, Records]) -> None:
        one = await added(stores[0], preview())
        after = await stores[0].swap_preview(replace(one, use_fallback=True), event(one.id, "preview.promoted"))
        assert after == replace(one, use_fallback=True, version=2)
        with pytest.raises(StaleVersion):
            await stores[1].swap_preview(replace(one, public=True), event(one.id, "preview.changed"))
        with pytest.raises(NotFound):
            await stores[1].swap_preview(preview(), event(one.id, "preview.changed"))
        assert await stores[1].get_preview(one.id) == after

    async def test_a_deleted_preview_is_gone_once(self, stores: tuple[Records, Records]) -> None:
        one, other = await added(stores[0], preview()), await added(stores[0], preview())
        await stores[0].delete_preview(one.id, event(one.id, "preview.removed"))
        with pytest.raises(NotFound):
            await stores[1].delete_preview(one.id, event(one.id, "preview.removed"))
        assert await stores[1].list_previews(["key_owner"]) == [other]

    async def test_previews_of_sandboxes_that_are_gone_are_pruned(self, stores: tuple[Records, Records]) -> None:
        there, removed = sandbox(), sandbox()
        for one in (there, removed):
            await stores[0].add_sandbox(one, event(one.id))
        kept = await added(stores[0], preview(there.id))
        await added(stores[0], preview(removed.id))
        await added(stores[0], preview())
        await stores[0].swap_sandbox(replace(removed, removed=True), event(removed.id))
        assert await stores[1].prune_previews() == 2
        assert await stores[1].list_previews(["key_owner"]) == [kept]

    async def test_as_many_are_added_as_the_quota_says(self, stores: tuple[Records, Records]) -> None:
        done = await together(*(added(stores[number % 2], preview(), quota=3) for number in range(8)))
        assert sum(isinstance(one, Preview) for one in done) == 3
        assert all(isinstance(one, Preview | QuotaExceeded) for one in done)
        assert len(await stores[0].list_previews(["key_owner"])) == 3
