"""Quotas in the services: whose hold, what a refusal says and leaves, what is warned of, and what is measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import Forbidden, InvalidInput, NotFound, QuotaExceeded, Unavailable
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Role
from atoll.domain.key import DEFAULT_SCOPES, ApiKey, KeyKind
from atoll.domain.origin import ORIGIN, Origin
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.quota import PLANS, Amounts, OverridesOf, QuotaName
from atoll.domain.sandbox import Resources, Sandbox, SandboxSpec, SandboxState
from atoll.domain.user import User
from atoll.records.base import Records
from atoll.services.quota_overrides import QuotaOverrides
from atoll.services.quotas import QuotaLimits, Quotas
from atoll.services.sandbox_parts import make_sandbox_parts
from atoll.services.sandboxes import Sandboxes
from atoll.telemetry.metrics import Metrics
from atoll.testing.fake_runtime import FakeHost, FakeRuntime
from atoll.testing.memory_records import MemoryRecords
from tests.services.conftest import QUICK

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
USER_ID = "user_" + "0" * 24
USER = Principal(USER_ID, KeyKind.STANDARD, DEFAULT_SCOPES, "ursula", credential="login_" + "1" * 24, plan="user")
OWNER = Principal("key_0143e0000000", KeyKind.OWNER, DEFAULT_SCOPES, "owner", admin=True)
MIB = 2**20
SMALL: dict[str, Amounts] = {
    **PLANS,
    "user": {
        QuotaName.EXECUTIONS: 5,
        QuotaName.SANDBOXES: 3,
        QuotaName.MEMORY: 1024 * MIB,
        QuotaName.CPU: 10,
        QuotaName.EGRESS: 1000,
    },
}


class Shop:
    """A service over fakes, with small quotas and a clock that tests move."""

    def __init__(self, data: Path) -> None:
        self.records, self.host, self.metrics, self.now = MemoryRecords(), FakeHost(), Metrics(), NOW
        self.runtime = FakeRuntime(self.host)
        limits = QuotaLimits(SMALL, cache_s=0.0)
        self.quotas = Quotas(self.records, limits, clock=lambda: self.now, metrics=self.metrics)
        self.overrides = QuotaOverrides(self.records, self.quotas)
        self.sandboxes = Sandboxes(
            make_sandbox_parts(self.records, self.runtime, data, limits=QUICK, metrics=self.metrics, quotas=self.quotas)
        )

    async def create(self, principal: Principal = USER, *, memory_mib: int = 100, **fields: Any) -> Sandbox:
        spec = SandboxSpec(resources=Resources(memory_bytes=memory_mib * MIB), **fields)
        return await self.sandboxes.create(principal, spec)

    async def run(self, sandbox: Sandbox, principal: Principal = USER) -> None:
        await self.sandboxes.processes.run(principal, sandbox.id, ProcessSpec(("true",)))

    async def events(self, action: str) -> list[Event]:
        return [event for event in await self.records.list_events() if event.action == action]

    def count(self, name: str, quota: QuotaName) -> float:
        return self.metrics.registry.get_sample_value(name, {"quota_type": quota.value}) or 0.0

    async def use(self, sandbox: Sandbox, *, cpu_s: float = 0.0, sent_bytes: int = 0) -> None:
        """As if the runtime had measured that."""
        lives = self.sandboxes._access.lives
        live = lives.get(sandbox.id)
        assert live is not None
        used = replace(live.sandbox.usage, cpu_s=cpu_s, sent_bytes=sent_bytes)
        await lives.move(live, None, None, measured=used)


async def add_key(records: Records, key_id: str, **fields: Any) -> Principal:
    made = ApiKey(key_id, key_id * 4, "sk_", "k", KeyKind.STANDARD, DEFAULT_SCOPES, NOW)
    made = replace(made, **fields)
    await records.add_key(made, Event("key.created", key_id, made.owner, "t"))
    return Principal(made.owner, made.kind, made.scopes, credential=made.id, plan=made.plan)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path)
    await shop.records.add_user(User(USER_ID, "ursula", NOW), Event("user.created", USER_ID, USER_ID, "t"))
    await shop.sandboxes.start()
    yield shop
    await shop.sandboxes.close()
    await FakeRuntime(shop.host).shutdown()


async def test_what_was_looked_up_before_a_change_is_not_remembered_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    records, looked, go_on = MemoryRecords(), asyncio.Event(), asyncio.Event()
    await records.add_user(User(USER_ID, "ursula", NOW), Event("user.created", USER_ID, USER_ID, "t"))
    quotas = Quotas(records, QuotaLimits(SMALL, cache_s=60.0))

    async def slow(subjects: Collection[str]) -> dict[str, OverridesOf]:
        found = await MemoryRecords.get_quotas(records, subjects)
        looked.set()
        await go_on.wait()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(records, "get_quotas", slow)
        before = asyncio.create_task(quotas.of(USER_ID))
        await looked.wait()
        await records.put_quotas(
            OverridesOf(USER_ID, {QuotaName.SANDBOXES: 1}), Event("quota.set", USER_ID, USER_ID, "t")
        )
        quotas.forget(USER_ID)
        go_on.set()
        assert (await before).amounts[QuotaName.SANDBOXES] == SMALL["user"][QuotaName.SANDBOXES]
    assert (await quotas.of(USER_ID)).amounts[QuotaName.SANDBOXES] == 1


async def test_b08_concurrent_creates_never_pass_a_user_s_quota(shop: Shop) -> None:
    outcomes = await asyncio.gather(*(shop.create() for _ in range(12)), return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, QuotaExceeded)]
    assert len(refused) == 9
    assert {error.message for error in refused} == {"concurrent session limit reached (3/3)"}
    assert len(shop.host.sandboxes) == 3
    assert await shop.records.count_live(USER_ID) == 3
    assert shop.count("quota_violations_total", QuotaName.SANDBOXES) == 9
    [told] = await shop.events("quota.exceeded")
    assert (told.tenant, told.outcome, told.detail["quota"]) == (USER_ID, "refused", "concurrent_sandboxes")


async def test_the_memory_of_all_live_sandboxes_is_bounded_and_given_back(shop: Shop) -> None:
    first = await shop.create(memory_mib=700)
    with pytest.raises(QuotaExceeded, match="700 of 1024 MiB, and 400 more do not fit"):
        await shop.create(memory_mib=400)
    await shop.sandboxes.kill(USER, first.id)
    assert (await shop.create(memory_mib=400)).state is SandboxState.RUNNING


async def test_each_sandbox_has_its_own_commands_by_the_hour(shop: Shop) -> None:
    first, second = await shop.create(), await shop.create()
    for _ in range(5):
        await shop.run(first)
    with pytest.raises(QuotaExceeded, match=r"executions_per_hour limit reached \(5/5\)") as raised:
        await shop.run(first)
    assert raised.value.retry_after_s == 61 * 60
    await shop.run(second)
    shop.now += timedelta(minutes=61)
    await shop.run(first)


async def test_b08_concurrent_commands_never_pass_the_quota(shop: Shop) -> None:
    sandbox = await shop.create()
    outcomes = await asyncio.gather(*(shop.run(sandbox) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(one, QuotaExceeded) for one in outcomes) == 15


async def test_cpu_and_egress_that_were_used_refuse_new_work_until_the_hour_has_moved_on(shop: Shop) -> None:
    sandbox = await shop.create()
    await shop.use(sandbox, cpu_s=10.5)
    for work in (shop.run(sandbox), shop.create()):
        with pytest.raises(QuotaExceeded, match=r"cpu_s_per_hour limit reached \(11/10\)"):
            await work
    assert await shop.sandboxes.get(USER, sandbox.id) is not None
    assert (await shop.sandboxes.get(USER, sandbox.id)).state is SandboxState.RUNNING, "what runs goes on"
    shop.now = datetime.now(UTC) + timedelta(minutes=62)
    await shop.run(sandbox)
    shop.now = datetime.now(UTC)
    await shop.use(sandbox, sent_bytes=999)
    shop.now += timedelta(minutes=62)
    await shop.run(sandbox)


async def test_what_sandboxes_use_in_the_background_is_measured_for_those_who_have_bounds(shop: Shop) -> None:
    mine, owners = await shop.create(), await shop.create(OWNER)
    shop.now = datetime.now(UTC)
    shop.host.sandboxes[mine.id].cpu_s = 9.0
    shop.host.sandboxes[mine.id].sent_bytes = 100
    assert await shop.sandboxes.metering.run() == 1
    spent = await shop.records.spent([USER_ID, OWNER.id], shop.now)
    assert spent == {(USER_ID, QuotaName.CPU): 9000, (USER_ID, QuotaName.EGRESS): 100}
    await shop.sandboxes.metering.run()
    assert await shop.records.spent([USER_ID], shop.now) == spent, "nothing is counted twice"
    [warned] = await shop.events("quota.warning")
    assert (warned.detail["quota"], warned.detail["used"], warned.detail["limit"]) == ("cpu_s_per_hour", 9, 10)
    await shop.sandboxes.kill(USER, mine.id)
    recount = sum(one.usage.cpu_s for one in await shop.records.list_sandboxes(owner=USER_ID, removed=None))
    assert (await shop.records.spent([USER_ID], shop.now))[USER_ID, QuotaName.CPU] == int(recount * 1000)
    assert owners.state is SandboxState.RUNNING


async def test_owner_keys_and_administrators_have_no_quota(shop: Shop) -> None:
    for _ in range(5):
        sandbox = await shop.create(OWNER, memory_mib=900)
    for _ in range(7):
        await shop.run(sandbox, OWNER)
    assert not shop.records._spent
    admin = replace(USER, admin=True)
    for _ in range(5):
        await shop.create(admin, memory_mib=900)


async def test_a_warning_is_told_in_every_answer_and_written_once_a_crossing(shop: Shop) -> None:
    sandbox = await shop.create()
    told: list[list[str]] = []
    for _ in range(5):
        origin = Origin("r1")
        token = ORIGIN.set(origin)
        await shop.run(sandbox)
        ORIGIN.reset(token)
        told.append(origin.quota_warnings)
    assert told == [[], [], [], ["executions_per_hour 4/5"], ["executions_per_hour 5/5"]]
    [event] = await shop.events("quota.warning")
    assert event.detail == {"quota": "executions_per_hour", "used": 4, "limit": 5, "subject": sandbox.id}
    assert event.tenant == USER_ID
    assert shop.count("quota_warnings_total", QuotaName.EXECUTIONS) == 1
    shop.now += timedelta(hours=2)
    for _ in range(4):
        await shop.run(sandbox)
    assert len(await shop.events("quota.warning")) == 2, "it fell below, and rose again"


async def test_refusals_are_events_once_a_minute_and_all_counted(shop: Shop) -> None:
    sandbox = await shop.create()
    for _ in range(5):
        await shop.run(sandbox)
    for _ in range(30):
        with pytest.raises(QuotaExceeded):
            await shop.run(sandbox)
    assert len(await shop.events("quota.exceeded")) == 1
    assert shop.count("quota_violations_total", QuotaName.EXECUTIONS) == 30


async def test_an_override_holds_in_place_of_the_plan_s_amount(shop: Shop) -> None:
    await shop.overrides.put(OWNER, USER_ID, {"concurrent_sandboxes": 1, "memory_bytes": None})
    await shop.create(memory_mib=2000)
    with pytest.raises(QuotaExceeded, match="1/1"):
        await shop.create()
    standing = await shop.overrides.change(OWNER, USER_ID, {"concurrent_sandboxes": 2})
    assert dict(standing.overrides) == {QuotaName.SANDBOXES: 2, QuotaName.MEMORY: None}
    await shop.create()
    await shop.overrides.clear(OWNER, USER_ID, ["concurrent_sandboxes"])
    await shop.create()
    assert [
        e.action for e in await shop.records.list_events(target=USER_ID) if e.action in ("quota.set", "quota.cleared")
    ] == [
        "quota.set",
        "quota.set",
        "quota.set",
    ]


async def test_a_key_s_own_bound_holds_besides_its_owner_s(shop: Shop) -> None:
    key = await add_key(shop.records, "key_aaaaaaaaaaaa", owner=USER_ID)
    await shop.overrides.put(OWNER, key.credential, {"concurrent_sandboxes": 1, "executions_per_hour": 2})
    made = await shop.create(key)
    assert made.credential == key.credential
    with pytest.raises(QuotaExceeded, match="1/1") as raised:
        await shop.create(key)
    assert raised.value.subject == key.credential
    await shop.create()
    await shop.create()
    with pytest.raises(QuotaExceeded, match="3/3"):
        await shop.create()
    for _ in range(2):
        await shop.run(made, key)
    with pytest.raises(QuotaExceeded, match="2/2"):
        await shop.run(made, key)
    await shop.run(made)


async def test_b08_what_bounds_a_key_bounds_all_that_come_from_it(shop: Shop) -> None:
    key = await add_key(shop.records, "key_aaaaaaaaaaaa", owner=USER_ID)
    child = await add_key(shop.records, "key_bbbbbbbbbbbb", owner=USER_ID, parent=key.credential)
    child = replace(child, lineage=(child.credential, key.credential))
    # a sandbox that the child gave a capability
    inside = replace(child, credential="sess_" + "0" * 12)
    amounts = {"concurrent_sandboxes": 2, "executions_per_hour": 2, "cpu_s_per_hour": 3}
    await shop.overrides.put(OWNER, key.credential, amounts)
    made = [await shop.create(child), await shop.create(inside)]
    assert {one.credential for one in made} == {child.credential}
    for principal in (key, child, inside):
        with pytest.raises(QuotaExceeded, match="2/2") as raised:
            await shop.create(principal)
        assert raised.value.subject == key.credential
    await shop.create()  # the user has one more
    for _ in range(2):
        await shop.run(made[0], child)
    with pytest.raises(QuotaExceeded, match="2/2"):
        await shop.run(made[0], inside)
    shop.now = datetime.now(UTC)
    await shop.use(made[1], cpu_s=4.0)
    with pytest.raises(QuotaExceeded, match="cpu_s_per_hour"):
        await shop.run(made[1], key)
    with pytest.raises(QuotaExceeded, match="cpu_s_per_hour"):
        await shop.quotas.bounds_of(made[0])  # waking one


async def test_of_changes_at_once_none_is_lost(shop: Shop) -> None:
    names = ("concurrent_sandboxes", "executions_per_hour", "memory_bytes", "cpu_s_per_hour")
    await asyncio.gather(*(shop.overrides.change(OWNER, USER_ID, {name: 7}) for name in names))
    assert {name.value for name in (await shop.quotas.overrides(USER_ID)).amounts} == set(names)
    await asyncio.gather(*(shop.overrides.clear(OWNER, USER_ID, [name]) for name in names[:3]))
    assert {name.value for name in (await shop.quotas.overrides(USER_ID)).amounts} == set(names[3:])


async def test_tiers_bound_a_day_s_sessions_their_age_and_their_memory(shop: Shop) -> None:
    key = await add_key(shop.records, "key_bbbbbbbbbbbb", plan="anonymous")
    shop.now = datetime.now(UTC)
    for _ in range(3):
        sandbox = await shop.create(key)
        assert sandbox.spec.resources.max_age_s == 60
        await shop.sandboxes.kill(key, sandbox.id)
    with pytest.raises(QuotaExceeded, match=r"daily session limit reached \(3/3\)"):
        await shop.create(key)
    with pytest.raises(QuotaExceeded, match="at most 512 MiB"):
        await shop.create(key, memory_mib=513)
    shop.now += timedelta(days=1)
    await shop.create(key)


async def test_what_a_group_owns_counts_against_the_group(shop: Shop) -> None:
    group = "grp_" + "2" * 24
    await shop.records.add_group(
        Group(group, "g", NOW, NOW), Member(group, USER_ID, Role.ADMIN, NOW), Event("group.created", group, group, "t")
    )
    await shop.overrides.put(OWNER, group, {"concurrent_sandboxes": 2, "memory_bytes": None, "cpu_s_per_hour": 1})
    member = replace(USER, groups={group: Role.MEMBER})
    spec = SandboxSpec(resources=Resources(memory_bytes=2**30))
    first, _ = [await shop.sandboxes.create(member, spec, group=group) for _ in range(2)]
    with pytest.raises(QuotaExceeded, match="2/2") as raised:
        await shop.sandboxes.create(member, spec, group=group)
    assert raised.value.subject == group
    assert await shop.records.count_live(group) == 2
    await shop.create(member)
    shop.now = datetime.now(UTC)
    await shop.use(first, cpu_s=2.0)
    with pytest.raises(QuotaExceeded, match="cpu_s_per_hour"):
        await shop.run(first, member)
    standings = {one.subject: one for one in await shop.overrides.mine(member)}
    assert set(standings) == {USER_ID, group}
    assert {use.name: use.used for use in standings[group].uses}[QuotaName.CPU] == 2
    [told] = [one for one in await shop.events("quota.exceeded") if one.detail["quota"] == "concurrent_sandboxes"]
    assert (told.tenant, told.actor) == (group, USER_ID)


async def test_overrides_of_those_without_quotas_bound_nothing(shop: Shop) -> None:
    admin = "user_" + "9" * 24
    await shop.records.add_user(User(admin, "root", NOW, admin=True), Event("user.created", admin, admin, "t"))
    standing = await shop.overrides.put(OWNER, admin, {"concurrent_sandboxes": 0})
    assert (standing.plan, {use.limit for use in standing.uses}) == ("unlimited", {None})


async def test_a_sandbox_that_wakes_must_fit_too(shop: Shop) -> None:
    sandbox = await shop.create()
    assert [bound.sandboxes for bound in await shop.quotas.bounds_of(sandbox)] == [3]
    await shop.records.put_quotas(OverridesOf(USER_ID, {QuotaName.SANDBOXES: 0}), Event("q", USER_ID, USER_ID, "t"))
    assert [bound.sandboxes for bound in await shop.quotas.bounds_of(sandbox)] == [0]


async def test_c10_without_the_store_nobody_with_a_quota_gets_more_and_those_without_go_on(shop: Shop) -> None:
    mine, owners = await shop.create(), await shop.create(OWNER)
    shop.records.down = True
    with pytest.raises(Unavailable):
        await shop.run(mine)
    await shop.run(owners, OWNER)
    shop.records.down = False
    await shop.run(mine)


async def test_usage_tells_each_quota_with_what_is_left(shop: Shop) -> None:
    sandbox = await shop.create(memory_mib=300)
    await shop.run(sandbox)
    uses = {use.name: use for use in await shop.quotas.usage(USER)}
    assert set(uses) == set(QuotaName)
    assert (uses[QuotaName.SANDBOXES].used, uses[QuotaName.SANDBOXES].remaining) == (1, 2)
    assert uses[QuotaName.MEMORY].used == 300 * MIB
    assert uses[QuotaName.EXECUTIONS].used == 1
    assert uses[QuotaName.STORED].limit is None
    assert {use.limit for use in await shop.quotas.usage(OWNER)} == {None}


async def test_only_administrators_set_quotas_and_only_of_those_who_exist(shop: Shop) -> None:
    overrides = shop.overrides
    for work in (overrides.get(USER, USER_ID), overrides.put(USER, USER_ID, {}), overrides.list(USER)):
        with pytest.raises(Forbidden):
            await work
    for unknown in ("user_" + "f" * 24, "grp_" + "f" * 24, "key_ffffffffffff", "x", "../x"):
        with pytest.raises(NotFound):
            await overrides.put(OWNER, unknown, {"memory_bytes": 1})
    for wrong in ({"memory": 1}, {"memory_bytes": -1}, {"memory_bytes": 2**63}):
        with pytest.raises(InvalidInput) as raised:
            await overrides.put(OWNER, USER_ID, wrong)
        assert raised.value.field == "quotas"
    assert not shop.records._overrides
