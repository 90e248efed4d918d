"""What every records store must do with events, chains and checkpoints, as tests; `RecordsConformance` says how."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from atoll.domain.checkpoint import AuditKey, Checkpoint, Head, next_checkpoint
from atoll.domain.errors import AtollError, Conflict
from atoll.domain.event import Event, EventQuery
from atoll.domain.event_chain import GENESIS, HASHED, Link, event_hash
from atoll.records.base import Records
from atoll.testing.records_conformance import T0, event, key, sandbox, together


def happened(n: int, **changes: object) -> Event:
    return replace(event(f"t{n}", tenant=f"key_{n % 2}"), at=T0 + timedelta(seconds=n), **changes)  # type: ignore[arg-type]


def unsigned(before: Checkpoint | None, heads: list[Head]) -> Checkpoint:
    return replace(next_checkpoint(before, "ak_1", T0, heads), signature=b"signed")


async def links(records: Records, tenant: str | None = None, page: int = 3) -> list[Link]:
    """All of them, in small pages."""
    found: list[Link] = []
    after: tuple[str, int] | None = None
    while some := await records.read_links(after, page, tenant):
        found += some
        after = (some[-1].tenant, some[-1].seq)
    return found


def check_chains(found: list[Link]) -> None:
    """Each tenant's from its first event on, without a gap, each with the hash of the one before and its own."""
    heads: dict[str, tuple[int, bytes]] = {}
    for link in found:
        seq, previous = heads.get(link.tenant, (0, GENESIS))
        assert (link.seq, link.previous) == (seq + 1, previous)
        assert event_hash(previous, [getattr(link, name) for name in HASHED]) == link.hash
        heads[link.tenant] = link.seq, link.hash
    for link in found:
        assert (link.head_seq, link.head_hash) == heads[link.tenant]


