"""Gates: who serves what comes out of a sandbox, how much of it, and until when; and what capabilities open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from atoll.domain.errors import Forbidden, InvalidInput, Unauthenticated
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Role
from atoll.domain.ids import bootstrap_key_id
from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope, hash_key
from atoll.domain.principal import Principal
from atoll.domain.rate import Rate
from atoll.domain.sandbox import Grant, NetworkMode, Sandbox, SandboxSpec
from atoll.services.gates import TOLD_S, Nobody
from atoll.services.identity.connected import Connected
from atoll.services.identity.standing import Standing
from atoll.services.keys import Keys
from atoll.services.lives import Live
from atoll.sidekick.client import GateStream

from .conftest import ALICE, BOB, QUICK, READER, House

GROUP = "grp_" + "5" * 24
READ = Grant(frozenset({Scope.READ}))


class Servant(Nobody):
    """Answers each line with the sandbox that it came from, until the program hangs up."""

    def __init__(self) -> None:
        self.serving = 0
        self.most = 0
        self.over: list[str] = []

    async def serve(self, live: Live, stream: GateStream) -> None:
        self.serving += 1
        self.most = max(self.most, self.serving)
        try:
            while line := await stream.reader.readline():
                stream.writer.write(live.sandbox.id.encode() + b" " + line)
        finally:
            self.serving -= 1

    def ended(self, sandbox_id: str) -> None:
        self.over.append(sandbox_id)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path, limits=replace(QUICK, gate_streams_per_sandbox=3))
    made.sandboxes.gates.servant = Servant()
    await made.sandboxes.start()
    yield made
    await made.sandboxes.close()


def servant(house: House) -> Servant:
    found = house.sandboxes.gates.servant
    assert isinstance(found, Servant)
    return found


async def create(house: House, principal: Principal = ALICE, **spec: object) -> Sandbox:
    return await house.sandboxes.create(principal, SandboxSpec(**spec))  # type: ignore[arg-type]


async def say(house: House, sandbox: Sandbox, words: bytes = b"hello\n") -> bytes:
    reader, writer = await house.host.sandboxes[sandbox.id].connect("api")
    try:
        writer.write(words)
        async with asyncio.timeout(5):
            return await reader.readline()
    finally:
        writer.close()


async def until(holds: object, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_stream_is_served_with_the_sandbox_that_it_came_out_of(house: House) -> None:
    one, two = await create(house, capability=READ), await create(house, network=NetworkMode.LISTED)
    assert await say(house, one) == one.id.encode() + b" hello\n"
    assert await say(house, two) == two.id.encode() + b" hello\n"


async def test_streams_of_one_sandbox_are_bounded_and_the_others_wait(house: House) -> None:
    sandbox = await create(house, capability=READ)
    opened = [await house.host.sandboxes[sandbox.id].connect("api") for _ in range(8)]
    await until(lambda: servant(house).serving >= 3)
    # those that were awaited when it was full are taken too, and no more
    await asyncio.sleep(0.1)
    assert servant(house).most <= 3 + 4
    for _, writer in opened:
        writer.close()
    await until(lambda: servant(house).serving == 0)
    assert await say(house, sandbox)


async def test_who_takes_all_that_there_is_shuts_nobody_else_out(tmp_path: Path) -> None:
    house = House(tmp_path, limits=replace(QUICK, gate_streams_max=64))
    house.sandboxes.gates.servant = Servant()
    await house.sandboxes.start()
    greedy, modest = await create(house, capability=READ), await create(house, BOB, capability=READ)
    opened = [await house.host.sandboxes[greedy.id].connect("api") for _ in range(64)]
    await until(lambda: servant(house).serving == 48)
    with suppress(ConnectionError):  # whether what it said was read or not
        assert await say(house, greedy) == b""
    assert await say(house, modest) == modest.id.encode() + b" hello\n"
    for _, writer in opened:
        writer.close()
    await house.sandboxes.close()


async def test_the_log_is_told_of_refused_streams_now_and_then(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(live: Live, stream: GateStream) -> None:
        raise Forbidden("not on the list")

    monkeypatch.setattr(servant(house), "serve", refuse)
    clock = [0.0]
    house.sandboxes.gates._monotonic = lambda: clock[0]
    sandbox = await create(house, capability=READ)
    with capture_logs() as logs:
        for clock[0] in (0.0, TOLD_S / 2, TOLD_S):
            for _ in range(5):
                assert await say(house, sandbox) == b""
        told = [line["times"] for line in logs if line["event"] == "gates.refused"]
    assert told == [1, 10]


async def test_an_end_cuts_what_is_open(house: House) -> None:
    sandbox = await create(house, capability=READ)
    reader, writer = await house.host.sandboxes[sandbox.id].connect("api")
    writer.write(b"hello\n")
    await reader.readline()
    await house.sandboxes.kill(ALICE, sandbox.id)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    await until(lambda: servant(house).serving == 0)
    assert servant(house).over == [sandbox.id]
    writer.close()


async def test_gates_are_open_again_after_a_restart(house: House) -> None:
    sandbox = await create(house, capability=READ)
    await house.sandboxes.close()
    house.build()
    house.sandboxes.gates.servant = Servant()
    await house.sandboxes.start()
    assert await say(house, sandbox) == sandbox.id.encode() + b" hello\n"


async def test_what_was_given_is_kept_and_is_never_more_than_the_giver_has(house: House) -> None:
    bounded = replace(ALICE, resources=frozenset({ALICE.id}), plan="free")
    sandbox = await create(house, bounded, capability=READ)
    assert sandbox.spec.capability == Grant(
        READ.scopes, frozenset({ALICE.id}), KeyKind.STANDARD, "free", ALICE.credential
    )
    stored = await house.records.get_sandbox(sandbox.id)
    assert stored is not None and stored.spec.capability == sandbox.spec.capability
    for principal, grant in (
        (replace(READER, scopes=frozenset({Scope.EXECUTE})), READ),
        (bounded, Grant(READ.scopes, frozenset({"sess_other"}))),
        (ALICE, Grant(READ.scopes, frozenset({sandbox.id, "sess_" + "0" * 12}))),  # there is none
        (BOB, Grant(READ.scopes, frozenset({sandbox.id}))),
        (BOB, Grant(READ.scopes, frozenset({ALICE.id}))),
        (ALICE, Grant(frozenset())),
        (ALICE, Grant(frozenset({Scope.ADMIN}))),
    ):
        with pytest.raises(InvalidInput) as caught:
            await create(house, principal, capability=grant)
        assert caught.value.field == "capability"


async def test_a_capability_opens_what_it_says_until_its_sandbox_or_its_key_ends(house: House) -> None:
    keys = Keys(house.records)
    made = await keys.create("giver")
    giver = await keys.authenticate(made.text)
    connected = Connected(house.records, Standing(house.records), Keys(house.records, cache_s=0.0), cache_s=0.0)
    sandbox = await create(house, giver, capability=READ)
    live = Live(sandbox)
    name = connected.name(live)
    assert connected.recognises(name) and connected.name(live) == name
    principal = await connected.authenticate(name)
    assert (principal.id, principal.scopes, principal.credential) == (giver.id, READ.scopes, sandbox.id)
    assert not principal.admin
    # one that a sandbox made falls with it
    child = await create(house, replace(principal, scopes=giver.scopes), capability=READ)
    assert child.spec.capability is not None and child.spec.capability.credential == sandbox.id
    childs = connected.name(Live(child))
    assert (await connected.authenticate(childs)).id == giver.id
    await keys.revoke(giver.credential)
    for one in (name, childs, name + "0", "atoll-conn:"):
        with pytest.raises(Unauthenticated):
            await connected.authenticate(one)


async def test_a_capability_ends_when_it_was_to_and_so_does_what_was_made_with_it(house: House) -> None:
    now = datetime.now(UTC)
    keys = Keys(house.records, cache_s=0.0)
    giver = await keys.authenticate((await keys.create("giver")).text)
    connected = Connected(house.records, Standing(house.records), keys, cache_s=0.0, clock=lambda: now)
    sandbox = await create(house, giver, capability=replace(READ, lasts_s=600.0))
    stored = await house.records.get_sandbox(sandbox.id)
    assert stored is not None and stored.spec.capability is not None and stored.spec.capability.lasts_s == 600.0
    name = connected.name(Live(sandbox))
    principal = await connected.authenticate(name)
    child = await create(house, replace(principal, scopes=giver.scopes), capability=READ)
    childs = connected.name(Live(child))
    now = sandbox.created_at + timedelta(seconds=599)
    assert (await connected.authenticate(childs)).id == (await connected.authenticate(name)).id == giver.id
    now = sandbox.created_at + timedelta(seconds=600)
    for one in (name, childs):
        with pytest.raises(Unauthenticated):
            await connected.authenticate(one)
    for never in (0.0, -1.0, float("nan"), 1e300):
        with pytest.raises(InvalidInput, match="expiresInMs"):
            await create(house, giver, capability=replace(READ, lasts_s=never))


async def test_a_capabilitys_budget_is_its_givers_or_less(house: House) -> None:
    keys = Keys(house.records)
    giver = await keys.authenticate((await keys.create("giver", budget_micro_usd=10)).text)
    connected = Connected(house.records, Standing(house.records), keys, cache_s=0.0)
    for asked, kept in ((None, 10), (10, 10), (4, 4)):
        sandbox = await create(house, giver, capability=replace(READ, budget_micro_usd=asked))
        stored = await house.records.get_sandbox(sandbox.id)
        assert stored is not None and stored.spec.capability is not None
        assert stored.spec.capability.budget_micro_usd == kept
    inside = replace(await connected.authenticate(connected.name(Live(sandbox))), scopes=ALICE.scopes)
    for principal, beyond in ((giver, 11), (inside, 5), (ALICE, -1)):
        with pytest.raises(InvalidInput, match="budgetMicroUsd"):
            await create(house, principal, capability=replace(READ, budget_micro_usd=beyond))


async def test_a_capability_loses_what_its_key_loses(house: House) -> None:
    keys = Keys(house.records, bootstrap=["sk_" + "b" * 64], cache_s=0.0)
    without = Keys(house.records, cache_s=0.0)  # a server whose settings name that key no more
    made = await keys.create("giver", rate=Rate(5, 5))
    giver = await keys.authenticate(made.text)
    child = await keys.create("child", owner=giver.id, parent=giver.credential)
    connected = Connected(house.records, Standing(house.records), keys, cache_s=0.0)
    wide = Grant(DEFAULT_SCOPES)
    name = connected.name(Live(await create(house, await keys.authenticate(child.text), capability=wide)))
    inside = await connected.authenticate(name)
    assert inside.scopes == DEFAULT_SCOPES
    # it counts as what it comes from does
    assert inside.lineage == (child.key.id, giver.id)
    assert (inside.rate, inside.rated_as) == (Rate(5, 5), giver.id)
    await keys.change(giver.id, lambda key: replace(key, scopes=frozenset({Scope.READ})), "key.changed")
    assert (await connected.authenticate(name)).scopes == {Scope.READ}
    boot = await keys.create(
        "boot", text="sk_" + "b" * 64, key_id=bootstrap_key_id(hash_key("sk_" + "b" * 64)), kind=KeyKind.OWNER
    )
    live = Live(await create(house, await keys.authenticate(boot.text), capability=wide))
    assert (await connected.authenticate(connected.name(live))).id == boot.key.id
    later = Connected(house.records, Standing(house.records), without, cache_s=0.0)
    with pytest.raises(Unauthenticated):
        await later.authenticate(later.name(live))


async def test_a_capability_in_a_group_is_lost_with_its_givers_place_there(house: House) -> None:
    keys = Keys(house.records, cache_s=0.0)
    giver = await keys.authenticate((await keys.create("giver")).text)
    now, told = datetime.now(UTC), Event("group.changed", GROUP, GROUP, "cli", at=datetime.now(UTC))
    await house.records.add_group(Group(GROUP, "g", now, now), Member(GROUP, ALICE.id, Role.ADMIN, now), told)

    async def put(role: Role, *, new: bool = False) -> None:
        await house.records.put_member(Member(GROUP, giver.id, role, now), told, new=new)

    await put(Role.MEMBER, new=True)
    giver = replace(giver, groups={GROUP: Role.MEMBER})
    connected = Connected(house.records, Standing(house.records), keys, cache_s=0.0)
    spec = SandboxSpec(capability=Grant(DEFAULT_SCOPES))
    groups = await house.sandboxes.create(giver, spec, group=GROUP)
    own = await house.sandboxes.create(giver, spec)
    inside = replace(await connected.authenticate(connected.name(Live(own))), groups=giver.groups)
    below = await house.sandboxes.create(inside, spec, group=GROUP)
    names = [connected.name(Live(one)) for one in (groups, below)]
    for name in names:
        principal = await connected.authenticate(name)
        assert (principal.id, principal.scopes) == (GROUP, DEFAULT_SCOPES)
    await put(Role.VIEWER)
    assert [(await connected.authenticate(name)).scopes for name in names] == [READ.scopes] * 2
    await house.records.delete_member(GROUP, giver.id, told)
    for name in names:
        with pytest.raises(Unauthenticated):
            await connected.authenticate(name)
    assert (await connected.authenticate(connected.name(Live(own)))).id == giver.id


async def test_no_capability_changes_the_list_of_its_own_sandbox(house: House) -> None:
    connected = Connected(house.records, Standing(house.records), Keys(house.records, cache_s=0.0), cache_s=0.0)
    giver = await Keys(house.records).authenticate((await Keys(house.records).create("giver")).text)
    listed = {"network": NetworkMode.LISTED, "allow": ("pypi.org",)}
    other = await create(house, giver, **listed)
    for resources in (None, frozenset[str]()):
        sandbox = await create(house, giver, capability=Grant(DEFAULT_SCOPES, resources), **listed)
        inside = await connected.authenticate(connected.name(Live(sandbox)))
        with pytest.raises(Forbidden):
            await house.sandboxes.set_allowed(inside, sandbox.id, ["*"])
        assert (await house.sandboxes.get(giver, sandbox.id)).spec.allow == ("pypi.org",)
        if resources is None:  # those of its owner's others it does
            assert (await house.sandboxes.set_allowed(inside, other.id, ["*"])).spec.allow == ("*",)


async def test_a_name_means_nothing_once_its_sandbox_has_ended(house: House) -> None:
    connected = Connected(house.records, Standing(house.records), Keys(house.records, cache_s=0.0), cache_s=0.0)
    sandbox = await create(house, capability=READ)
    live = Live(sandbox)
    name = connected.name(live)
    live.sandbox = await house.sandboxes.kill(ALICE, sandbox.id)
    with pytest.raises(Unauthenticated):
        await connected.authenticate(name)
    connected.forget(sandbox.id)


async def test_a_sandbox_that_another_made_names_its_maker(house: House) -> None:
    maker = await create(house)
    made = await create(house, replace(ALICE, credential=maker.id), maker="sess_" + "0" * 12)
    stored = await house.records.get_sandbox(made.id)
    assert stored is not None and (maker.spec.maker, stored.spec.maker) == ("", maker.id)
