"""What every records store must do, as tests: subclass `RecordsConformance` and say how a store is opened.

    class TestMine(RecordsConformance):
        @pytest.fixture
        async def stores(self, tmp_path):
            yield two_started_stores_of_the_same_data

The tests are coroutines: run them with pytest-asyncio (`asyncio_mode = "auto"`). Each holds one sentence of the
contract in `atoll.records.base`; the last ones race.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from atoll.domain.errors import AtollError, Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.ids import new_key_id, new_sandbox_id
from atoll.domain.key import DEFAULT_SCOPES, ApiKey, KeyKind, Scope, hash_key, new_key_text
from atoll.domain.quota import Bound, QuotaName, QuotaUse
from atoll.domain.sandbox import (
    ENDED,
    LIVE,
    TRANSITIONS,
    BakedFile,
    NetworkMode,
    Port,
    Resources,
    Sandbox,
    SandboxSpec,
    SandboxState,
    Usage,
)
from atoll.domain.secret import GivenAs, SecretUse
from atoll.domain.workspace import WorkspaceMount
from atoll.records.base import KeyUse, Records

T0 = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def sandbox(owner: str = "key_0", *, age_s: float = 0, state: SandboxState = SandboxState.PENDING) -> Sandbox:
    """A small one, made `age_s` before T0."""
    return Sandbox(new_sandbox_id(), owner, SandboxSpec(), "local", T0 - timedelta(seconds=age_s), state=state)


def key(name: str = "k", **changes: Any) -> ApiKey:
    text = new_key_text()
    made = ApiKey(new_key_id(), hash_key(text), text[:12], name, KeyKind.STANDARD, DEFAULT_SCOPES, T0)
    return replace(made, **changes)


def event(target: str = "t", action: str = "sandbox.created", tenant: str = "key_0") -> Event:
    return Event(action, target, tenant, actor="key_0", at=T0)


def use(key_id: str, at: datetime = T0) -> KeyUse:
    return KeyUse(key_id, "/v1/sessions/{id}", "GET", 200, at, "127.0.0.1", "curl/8")


def at_most(sandboxes: int, owner: str = "key_a") -> tuple[Bound]:
    """So many live ones of one owner."""
    return (Bound(owner, sandboxes=sandboxes),)


class RecordsConformance:
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    @pytest.fixture
    async def stores(self) -> tuple[Records, Records]:
        raise NotImplementedError("give a fixture `stores`")

    @pytest.fixture
    def records(self, stores: tuple[Records, Records]) -> Records:
        return stores[0]

    # sandboxes

    async def test_a_sandbox_is_returned_as_it_was_stored_every_field_of_it(self, records: Records) -> None:
        full = Sandbox(
            id=new_sandbox_id(),
            owner="key_0",
            name="büro ☃",
            spec=SandboxSpec(
                image="python:3.12",
                command=("sh", "-c", "echo 'é' 😀"),
                env={"A": "1", "EMPTY": "", "NL": "a\nb\0c"},
                work_dir="/home",
                tty=True,
                cols=132,
                rows=43,
                resources=Resources(
                    500, 2**33, 7, 2**40, 9, timeout_s=1.5, idle_s=2.5, max_age_s=1e7, suspend_idle_s=3.5
                ),
                network=NetworkMode.EXPOSED,
                ports=(Port(80), Port(53, "udp", 40_000)),
                setup=("pip install x", "true"),
                files=(BakedFile("/a", bytes(range(256))), BakedFile("/b", b"")),
                layers=("/l/1", "/l/2"),
                workspaces=(WorkspaceMount("ws_1"), WorkspaceMount("ws_2", "/é", read_only=True, tree_id="tree_1")),
                secrets=(SecretUse("sec_1", GivenAs.ENV, "A"), SecretUse("sec_2", GivenAs.FILE, "/run/secrets/b")),
            ),
            runtime="local",
            created_at=T0,
            state=SandboxState.STOPPED,
            handle={"pid": 7, "nested": {"list": [1, 2.5, None, True, "x"]}},
            started_at=T0 + timedelta(microseconds=1),
            ended_at=T0 + timedelta(days=400),
            exit_code=137,
            exit_signal=9,
            reason="killed",
            usage=Usage(1.25, 0.5, 2**40, 3, 2**50, 5),
            removed=True,
        )
        await records.add_sandbox(full, event(full.id))
        assert await records.get_sandbox(full.id) == full
        bare = sandbox()
        await records.add_sandbox(bare, event(bare.id))
        assert await records.get_sandbox(bare.id) == bare

    async def test_moments_come_back_in_utc(self, records: Records) -> None:
        there = replace(sandbox(), created_at=T0.astimezone(timezone(timedelta(hours=9))))
        await records.add_sandbox(there, event())
        stored = await records.get_sandbox(there.id)
        assert stored is not None
        assert stored.created_at == T0
        assert stored.created_at.utcoffset() == timedelta(0)

    async def test_an_unknown_id_is_none(self, records: Records) -> None:
        for unknown in ("sess_000000000000", "", "x' OR '1'='1", "nul\0"):
            assert await records.get_sandbox(unknown) is None
            assert await records.get_key(unknown) is None
            assert await records.find_key(unknown) is None

    async def test_a_second_sandbox_with_the_same_id_is_a_conflict_and_leaves_no_event(self, records: Records) -> None:
        first = sandbox()
        await records.add_sandbox(first, event(first.id))
        with pytest.raises(Conflict):
            await records.add_sandbox(replace(first, name="other"), event(first.id))
        assert await records.get_sandbox(first.id) == first
        assert len(await records.list_events()) == 1

    async def test_the_quota_counts_the_owner_s_live_sandboxes_only(self, records: Records) -> None:
        for state in SandboxState:
            await records.add_sandbox(sandbox("key_a", state=state), event())
        await records.add_sandbox(sandbox("key_b"), event())
        live = len(LIVE)
        assert await records.count_live("key_a") == live
        assert await records.count_live() == live + 1
        assert await records.count_live("key_none") == 0
        refused = sandbox("key_a")
        with pytest.raises(QuotaExceeded):
            await records.add_sandbox(refused, event(refused.id), bounds=at_most(live))
        assert await records.get_sandbox(refused.id) is None
        assert await records.list_events(target=refused.id) == []
        await records.add_sandbox(refused, event(refused.id), bounds=at_most(live + 1))
        with pytest.raises(QuotaExceeded):
            await records.add_sandbox(sandbox("key_none"), event(), bounds=at_most(0, "key_none"))

    async def test_a_swap_stores_the_change_and_its_event_and_raises_the_version(self, records: Records) -> None:
        first = sandbox()
        await records.add_sandbox(first, event(first.id))
        running = await records.swap_sandbox(
            first.to(SandboxState.RUNNING, handle={"a": 1}), event(first.id, "sandbox.started")
        )
        assert (running.version, running.state) == (first.version + 1, SandboxState.RUNNING)
        assert await records.get_sandbox(first.id) == running
        counted = await records.swap_sandbox(replace(running, usage=Usage(exec_count=3)), None)
        assert await records.get_sandbox(first.id) == counted
        actions = [stored.action for stored in await records.list_events(target=first.id)]
        assert actions == ["sandbox.created", "sandbox.started"]

    async def test_a_swap_of_an_old_version_is_refused_and_changes_nothing(self, records: Records) -> None:
        first = sandbox()
        await records.add_sandbox(first, event(first.id))
        stored = await records.swap_sandbox(first.to(SandboxState.RUNNING), None)
        with pytest.raises(StaleVersion):
            await records.swap_sandbox(first.to(SandboxState.KILLED), event(first.id, "sandbox.killed"))
        assert await records.get_sandbox(first.id) == stored
        assert len(await records.list_events(target=first.id)) == 1

    async def test_a_swap_of_what_does_not_exist_is_not_found(self, records: Records) -> None:
        with pytest.raises(NotFound):
            await records.swap_sandbox(sandbox(), event())
        with pytest.raises(NotFound):
            await records.swap_key(key(), event())
        assert await records.list_events() == []

    async def test_an_ended_sandbox_frees_its_place_in_the_quota(self, records: Records) -> None:
        first = sandbox()
        await records.add_sandbox(first, event(), bounds=at_most(1, "key_0"))
        await records.swap_sandbox(first.to(SandboxState.KILLED), event())
        await records.add_sandbox(sandbox(), event(), bounds=at_most(1, "key_0"))

    async def test_lists_are_newest_first_and_filtered(self, records: Records) -> None:
        made = [
            replace(sandbox(f"key_{n % 2}", age_s=n, state=state), removed=n % 3 == 0)
            for n, state in enumerate([*SandboxState, *SandboxState])
        ]
        for each in random.Random(1).sample(made, len(made)):
            await records.add_sandbox(each, event())
        assert await records.list_sandboxes(removed=None) == made
        assert await records.list_sandboxes() == [s for s in made if not s.removed]
        assert await records.list_sandboxes(removed=True) == [s for s in made if s.removed]
        assert await records.list_sandboxes(removed=None, limit=3) == made[:3]
        assert await records.list_sandboxes(owner="key_1", removed=None) == made[1::2]
        for states in (LIVE, ENDED, {SandboxState.RUNNING, SandboxState.FAILED}, set[SandboxState]()):
            expected = [s for s in made if s.state in states]
            assert await records.list_sandboxes(states=states, removed=None) == expected

    async def test_pruning_takes_those_that_ended_before(self, records: Records) -> None:
        old = replace(sandbox(state=SandboxState.STOPPED), ended_at=T0 - timedelta(days=1))
        edge = replace(sandbox(state=SandboxState.KILLED), ended_at=T0)
        live = sandbox(age_s=1e6, state=SandboxState.RUNNING)
        for each in (old, edge, live):
            await records.add_sandbox(each, event())
        assert await records.prune_sandboxes(T0) == 1
        assert {s.id for s in await records.list_sandboxes()} == {edge.id, live.id}
        assert await records.prune_sandboxes(T0) == 0

    # keys

    async def test_a_key_is_found_by_its_hash_and_by_its_id(self, records: Records) -> None:
        plain = key()
        full = key(
            "ключ",
            kind=KeyKind.OWNER,
            scopes=frozenset({Scope.READ}),
            expires_at=T0 + timedelta(days=1),
            revoked_at=T0,
            last_used_at=T0,
        )
        for each in (plain, full, key(scopes=frozenset[Scope]())):
            await records.add_key(each, event(each.id, "key.created"))
            assert await records.find_key(each.hash) == each
            assert await records.get_key(each.id) == each
        assert len(await records.list_events()) == 3

    async def test_two_keys_never_share_an_id_or_a_hash(self, records: Records) -> None:
        first = key()
        await records.add_key(first, event())
        for clash in (replace(key(), id=first.id), replace(key(), hash=first.hash)):
            with pytest.raises(Conflict):
                await records.add_key(clash, event())
        assert await records.list_keys() == [first]
        assert len(await records.list_events()) == 1

    async def test_keys_are_listed_oldest_first_revoked_ones_on_request(self, records: Records) -> None:
        keys = [key(str(n), created_at=T0 + timedelta(seconds=n)) for n in range(4)]
        keys[1] = replace(keys[1], revoked_at=T0)
        for each in (keys[2], keys[0], keys[3], keys[1]):
            await records.add_key(each, event())
        assert await records.list_keys() == [keys[0], keys[2], keys[3]]
        assert await records.list_keys(include_revoked=True) == keys

    async def test_use_of_a_key_sets_its_last_use_and_is_no_change_of_it(self, records: Records) -> None:
        read = key()
        other = key()
        await records.add_key(read, event())
        await records.add_key(other, event())
        later = T0 + timedelta(minutes=5)
        await records.log_key_use([use(read.id), use(read.id, later), use(read.id, T0 + timedelta(minutes=1))])
        await records.log_key_use([use(read.id)])
        await records.log_key_use([])
        assert await records.get_key(read.id) == replace(read, last_used_at=later)
        assert await records.get_key(other.id) == other
        assert len(await records.list_events()) == 2
        revoked = await records.swap_key(replace(read, revoked_at=T0), event(read.id, "key.revoked"))
        assert revoked == replace(read, revoked_at=T0, last_used_at=later, version=read.version + 1)
        assert await records.get_key(read.id) == revoked
        with pytest.raises(StaleVersion):
            await records.swap_key(read, None)

    async def test_the_use_log_takes_any_client_s_words(self, records: Records) -> None:
        read = key()
        await records.add_key(read, event())
        await records.log_key_use(
            [replace(use(read.id), user_agent=agent) for agent in ("\0", "\ud800", "é", "", None)]
        )
        assert await records.prune_key_use(T0 + timedelta(seconds=1)) == 5

    async def test_the_use_log_is_pruned_by_age(self, records: Records) -> None:
        await records.log_key_use([use("key_x", T0 + timedelta(hours=n)) for n in range(5)])
        assert await records.prune_key_use(T0 + timedelta(hours=2)) == 2
        assert await records.prune_key_use(T0 + timedelta(hours=2)) == 0
        assert await records.prune_key_use(T0 + timedelta(hours=9)) == 3

    # events

    async def test_an_event_is_returned_as_it_was_stored_with_an_id(self, records: Records) -> None:
        happened = Event(
            action="sandbox.created",
            target="sess_1",
            tenant="key_0",
            actor="system",
            outcome="failed",
            request_id="req_1",
            detail={"command": ["a", "b\0", "ü"], "n": 1, "none": None},
            at=T0,
        )
        await records.add_sandbox(sandbox(), happened)
        (stored,) = await records.list_events()
        assert stored.id is not None
        assert stored == replace(happened, id=stored.id)

    async def test_events_are_listed_oldest_first_in_pages_and_filtered(self, records: Records) -> None:
        for n in range(6):
            await records.add_sandbox(sandbox(), event(f"t{n % 3}", tenant=f"key_{n % 2}"))
        everything = await records.list_events()
        assert [stored.target for stored in everything] == ["t0", "t1", "t2", "t0", "t1", "t2"]
        numbers = [stored.id or 0 for stored in everything]
        assert numbers == sorted(set(numbers))
        assert await records.list_events(after_id=numbers[2]) == everything[3:]
        assert await records.list_events(after_id=numbers[2], limit=2) == everything[3:5]
        assert await records.list_events(target="t1") == [everything[1], everything[4]]
        assert await records.list_events(tenant="key_1") == everything[1::2]
        assert await records.list_events(tenant="key_1", target="t1") == [everything[1]]

    # life

    async def test_it_answers_a_ping_and_closes_twice(self, records: Records) -> None:
        await records.ping()
        await records.close()
        await records.close()

    async def test_what_one_store_commits_the_other_reads_at_once(self, stores: tuple[Records, Records]) -> None:
        one, two = stores
        first = sandbox()
        await one.add_sandbox(first, event())
        assert await two.get_sandbox(first.id) == first
        stored = await two.swap_sandbox(first.to(SandboxState.RUNNING), event())
        assert await one.get_sandbox(first.id) == stored

    # races

    async def test_r10_concurrent_adds_at_a_quota_insert_exactly_so_many(self, stores: tuple[Records, Records]) -> None:
        quota = 7
        owners = ("key_a", "key_b")
        adds = [
            stores[n // 2 % 2].add_sandbox(sandbox(owner), event(), bounds=at_most(quota, owner))
            for n, owner in enumerate(owners * 30)
        ]
        outcomes = await together(*adds)
        assert sum(isinstance(outcome, list) for outcome in outcomes) == 2 * quota
        assert sum(isinstance(outcome, QuotaExceeded) for outcome in outcomes) == 60 - 2 * quota
        for owner in owners:
            assert await stores[0].count_live(owner) == quota
        assert len(await stores[0].list_events()) == 2 * quota

    async def test_of_concurrent_swaps_of_one_version_one_wins(self, stores: tuple[Records, Records]) -> None:
        contested = sandbox()
        await stores[0].add_sandbox(contested, event())
        for _ in range(5):
            swaps = [
                stores[n % 2].swap_sandbox(replace(contested, name=f"racer {n}"), event(f"racer {n}"))
                for n in range(12)
            ]
            outcomes = await together(*swaps)
            (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Sandbox)]
            assert sum(isinstance(outcome, StaleVersion) for outcome in outcomes) == 11
            stored = await stores[1].get_sandbox(contested.id)
            assert stored == winner
            last = (await stores[1].list_events())[-1]
            assert last.target == winner.name, "the event of a loser was kept"
            contested = winner

    async def test_concurrent_adds_of_one_id_insert_it_once(self, stores: tuple[Records, Records]) -> None:
        same, bounds = sandbox(), at_most(100, "key_0")
        outcomes = await together(*[stores[n % 2].add_sandbox(same, event(), bounds=bounds) for n in range(10)])
        assert outcomes.count([QuotaUse(QuotaName.SANDBOXES, "key_0", 1, 100)]) == 1
        assert sum(type(outcome) is Conflict for outcome in outcomes) == 9

    @pytest.mark.parametrize("seed", range(3))
    async def test_it_behaves_as_a_dictionary_would(self, stores: tuple[Records, Records], seed: int) -> None:
        """A random walk of legal and illegal steps, each compared with the same step on plain dictionaries."""
        dice = random.Random(seed)
        model: dict[str, Sandbox] = {}
        happened = 0
        for step in range(150):
            store = dice.choice(stores)
            if dice.random() < 0.4:
                owner, quota = f"key_{dice.randrange(2)}", dice.choice([None, 5])
                new = sandbox(owner, age_s=-step)
                bounds = () if quota is None else at_most(quota, owner)
                full = quota is not None and sum(s.live for s in model.values() if s.owner == owner) >= quota
                if full:
                    with pytest.raises(QuotaExceeded):
                        await store.add_sandbox(new, event(), bounds=bounds)
                    continue
                await store.add_sandbox(new, event(), bounds=bounds)
                model[new.id], happened = new, happened + 1
            elif model:
                old = dice.choice(list(model.values()))
                if dice.random() < 0.3:
                    with pytest.raises(StaleVersion):
                        await store.swap_sandbox(replace(old, version=old.version + dice.choice([-1, 1])), event())
                elif TRANSITIONS[old.state]:
                    changed = old.to(dice.choice(sorted(TRANSITIONS[old.state])), reason=str(step))
                    model[old.id] = await store.swap_sandbox(changed, event())
                    happened += 1
            if step % 25 == 0:
                stored = await store.list_sandboxes(limit=10_000)
                assert stored == sorted(model.values(), key=lambda s: s.created_at, reverse=True)
                assert await store.count_live() == sum(s.live for s in model.values())
                assert len(await store.list_events()) == happened


async def together(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """The results of concurrent calls; errors of ours are results, others are raised."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, AtollError):
            raise outcome
    return outcomes