class AuditRecordsConformance:
    """Give `stores` as for `RecordsConformance`."""

    @pytest.fixture
    async def stores(self) -> tuple[Records, Records]:
        raise NotImplementedError("give a fixture `stores`")

    @pytest.fixture
    def records(self, stores: tuple[Records, Records]) -> Records:
        return stores[0]

    async def test_events_of_a_tenant_are_a_chain(self, records: Records) -> None:
        await records.add_events([happened(n, credential="key_9", address="10.0.0.1") for n in range(7)])
        await records.add_key(key(), event("k", tenant="key_1"))
        await records.add_events([event("é\0"[:1], tenant="key_ü")])
        found = await links(records)
        assert len(found) == 9
        check_chains(found)
        assert [link.seq for link in found if link.tenant == "key_1"] == [1, 2, 3, 4]
        assert await links(records, "key_1") == [link for link in found if link.tenant == "key_1"]
        assert {head.tenant: head.seq for head in await records.list_heads()} == {"key_0": 4, "key_1": 4, "key_ü": 1}
        assert [head.tenant for head in await records.list_heads({"key_1", "none"})] == ["key_1"]
        (stored,) = await records.find_events(EventQuery(targets={"t6"}))
        assert (stored.credential, stored.address, stored.seq) == ("key_9", "10.0.0.1", 4)

    async def test_a17_what_is_rolled_back_leaves_no_event_and_no_gap(self, records: Records) -> None:
        first = sandbox()
        await records.add_sandbox(first, event())
        for _ in range(3):
            with pytest.raises(Conflict):
                await records.add_sandbox(first, event())
        await records.add_sandbox(sandbox(), event())
        found = await links(records)
        assert [link.seq for link in found] == [1, 2]
        check_chains(found)

    async def test_a17_a_thousand_writes_at_once_are_chains(self, stores: tuple[Records, Records]) -> None:
        for _ in range(4):  # each wave within a statement's time, on a slow machine too
            await together(*(stores[n % 2].add_events([happened(n % 5)]) for n in range(250)))
        found = await links(stores[0], page=400)
        check_chains(found)
        assert [head.seq for head in await stores[1].list_heads()] == [600, 400]

    async def test_events_of_several_tenants_in_one_transaction_never_deadlock(
        self, stores: tuple[Records, Records]
    ) -> None:
        tenants = [f"key_{n}" for n in range(6)]
        rng = random.Random(4)
        batches = [[event(tenant=one) for one in rng.sample(tenants, 4)] for _ in range(60)]
        outcomes = await together(*(stores[n % 2].add_events(batch) for n, batch in enumerate(batches)))
        assert not [outcome for outcome in outcomes if isinstance(outcome, AtollError)]
        found = await links(stores[0], page=400)
        assert len(found) == 240
        check_chains(found)

    async def test_events_are_found_by_what_is_known_of_them(self, records: Records) -> None:
        for n in range(6):
            await records.add_events([happened(n, request_id=f"r{n}")])
        await records.add_events([happened(6, action="key.revoked", actor="cli", outcome="refused")])

        async def found(**wanted: object) -> list[str]:
            return [one.target for one in await records.find_events(EventQuery(**wanted))]  # type: ignore[arg-type]

        everything = [one.id or 0 for one in await records.find_events(EventQuery())]
        assert everything == sorted(everything)
        assert await found(tenants=("key_1",)) == ["t1", "t3", "t5"]
        assert await found(tenants=("key_1", "key_0"), targets={"t1", "t2"}) == ["t1", "t2"]
        assert await found(tenants=()) == await found(targets=()) == []
        assert await found(action="key.revoked") == await found(action="key.*") == ["t6"]
        assert await found(action="sandbox.*", limit=2) == ["t0", "t1"]
        assert await found(action="sandbox_created") == await found(action="s_ndbox.*") == []
        assert await found(actor="cli") == await found(outcome="refused") == ["t6"]
        assert await found(request_id="r3") == ["t3"]
        assert await found(since=T0 + timedelta(seconds=4), until=T0 + timedelta(seconds=6)) == ["t4", "t5"]
        assert await found(after_id=everything[4]) == ["t5", "t6"]
        assert await found(before_id=everything[2], newest_first=True) == ["t1", "t0"]

    async def test_a_chain_is_followed_from_any_place(self, records: Records) -> None:
        for n in range(6):
            await records.add_events([happened(n)])
        assert [one.target for one in await records.follow_events("key_1", 0, 10)] == ["t1", "t3", "t5"]
        assert [one.target for one in await records.follow_events("key_1", 1, 1)] == ["t3"]
        assert await records.follow_events("key_1", 3, 10) == await records.follow_events("none", 0, 10) == []
        ids = [one.id or 0 for one in await records.list_events()]
        assert (await records.positions(ids[3]))["key_1"] == 2
        assert (await records.positions(ids[3], ("key_1",))) == {"key_1": 2}
        assert await records.positions(0) == {}

    async def test_what_a_checkpoint_signs_is_known_by_its_event(self, records: Records) -> None:
        await records.add_events([happened(n) for n in range(3)])
        last, heads = await records.unsigned_heads()
        assert (last, {head.tenant: head.seq for head in heads}) == (None, {"key_0": 2, "key_1": 1})
        first = unsigned(None, heads)
        await records.add_checkpoint(first)
        assert await records.unsigned_heads() == (replace(first, heads=()), [])
        await records.add_events([happened(3)])
        last, heads = await records.unsigned_heads()
        assert [head.tenant for head in heads] == ["key_1"]
        second = unsigned(last, heads)
        await records.add_checkpoint(second)
        assert await records.list_checkpoints() == [first, second]
        assert await records.list_checkpoints(after=1) == [second]
        assert await records.list_checkpoints(limit=1) == [first]
        signed = {(link.tenant, link.seq): link.signed for link in await links(records)}
        assert [place for place, digest in signed.items() if digest is None] == [("key_0", 1)]
        assert await records.missing_events() == []

    async def test_of_two_checkpoints_at_once_one_is_stored(self, stores: tuple[Records, Records]) -> None:
        await stores[0].add_events([happened(0)])
        _, heads = await stores[0].unsigned_heads()
        one = unsigned(None, heads)
        outcomes = await together(*(store.add_checkpoint(one) for store in stores))
        assert sorted(isinstance(outcome, Conflict) for outcome in outcomes) == [False, True]
        assert await stores[1].list_checkpoints() == [one]

    async def test_the_first_key_for_checkpoints_is_made_once(self, stores: tuple[Records, Records]) -> None:
        mine = AuditKey("ak_1", b"public", "local", b"wrapped", T0)
        adds = (stores[n].add_audit_key(replace(mine, id=f"ak_{n}"), first=True, event=event()) for n in range(2))
        outcomes = await together(*adds)
        assert sorted(isinstance(outcome, Conflict) for outcome in outcomes) == [False, True]
        (stored,) = await stores[0].list_audit_keys()
        assert await stores[1].list_audit_keys() == [stored]
        later = replace(mine, id="ak_9", created_at=T0 + timedelta(days=1))
        await stores[0].add_audit_key(later, first=False, event=event())
        assert (await stores[0].list_audit_keys())[-1] == later
