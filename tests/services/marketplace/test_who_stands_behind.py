"""Who pays for a worker's run, and who counts as having it, where a sandbox with a capability asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Role
from atoll.domain.key import DEFAULT_SCOPES, ApiKey, KeyKind, Scope
from atoll.domain.ledger import BudgetExceeded
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Grant, Resources, Sandbox, SandboxSpec
from atoll.domain.worker import Worker
from atoll.services.ledger.ledger import Ledger
from atoll.services.marketplace.marketplace import Marketplace
from atoll.services.marketplace.persons import person_of
from atoll.services.marketplace.publishing import Offer
from atoll.services.marketplace.runs import RunRequest
from atoll.testing.memory_records import MemoryRecords
from tests.faults.marketplace_child import ADMIN, ALICE, BOB, OFFER, PRICE, market

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CHILD, INTERNAL, GROUP = "key_c0c0c0c0c0c0", "key_1e1e1e1e1e1e", "grp_" + "9" * 24


@dataclass
class Town:
    """Bob has a key with a budget for one run, a group, and sandboxes with capabilities."""

    records: MemoryRecords
    shop: Marketplace
    ledger: Ledger
    made: int = 0

    async def key(self, name: str, **more: object) -> None:
        key = replace(ApiKey(name, name, name, name, KeyKind.STANDARD, DEFAULT_SCOPES, NOW), **more)  # pyright: ignore
        await self.records.add_key(key, Event("key.created", name, name, "system", at=NOW))

    async def group(self, name: str, who: str) -> None:
        event = Event("group.created", name, name, "system", at=NOW)
        await self.records.add_group(Group(name, "g", NOW, NOW), Member(name, who, Role.ADMIN, NOW), event)

    async def inside(self, owner: str, giver: str, *above: str, kind: KeyKind = KeyKind.STANDARD) -> Principal:
        """Whoever asks from a sandbox of the owner's whose capability came from that credential."""
        self.made += 1
        name = f"sess_{self.made:012x}"
        spec = SandboxSpec(capability=Grant(frozenset(Scope), kind=kind, credential=giver))
        event = Event("sandbox.created", name, owner, "system", at=NOW)
        await self.records.add_sandbox(Sandbox(name, owner, spec, "fake", NOW), event)
        lineage = (giver, *above) if giver.startswith("key_") else above
        return Principal(owner, kind, DEFAULT_SCOPES, credential=name, lineage=lineage)

    async def run(self, principal: Principal, worker: Worker) -> int:
        asked = RunRequest(price_max_micro_usd=PRICE)
        return (await self.shop.runs.run(principal, worker, asked, Resources())).charged

    async def spent(self, account: str) -> int:
        return (await self.ledger.account(account)).spent


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    records = MemoryRecords()
    async with market(records, tmp_path) as (shop, ledger):
        town = Town(records, shop, ledger)
        await town.key(ALICE.id)
        await town.key(BOB.id)
        await town.key(CHILD, owner=BOB.id, parent=BOB.id, budget_micro_usd=PRICE)
        await town.key(INTERNAL, kind=KeyKind.INTERNAL)
        await town.group(GROUP, BOB.id)
        await ledger.credit(ADMIN, BOB.id, 10 * PRICE)
        yield town


async def test_the_budget_of_a_key_bounds_what_its_sandboxes_and_theirs_run(town: Town) -> None:
    worker = await town.shop.publish(ALICE, OFFER)
    first = await town.inside(BOB.id, CHILD, BOB.id)
    second = await town.inside(BOB.id, first.credential, CHILD, BOB.id)
    assert await town.run(first, worker) == PRICE
    for who in (first, second):
        with pytest.raises(BudgetExceeded):
            await town.run(who, worker)
    assert await town.spent(BOB.id) == PRICE


async def test_a_group_s_sandbox_is_paid_by_whose_key_it_came_from_within_that_one_s_budget(town: Town) -> None:
    worker = await town.shop.publish(ALICE, OFFER)
    await town.ledger.credit(ADMIN, GROUP, 10 * PRICE)
    inside = await town.inside(GROUP, CHILD, BOB.id)
    assert await town.run(inside, worker) == PRICE
    with pytest.raises(BudgetExceeded):
        await town.run(inside, worker)
    assert (await town.spent(BOB.id), await town.spent(GROUP)) == (PRICE, 0)


async def test_the_sandbox_of_an_internal_key_is_not_charged(town: Town) -> None:
    worker = await town.shop.publish(ALICE, OFFER)
    assert await town.run(await town.inside(INTERNAL, INTERNAL, kind=KeyKind.INTERNAL), worker) == 0
    assert await town.run(await town.inside(GROUP, INTERNAL, kind=KeyKind.INTERNAL), worker) == 0
    assert (await town.spent(INTERNAL), await town.spent(GROUP)) == (0, 0)


async def test_installs_and_ratings_count_one_person_however_many_groups_they_make(town: Town) -> None:
    worker = await town.shop.publish(ALICE, OFFER)
    for number in range(3):
        group = f"grp_{number:024x}"
        await town.group(group, BOB.id)
        inside = await town.inside(group, CHILD, BOB.id)
        further = await town.inside(group, inside.credential, CHILD, BOB.id)
        for who in (inside, further, BOB):
            assert await person_of(town.records, who) == BOB.id
            assert (await town.shop.install(who, worker.id)).installs == 1
            assert (await town.shop.rate(who, worker.id, 5)).ratings == 1


async def test_an_author_rates_and_installs_a_worker_of_their_own_through_nobody(town: Town) -> None:
    worker = await town.shop.publish(BOB, Offer("one", command=("true",)))
    inside = await town.inside(GROUP, CHILD, BOB.id)
    theirs = await town.shop.publish(inside, Offer("two", command=("true",)))
    assert theirs.author == GROUP
    for who in (inside, BOB):
        for one in (worker, theirs):
            assert (await town.shop.install(who, one.id)).installs == 0
            with pytest.raises(Conflict, match="an author does not rate"):
                await town.shop.rate(who, one.id, 5)
