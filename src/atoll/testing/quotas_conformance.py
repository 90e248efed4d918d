"""What every records store must do with quotas and with requests that have one effect, as tests; see
`records_conformance` for how a store gives them its fixture `stores`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atoll.domain.errors import AtollError, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.idempotency import IdempotentRequest
from atoll.domain.ids import new_sandbox_id
from atoll.domain.quota import Bound, OverridesOf, QuotaName, QuotaUse, SandboxUse, Spend
from atoll.domain.sandbox import Resources, Sandbox, SandboxSpec, SandboxState, Usage
from atoll.records.base import Records

T0 = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
MIB = 2**20
Stores = tuple[Records, Records]


def sandbox(owner: str = "key_0", *, memory_mib: int = 512, **fields: Any) -> Sandbox:
    spec = SandboxSpec(resources=Resources(memory_bytes=memory_mib * MIB))
    return replace(Sandbox(new_sandbox_id(), owner, spec, "local", T0), **fields)


def event(action: str = "sandbox.created", tenant: str = "key_0") -> Event:
    return Event(action, "t", tenant, actor=tenant, at=T0)


def run(subject: str = "sess_1", amount: int = 1, limit: int | None = 10) -> Spend:
    return Spend(subject, QuotaName.EXECUTIONS, amount, limit)


def request(key: str = "k", *, server: str = "s1", at: datetime = T0, who: str = "key_0") -> IdempotentRequest:
    return IdempotentRequest(who, key, "f" * 64, server, at)


class QuotaRecordsConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    @pytest.fixture
    async def stores(self) -> Stores:
        raise NotImplementedError("give a fixture `stores`")

    @pytest.fixture
    def records(self, stores: Stores) -> Records:
        return stores[0]

    # bounds

    async def test_each_bound_refuses_what_would_pass_it_and_leaves_nothing(self, records: Records) -> None:
        full = (
            (Bound("key_0", sandboxes=2), QuotaName.SANDBOXES, 2, 2),
            (Bound("key_0", memory_bytes=1500 * MIB), QuotaName.MEMORY, 1024 * MIB, 1500 * MIB),
            (Bound("key_0", made=2, since=T0), QuotaName.DAILY, 2, 2),
        )
        for _ in range(2):
            await records.add_sandbox(sandbox(), event())
        for bound, name, used, limit in full:
            refused = sandbox(memory_mib=600)
            with pytest.raises(QuotaExceeded) as raised:
                await records.add_sandbox(refused, event(), bounds=[bound])
            error = raised.value
            assert (error.quota, error.subject, error.used, error.limit) == (name, "key_0", used, limit)
            assert await records.get_sandbox(refused.id) is None
        assert len(await records.list_events()) == 2

    async def test_what_fits_is_added_and_says_what_is_used_then(self, records: Records) -> None:
        await records.add_sandbox(sandbox(), event())
        bound = Bound("key_0", sandboxes=2, memory_bytes=1024 * MIB, made=2, since=T0)
        assert await records.add_sandbox(sandbox(), event(), bounds=[bound]) == [
            QuotaUse(QuotaName.DAILY, "key_0", 2, 2),
            QuotaUse(QuotaName.SANDBOXES, "key_0", 2, 2),
            QuotaUse(QuotaName.MEMORY, "key_0", 1024 * MIB, 1024 * MIB),
        ]

    async def test_a_day_s_number_counts_those_that_were_made_and_ended_but_not_those_that_never_were(
        self, records: Records
    ) -> None:
        await records.add_sandbox(sandbox(state=SandboxState.STOPPED, started_at=T0, ended_at=T0), event())
        await records.add_sandbox(sandbox(state=SandboxState.FAILED, ended_at=T0), event())
        await records.add_sandbox(sandbox(created_at=T0 - timedelta(days=1)), event())
        bound = Bound("key_0", since=T0.replace(hour=0))
        assert await records.sandbox_use(bound) == SandboxUse(1, 512 * MIB, 1)

    async def test_a_credential_s_bound_counts_what_it_made_whoever_owns_it(self, records: Records) -> None:
        await records.add_sandbox(sandbox("user_1", credential="key_1"), event())
        await records.add_sandbox(sandbox("user_2", credential="key_1"), event())
        await records.add_sandbox(sandbox("user_1", credential="key_2"), event())
        await records.add_sandbox(sandbox("user_1"), event())
        mine = Bound("key_1", by_credential=True, since=T0)
        assert await records.sandbox_use(mine) == SandboxUse(2, 1024 * MIB, 2)
        with pytest.raises(QuotaExceeded):
            bounds = [Bound("user_1", sandboxes=9), replace(mine, sandboxes=2)]
            await records.add_sandbox(sandbox("user_1", credential="key_1"), event(), bounds=bounds)
        stored = await records.list_sandboxes(owner="user_2")
        assert [one.credential for one in stored] == ["key_1"]

    async def test_one_that_becomes_live_again_must_fit_but_is_not_made_anew(self, records: Records) -> None:
        resting = sandbox(state=SandboxState.SUSPENDED, started_at=T0)
        await records.add_sandbox(resting, event())
        await records.add_sandbox(sandbox(), event())
        awake = resting.to(SandboxState.RESUMING)
        with pytest.raises(QuotaExceeded):
            await records.swap_sandbox(awake, event(), bounds=[Bound("key_0", sandboxes=1)])
        assert await records.get_sandbox(resting.id) == resting
        stored = await records.swap_sandbox(awake, event(), bounds=[Bound("key_0", sandboxes=2, made=1, since=T0)])
        assert stored.state is SandboxState.RESUMING

    # counters

    async def test_spends_add_up_in_a_rolling_hour(self, records: Records) -> None:
        assert await records.spend([run(limit=3)], T0) == [QuotaUse(QuotaName.EXECUTIONS, "sess_1", 1, 3)]
        await records.spend([run(limit=3)], T0 + timedelta(minutes=30))
        await records.spend([run(limit=3)], T0 + timedelta(minutes=59))
        with pytest.raises(QuotaExceeded) as raised:
            await records.spend([run(limit=3)], T0 + timedelta(minutes=60))
        assert (raised.value.used, raised.value.limit) == (3, 3)
        wait_s = raised.value.retry_after_s
        assert wait_s is not None
        again = T0 + timedelta(minutes=60, seconds=wait_s)
        assert await records.spend([run(limit=3)], again) == [QuotaUse(QuotaName.EXECUTIONS, "sess_1", 3, 3)]
        with pytest.raises(QuotaExceeded):
            await records.spend([run(limit=3)], again)

    async def test_in_no_hour_are_there_more_than_the_limit(self, records: Records) -> None:
        dice, granted = random.Random(7), list[datetime]()
        now = T0
        for _ in range(200):
            now += timedelta(seconds=dice.randrange(1, 240))
            try:
                await records.spend([run(limit=5)], now)
            except QuotaExceeded:
                continue
            granted.append(now)
        for first in granted:
            assert sum(first <= one < first + timedelta(hours=1) for one in granted) <= 5
        assert len(granted) > 20

    async def test_spends_are_counted_all_or_none(self, records: Records) -> None:
        await records.spend([run("sess_2", limit=1)], T0)
        with pytest.raises(QuotaExceeded):
            await records.spend([run("sess_1"), run("sess_2", limit=1)], T0)
        assert await records.spent(["sess_1", "sess_2"], T0) == {("sess_2", QuotaName.EXECUTIONS): 1}

    async def test_asking_for_nothing_is_refused_once_it_is_all_used(self, records: Records) -> None:
        ask = Spend("key_0", QuotaName.CPU, 0, 2)
        await records.spend([Spend("key_0", QuotaName.CPU, 1999)], T0)
        assert await records.spend([ask], T0) == [QuotaUse(QuotaName.CPU, "key_0", 2, 2)]
        await records.spend([Spend("key_0", QuotaName.CPU, 1)], T0)
        with pytest.raises(QuotaExceeded):
            await records.spend([ask], T0)

    async def test_old_counters_are_pruned_and_no_others(self, records: Records) -> None:
        for minutes in (0, 10, 59):
            await records.spend([run()], T0 + timedelta(minutes=minutes))
        later = T0 + timedelta(minutes=65)
        before = await records.spent(["sess_1"], later)
        assert await records.prune_spent(later) == 1
        assert await records.spent(["sess_1"], later) == before == {("sess_1", QuotaName.EXECUTIONS): 2}

    async def test_a_swap_counts_what_was_used_in_the_same_step(self, records: Records) -> None:
        first = sandbox()
        await records.add_sandbox(first, event())
        used = replace(first, usage=Usage(cpu_s=1.5))
        charges = [Spend("key_0", QuotaName.CPU, 1500), Spend("key_0", QuotaName.EGRESS, 9)]
        await records.swap_sandbox(used, None, charges=charges)
        with pytest.raises(StaleVersion):
            await records.swap_sandbox(used, None, charges=charges)
        assert await records.spent(["key_0"], datetime.now(UTC)) == {
            ("key_0", QuotaName.CPU): 1500,
            ("key_0", QuotaName.EGRESS): 9,
        }

    # overrides

    async def test_overrides_are_set_as_a_whole_and_taken_away(self, records: Records) -> None:
        assert await records.get_quotas(["user_1"]) == {}
        wanted = OverridesOf("user_1", {QuotaName.SANDBOXES: 3, QuotaName.MEMORY: None, QuotaName.STORED: 2**50})
        await records.put_quotas(wanted, event("quota.changed"))
        await records.put_quotas(OverridesOf("key_1", {QuotaName.CPU: 0}), event("quota.changed"))
        found = await records.get_quotas(["user_1", "nobody"])
        assert {name: dict(one.amounts) for name, one in found.items()} == {"user_1": dict(wanted.amounts)}
        await records.put_quotas(OverridesOf("user_1", {QuotaName.MEMORY: 7}), event("quota.changed"))
        assert dict((await records.get_quotas(["user_1"]))["user_1"].amounts) == {QuotaName.MEMORY: 7}
        assert [one.subject for one in await records.list_quotas()] == ["key_1", "user_1"]
        await records.put_quotas(OverridesOf("user_1"), event("quota.cleared"))
        assert [one.subject for one in await records.list_quotas()] == ["key_1"]
        assert [one.action for one in await records.list_events()] == ["quota.changed"] * 3 + ["quota.cleared"]

    async def test_an_event_of_its_own_is_stored(self, records: Records) -> None:
        await records.add_event(event("quota.warning"))
        assert [one.action for one in await records.list_events()] == ["quota.warning"]

    # requests that have one effect

    async def test_a_request_is_remembered_with_its_answer(self, records: Records) -> None:
        first = request()
        assert await records.begin_request(first, forgotten=T0) is None
        assert await records.begin_request(request(server="s2"), forgotten=T0) == first
        await records.answer_request(replace(first, answer=b"\0answer"))
        assert await records.begin_request(request(server="s2"), forgotten=T0) == replace(first, answer=b"\0answer")
        assert await records.begin_request(request(who="key_1"), forgotten=T0) is None

    async def test_only_who_began_a_request_answers_or_forgets_it_and_only_while_it_has_no_answer(
        self, records: Records
    ) -> None:
        first = request()
        await records.begin_request(first, forgotten=T0)
        await records.answer_request(replace(first, server="s2", answer=b"x"))
        await records.forget_request(replace(first, server="s2"))
        assert await records.begin_request(first, forgotten=T0) == first
        await records.forget_request(first)
        assert await records.begin_request(first, forgotten=T0) is None
        await records.answer_request(replace(first, answer=b"y"))
        await records.forget_request(first)
        known = await records.begin_request(first, forgotten=T0)
        assert known is not None
        assert known.answer == b"y"

    async def test_old_requests_are_forgotten_when_asked_for_and_when_pruned(self, records: Records) -> None:
        await records.begin_request(request(), forgotten=T0)
        later = T0 + timedelta(hours=25)
        assert await records.begin_request(request(at=later), forgotten=T0 + timedelta(hours=1)) is None
        assert await records.begin_request(request(at=later), forgotten=T0 + timedelta(hours=1)) == request(at=later)
        await records.begin_request(request("other"), forgotten=T0)
        assert await records.prune_requests(T0 + timedelta(hours=1)) == 1
        assert await records.prune_requests(T0 + timedelta(hours=1)) == 0

    async def test_a_key_that_keys_made_adds_no_room_for_answers(self, records: Records) -> None:
        async def kept(key: str, who: str, owner: str, size: int) -> int | None:
            one = replace(request(key, who=who), owner=owner)
            assert await records.begin_request(one, forgotten=T0) is None
            await records.answer_request(replace(one, answer=bytes(size)), bytes_max=20_000)
            known = await records.begin_request(one, forgotten=T0)
            return None if known is None or known.answer is None else len(known.answer)

        assert await kept("k", "key_0", "key_0", 10_000) == 10_000
        assert await kept("k", "key_1", "key_0", 10_000) == 10_000
        assert await kept("k", "key_2", "key_0", 5_000) == 0
        assert await kept("small", "key_2", "key_0", 4_096) == 4_096
        assert await kept("k", "key_3", "key_3", 5_000) == 5_000
        assert await records.prune_requests(T0 + timedelta(seconds=1)) == 5
        assert await kept("k", "key_2", "key_0", 5_000) == 5_000

    async def test_of_each_owner_the_newest_requests_are_kept(self, records: Records) -> None:
        for n in range(5):
            one = request(f"k{n}", at=T0 + timedelta(seconds=n), who="key_0" if n < 3 else "key_9")
            await records.begin_request(replace(one, owner="key_0"), forgotten=T0)
        await records.begin_request(request("k0", who="key_1"), forgotten=T0)
        assert await records.prune_requests(T0, kept=3) == 2
        assert await records.prune_requests(T0, kept=3) == 0
        assert await records.begin_request(request("k0"), forgotten=T0) is None
        assert await records.begin_request(request("k2"), forgotten=T0) is not None
        assert await records.begin_request(request("k0", who="key_1"), forgotten=T0) is not None

    # races

    async def test_b08_concurrent_creates_at_each_bound_make_exactly_what_fits(self, stores: Stores) -> None:
        bounds = (
            Bound("key_a", sandboxes=6),
            Bound("key_b", memory_bytes=6 * 512 * MIB),
            Bound("key_c", made=6, since=T0),
        )
        adds = [
            stores[n % 2].add_sandbox(sandbox(bound.subject), event(), bounds=[bound])
            for n in range(16)
            for bound in bounds
        ]
        outcomes = await together(adds)
        assert sum(isinstance(outcome, QuotaExceeded) for outcome in outcomes) == 3 * 10
        for bound in bounds:
            assert (await stores[0].sandbox_use(replace(bound, since=T0))).sandboxes == 6

    async def test_b08_concurrent_spends_at_a_limit_count_exactly_the_limit(self, stores: Stores) -> None:
        spends = [stores[n % 2].spend([run(limit=20), run("sess_2", limit=35)], T0) for n in range(50)]
        outcomes = await together(spends)
        assert sum(isinstance(outcome, QuotaExceeded) for outcome in outcomes) == 30
        assert set((await stores[1].spent(["sess_1", "sess_2"], T0)).values()) == {20}

    async def test_b08_counters_equal_a_recount_of_what_sandboxes_used(self, stores: Stores) -> None:
        made = [sandbox("key_a" if n % 2 else "key_b") for n in range(8)]
        for one in made:
            await stores[0].add_sandbox(one, event())

        async def use(one: Sandbox, store: Records, seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(6):
                more = dice.randrange(1, 1000)
                after = replace(one, usage=replace(one.usage, sent_bytes=one.usage.sent_bytes + more))
                charge = Spend(one.owner, QuotaName.EGRESS, more)
                one = await store.swap_sandbox(after, None, charges=[charge])

        await asyncio.gather(*(use(one, stores[n % 2], n) for n, one in enumerate(made)))
        stored = await stores[1].list_sandboxes()
        counted = await stores[1].spent(["key_a", "key_b"], datetime.now(UTC))
        for owner in ("key_a", "key_b"):
            recount = sum(one.usage.egress_bytes for one in stored if one.owner == owner)
            assert counted[owner, QuotaName.EGRESS] == recount > 0

    async def test_b03_of_concurrent_requests_with_one_key_one_begins(self, stores: Stores) -> None:
        begun = [stores[n % 2].begin_request(request(server=f"s{n}"), forgotten=T0) for n in range(12)]
        outcomes = await together(begun)
        assert outcomes.count(None) == 1
        assert len({outcome.server for outcome in outcomes if outcome is not None}) == 1


async def together(calls: Sequence[Any]) -> list[Any]:
    """The results of concurrent calls; errors of ours are results, others are raised."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, AtollError):
            raise outcome
    return outcomes
