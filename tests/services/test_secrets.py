"""Secrets: whose they are, what may be done with them, and that a value stands nowhere but in the process it is for."""

from __future__ import annotations

import secrets as randomness
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import (
    Conflict,
    Corrupt,
    Forbidden,
    InvalidInput,
    NotFound,
    TooLarge,
    Unavailable,
    Unsupported,
)
from atoll.domain.group import Group, Member, Role
from atoll.domain.ids import new_id
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import SandboxSpec
from atoll.domain.secret import GivenAs, SecretUse
from atoll.services.clock import utc_now
from atoll.services.sandbox_parts import make_sandbox_parts
from atoll.services.sandboxes import Sandboxes
from atoll.services.secret_giving import SecretGiving
from atoll.services.secrets import VALUE_BYTES_MAX, NoSecret, Secrets
from atoll.testing.fake_runtime import FakeHost, FakeRuntime
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault
from atoll.testing.records_conformance import event

from .conftest import ALICE, BOB, QUICK, READER

GROUP = "grp_" + "a" * 24
FILE = GivenAs.FILE


def of_group(principal: Principal, role: Role, group: str = GROUP) -> Principal:
    return replace(principal, groups={group: role})


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()


@pytest.fixture
def vault() -> MemoryVault:
    return MemoryVault()


@pytest.fixture
def secrets(records: MemoryRecords, vault: MemoryVault) -> Secrets:
    return Secrets(records, vault)


@pytest.fixture
async def sandboxes(records: MemoryRecords, secrets: Secrets, tmp_path: Path) -> AsyncIterator[Sandboxes]:
    runtime = FakeRuntime(FakeHost())
    service = Sandboxes(
        make_sandbox_parts(records, runtime, tmp_path, limits=QUICK, secrets=SecretGiving(records, secrets))
    )
    await service.start()
    yield service
    await service.close()
    await runtime.shutdown()


async def group(records: MemoryRecords, *members: tuple[Principal, Role]) -> None:
    now = utc_now()
    first, *others = [Member(GROUP, who.id, role, now) for who, role in members]
    await records.add_group(Group(GROUP, "g", now, now), first, event(GROUP, "group.created"))
    for member in others:
        await records.put_member(member, event(GROUP, "group.member_added"))


async def sh(sandboxes: Sandboxes, who: Principal, sandbox_id: str, script: str, *uses: SecretUse) -> bytes:
    spec = ProcessSpec(("sh", "-c", script), secrets=uses)
    return (await sandboxes.processes.run(who, sandbox_id, spec)).stdout


async def main_output(sandboxes: Sandboxes, who: Principal, sandbox_id: str) -> bytes:
    stream = await sandboxes.processes.attach(who, sandbox_id)
    return b"".join([data async for _, data in stream])


# the secrets themselves


async def test_a_secret_is_kept_listed_rotated_and_deleted(secrets: Secrets) -> None:
    made = await secrets.create(ALICE, "TOKEN", b"one", hosts=["API.Example.org.", "é.org"], description="d")
    assert (made.name, made.owner, made.revision, made.hosts[0]) == ("TOKEN", ALICE.id, 1, "api.example.org")
    assert made.hosts[1:] == ("xn--9ca.org",)  # as it is compared
    assert await secrets.values.open(made) == b"one"
    assert await secrets.get(ALICE, "TOKEN") == made == await secrets.get(ALICE, made.id)
    await secrets.create(ALICE, "A", b"x")
    assert [one.name for one in await secrets.list(ALICE)] == ["A", "TOKEN"]
    rotated = await secrets.change(ALICE, "TOKEN", value=b"two")
    assert (rotated.revision, rotated.hosts, rotated.rotated_at is None) == (2, made.hosts, False)
    assert await secrets.values.open(rotated) == b"two"
    changed = await secrets.change(ALICE, made.id, hosts=[], description="e")
    assert (changed.revision, changed.hosts, changed.description) == (2, (), "e")
    assert await secrets.values.open(changed) == b"two"
    await secrets.delete(ALICE, "TOKEN")
    with pytest.raises(NoSecret):
        await secrets.get(ALICE, "TOKEN")
    with pytest.raises(NoSecret):
        await secrets.delete(ALICE, made.id)


async def test_each_change_writes_one_event_and_none_has_the_value(secrets: Secrets, records: MemoryRecords) -> None:
    value = randomness.token_hex(16)
    made = await secrets.create(ALICE, "TOKEN", value.encode())
    await secrets.change(ALICE, "TOKEN", value=value.encode() * 2)
    await secrets.change(ALICE, "TOKEN", description="x")
    await secrets.change(ALICE, "TOKEN", description="x")  # nothing changes
    await secrets.delete(ALICE, "TOKEN")
    events = await records.list_events(target=made.id)
    assert [one.action for one in events] == ["secret.created", "secret.rotated", "secret.changed", "secret.deleted"]
    assert {(one.tenant, one.actor) for one in events} == {(ALICE.id, ALICE.id)}
    assert value not in repr(events) and value not in repr(made)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A" * 129, "é", "A\n", "a/b", "A="])
async def test_a_name_is_one_of_a_variable(secrets: Secrets, name: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        await secrets.create(ALICE, name, b"x")
    assert raised.value.field == "name"


@pytest.mark.parametrize(
    "host", ["", "a b", "http://a", "a:1", "a/b", "*", "*.", "a.*.b", "-a.b", "a..b", "localhost", "127.0.0.1", "a\n"]
)
async def test_a_host_is_a_name_or_a_wildcard_of_its_first_part(secrets: Secrets, host: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        await secrets.create(ALICE, "A", b"x", hosts=[host])
    assert raised.value.field == "hosts"


async def test_a_value_has_bounds(secrets: Secrets) -> None:
    with pytest.raises(InvalidInput):
        await secrets.create(ALICE, "A", b"")
    with pytest.raises(TooLarge):
        await secrets.create(ALICE, "A", bytes(VALUE_BYTES_MAX + 1))
    made = await secrets.create(ALICE, "A", bytes(VALUE_BYTES_MAX))
    assert await secrets.values.open(made) == bytes(VALUE_BYTES_MAX)
    with pytest.raises(TooLarge):
        await secrets.change(ALICE, "A", value=bytes(VALUE_BYTES_MAX + 1))


async def test_another_tenants_secret_is_an_unknown_one(secrets: Secrets, sandboxes: Sandboxes) -> None:
    made = await secrets.create(ALICE, "TOKEN", b"x")
    told: set[str] = set()
    for ref in (made.id, "TOKEN", f"{ALICE.id}/TOKEN", new_id("sec"), "OTHER", "", "a/b/c", "é", GROUP + "/X"):
        for call in (
            secrets.get(BOB, ref),
            secrets.change(BOB, ref, value=b"y"),
            secrets.delete(BOB, ref),
            sandboxes.create(BOB, SandboxSpec(command=("true",), secrets=(SecretUse(ref),))),
        ):
            with pytest.raises(NoSecret) as raised:
                await call
            told.add(raised.value.message.removesuffix(f": {ref!r}"))
    assert len(told) == 1
    assert await secrets.list(BOB) == []
    assert await secrets.values.open(await secrets.get(ALICE, "TOKEN")) == b"x"


async def test_each_use_needs_its_scope(secrets: Secrets, sandboxes: Sandboxes) -> None:
    await secrets.create(ALICE, "A", b"x")
    only = {scope: replace(ALICE, scopes=frozenset({scope})) for scope in (Scope.READ, Scope.WRITE, Scope.EXECUTE)}
    assert [one.name for one in await secrets.list(READER)] == ["A"]
    for who in (only[Scope.WRITE], only[Scope.EXECUTE]):
        with pytest.raises(Forbidden):
            await secrets.list(who)
        with pytest.raises(Forbidden):
            await secrets.get(who, "A")
    for who in (READER, only[Scope.EXECUTE]):
        for change in (secrets.create(who, "B", b"x"), secrets.change(who, "A", value=b"y"), secrets.delete(who, "A")):
            with pytest.raises(Forbidden):
                await change
    given = await sandboxes.create(only[Scope.EXECUTE], SandboxSpec(secrets=(SecretUse("A"),)))
    assert given.spec.secrets


async def test_a_credential_with_bounds_lists_its_secret_however_many_stand_before_it(secrets: Secrets) -> None:
    mine = [await secrets.create(ALICE, f"S{number}", b"x") for number in range(4)][-1]
    bound = replace(ALICE, resources=frozenset({mine.id}))
    assert await secrets.list(bound, limit=1) == [mine]


async def test_a_credential_with_bounds_reaches_its_secrets_alone_and_makes_none(secrets: Secrets) -> None:
    mine, other = await secrets.create(ALICE, "MINE", b"x"), await secrets.create(ALICE, "OTHER", b"x")
    bound = replace(ALICE, resources=frozenset({mine.id}))
    assert [one.name for one in await secrets.list(bound)] == ["MINE"]
    assert await secrets.get(bound, "MINE") == mine
    for ref in ("OTHER", other.id):
        with pytest.raises(NoSecret):
            await secrets.get(bound, ref)
    with pytest.raises(Forbidden):
        await secrets.create(bound, "NEW", b"x")


async def test_a_groups_secrets_are_its_members_as_their_roles_allow(
    secrets: Secrets, records: MemoryRecords, sandboxes: Sandboxes
) -> None:
    admin, viewer = of_group(ALICE, Role.ADMIN), of_group(BOB, Role.VIEWER)
    await group(records, (ALICE, Role.ADMIN), (BOB, Role.VIEWER))
    made = await secrets.create(admin, "TOKEN", b"x", group=GROUP)
    assert made.owner == GROUP
    for who in (admin, viewer):
        assert await secrets.list(who) == await secrets.list(who, group=GROUP) == [made]
        assert await secrets.get(who, f"{GROUP}/TOKEN") == await secrets.get(who, "TOKEN", group=GROUP) == made
        with pytest.raises(NoSecret):
            await secrets.get(who, "TOKEN")  # a name alone is one's own
    for call in (
        secrets.create(viewer, "B", b"x", group=GROUP),
        secrets.change(viewer, made.id, value=b"y"),
        secrets.delete(viewer, made.id),
        sandboxes.create(viewer, SandboxSpec(command=("true",), secrets=(SecretUse(made.id),))),
    ):
        with pytest.raises(Forbidden):
            await call
    for call in (secrets.create(BOB, "B", b"x", group=GROUP), secrets.list(BOB, group=GROUP)):
        with pytest.raises(NotFound):
            await call
    sandbox = await sandboxes.create(admin, SandboxSpec(secrets=(SecretUse(f"{GROUP}/TOKEN"),)))
    assert await sh(sandboxes, admin, sandbox.id, "echo $TOKEN") == b"x\n"


# sealing


async def test_rows_that_are_exchanged_do_not_open(secrets: Secrets, records: MemoryRecords) -> None:
    mine = await secrets.create(ALICE, "TOKEN", b"alice's")
    theirs = await secrets.create(BOB, "TOKEN", b"bob's")
    older = await secrets.get(ALICE, "TOKEN")
    newer = await secrets.change(ALICE, "TOKEN", value=b"alice's second")
    for tampered in (
        replace(theirs, key=mine.key, sealed=mine.sealed),
        replace(theirs, sealed=mine.sealed),
        replace(theirs, key=mine.key),
        replace(mine, owner=BOB.id),
        replace(mine, name="OTHER"),
        replace(mine, id=theirs.id),
        replace(newer, key=older.key, sealed=older.sealed),  # the old value in place of the new one
        replace(mine, revision=2),
        replace(mine, sealed=mine.sealed[:-1]),
        replace(mine, sealed=b""),
    ):
        with pytest.raises(Corrupt):
            await secrets.values.open(tampered)


async def test_a_secret_of_another_vault_says_so(secrets: Secrets, vault: MemoryVault) -> None:
    made = await secrets.create(ALICE, "A", b"x")
    with pytest.raises(Unavailable, match="transit"):
        await secrets.values.open(replace(made, vault="transit"))
    vault.available = False
    fresh = Secrets(MemoryRecords(), vault)
    with pytest.raises(Unavailable):
        await fresh.values.open(made)


# given to processes


async def test_a_secret_of_a_command_is_in_its_environment_alone(secrets: Secrets, sandboxes: Sandboxes) -> None:
    await secrets.create(ALICE, "TOKEN", b"t0p")
    sandbox = await sandboxes.create(ALICE, SandboxSpec(command=("sleep", "100")))
    assert await sh(sandboxes, ALICE, sandbox.id, "echo $TOKEN", SecretUse("TOKEN")) == b"t0p\n"
    assert await sh(sandboxes, ALICE, sandbox.id, "echo $OTHER", SecretUse("TOKEN", target="OTHER")) == b"t0p\n"
    assert b"t0p" not in await sh(sandboxes, ALICE, sandbox.id, "env")
    spec = ProcessSpec(("sh", "-c", "echo $TOKEN"), secrets=(SecretUse("TOKEN"),))
    stream = await sandboxes.processes.start(ALICE, sandbox.id, spec)
    assert b"".join([data async for _, data in stream]) == b"t0p\n"
    await stream.close()


async def test_a_secret_of_a_sandbox_is_its_main_processes_alone(secrets: Secrets, sandboxes: Sandboxes) -> None:
    await secrets.create(ALICE, "TOKEN", b"t0p")
    spec = SandboxSpec(command=("sh", "-c", "echo $TOKEN; sleep 0.5"), secrets=(SecretUse("TOKEN"),))
    sandbox = await sandboxes.create(ALICE, spec)
    assert b"t0p" not in await sh(sandboxes, ALICE, sandbox.id, "env")
    assert await main_output(sandboxes, ALICE, sandbox.id) == b"t0p\n"


async def test_without_a_main_process_each_command_has_it(secrets: Secrets, sandboxes: Sandboxes) -> None:
    await secrets.create(ALICE, "TOKEN", b"t0p")
    sandbox = await sandboxes.create(ALICE, SandboxSpec(env={"A": "1"}, secrets=(SecretUse("TOKEN"),)))
    assert await sh(sandboxes, ALICE, sandbox.id, "echo $A $TOKEN") == b"1 t0p\n"


async def test_a_file_lies_where_it_was_asked_for(secrets: Secrets, sandboxes: Sandboxes) -> None:
    await secrets.create(ALICE, "KEY", bytes(range(256)))
    uses = (SecretUse("KEY", FILE), SecretUse("KEY", FILE, "/run/secrets/id_rsa"))
    sandbox = await sandboxes.create(ALICE, SandboxSpec(secrets=uses))
    for path in ("/run/secrets/KEY", "/run/secrets/id_rsa"):
        entry, contents = await sandboxes.files.read(ALICE, sandbox.id, path)
        assert (entry.mode, b"".join([piece async for piece in contents])) == (0o400, bytes(range(256)))
    await secrets.create(ALICE, "LATER", b"x")
    assert await sh(sandboxes, ALICE, sandbox.id, "cat /run/secrets/LATER", SecretUse("LATER", FILE)) == b"x"


async def test_no_record_of_the_sandbox_has_a_value(
    secrets: Secrets, sandboxes: Sandboxes, records: MemoryRecords
) -> None:
    value = randomness.token_hex(16)
    await secrets.create(ALICE, "TOKEN", value.encode())
    uses = (SecretUse("TOKEN"), SecretUse("TOKEN", FILE))
    for command in (("sleep", "100"), ()):
        made = await sandboxes.create(ALICE, SandboxSpec(command=command, secrets=uses))
        await sh(sandboxes, ALICE, made.id, "true", SecretUse("TOKEN", target="X"))
        stored = await records.get_sandbox(made.id)
        assert stored is not None and stored.spec.given.env == {} and stored.spec.given.files == {}
        assert value not in repr(stored) + repr(made) + repr(await records.list_events())
        assert value not in repr(await sandboxes.processes.list(ALICE, made.id))


@pytest.mark.parametrize(
    ("use", "word"),
    [
        (SecretUse("A", FILE, "/etc/x"), "path"),
        (SecretUse("A", FILE, "/run/secrets/../x"), "path"),
        (SecretUse("A", FILE, "/run/secrets/.."), "path"),
        (SecretUse("A", FILE, "/run/secrets/"), "path"),
        (SecretUse("A", FILE, "/run/secrets/a/b"), "path"),
        (SecretUse("A", FILE, "x"), "path"),
        (SecretUse("A", FILE, "/run/secrets/a\n"), "path"),
        (SecretUse("A", target="B C"), "env"),
        (SecretUse("A", target="1"), "env"),
        (SecretUse("A", target="TAKEN"), "TAKEN"),
        (SecretUse("BINARY"), "BINARY"),
        (SecretUse("NUL"), "NUL"),
    ],
)
async def test_a_use_that_cannot_be_is_refused(
    secrets: Secrets, sandboxes: Sandboxes, use: SecretUse, word: str
) -> None:
    for name, value in (("A", b"x"), ("BINARY", b"\xff"), ("NUL", b"a\0b")):
        await secrets.create(ALICE, name, value)
    sandbox = await sandboxes.create(ALICE, SandboxSpec())
    with pytest.raises(InvalidInput, match=word) as raised:
        await sandboxes.create(ALICE, SandboxSpec(command=("true",), env={"TAKEN": "1"}, secrets=(use,)))
    assert raised.value.field == "secrets"
    spec = ProcessSpec(("true",), env={"TAKEN": "1"}, secrets=(use,))
    with pytest.raises(InvalidInput, match=word):
        await sandboxes.processes.run(ALICE, sandbox.id, spec)


async def test_two_secrets_do_not_share_a_place_and_there_are_only_so_many(
    secrets: Secrets, sandboxes: Sandboxes
) -> None:
    await secrets.create(ALICE, "A", b"x")
    for uses in ((SecretUse("A"), SecretUse("A")), tuple(SecretUse("A", target=f"A{n}") for n in range(65))):
        with pytest.raises(InvalidInput):
            await sandboxes.create(ALICE, SandboxSpec(secrets=uses))


async def test_a_brokered_secret_needs_a_gateway(secrets: Secrets, sandboxes: Sandboxes) -> None:
    await secrets.create(ALICE, "A", b"x", hosts=["h.example"])
    with pytest.raises(Unsupported):
        await sandboxes.create(ALICE, SandboxSpec(secrets=(SecretUse("A", GivenAs.BROKER),)))


async def test_a_groups_sandbox_gets_the_groups_secrets_alone(
    secrets: Secrets, records: MemoryRecords, sandboxes: Sandboxes
) -> None:
    """Its other members could read what their colleague alone may use."""
    await group(records, (ALICE, Role.MEMBER), (BOB, Role.ADMIN))
    alice = of_group(ALICE, Role.MEMBER)
    await secrets.create(ALICE, "MINE", b"x")
    await secrets.create(alice, "OURS", b"y", group=GROUP)
    giving = SecretGiving(records, secrets)
    with pytest.raises(InvalidInput):
        await giving.resolve(alice, [SecretUse("MINE")], GROUP)
    uses = await giving.resolve(alice, [SecretUse(f"{GROUP}/OURS")], GROUP)
    assert (await giving.give(uses, GROUP, "sess_0")).env == {"OURS": "y"}


async def test_what_is_given_again_is_the_present_value_and_only_while_it_may_be_used(
    secrets: Secrets, records: MemoryRecords
) -> None:
    await group(records, (BOB, Role.ADMIN), (ALICE, Role.MEMBER))
    alice, giving = of_group(ALICE, Role.MEMBER), SecretGiving(records, secrets)
    await secrets.create(ALICE, "MINE", b"one")
    await secrets.create(alice, "OURS", b"ours", group=GROUP)
    uses = await giving.resolve(alice, [SecretUse("MINE"), SecretUse(f"{GROUP}/OURS")], ALICE.id)
    assert (await giving.give(uses, ALICE.id, "sess_0")).env == {"MINE": "one", "OURS": "ours"}
    await secrets.change(ALICE, "MINE", value=b"two")
    assert (await giving.give(uses, ALICE.id, "sess_0")).env["MINE"] == "two"
    await records.put_member(Member(GROUP, ALICE.id, Role.VIEWER, utc_now()), event(GROUP))
    with pytest.raises(Conflict, match="OURS"):
        await giving.give(uses, ALICE.id, "sess_0")
    await records.delete_member(GROUP, ALICE.id, event(GROUP))
    with pytest.raises(Conflict, match="OURS"):
        await giving.give(uses, ALICE.id, "sess_0")
    await secrets.delete(ALICE, "MINE")
    with pytest.raises(Conflict, match="MINE"):
        await giving.give(uses[:1], ALICE.id, "sess_0")


async def test_a_groups_secrets_and_sandboxes_are_made_under_its_name_too(
    secrets: Secrets, records: MemoryRecords, sandboxes: Sandboxes
) -> None:
    await group(records, (ALICE, Role.ADMIN))
    alice = of_group(ALICE, Role.ADMIN)
    made = await secrets.create(alice, "TOKEN", b"ours", group="g")
    assert made.owner == GROUP
    assert await secrets.list(alice, group="g") == [made]
    assert await secrets.get(alice, "g/TOKEN") == await secrets.get(alice, "TOKEN", group="g") == made
    sandbox = await sandboxes.create(alice, SandboxSpec(), group="g")
    assert sandbox.owner == GROUP
    assert await sh(sandboxes, alice, sandbox.id, "echo $TOKEN", SecretUse("g/TOKEN")) == b"ours\n"
    for call in (secrets.create(BOB, "B", b"x", group="g"), sandboxes.create(BOB, SandboxSpec(), group="g")):
        with pytest.raises(NotFound, match=r"^group not found$"):
            await call
    with pytest.raises(NoSecret):
        await secrets.get(BOB, "g/TOKEN")


async def test_a_name_of_two_groups_means_neither(secrets: Secrets, records: MemoryRecords) -> None:
    await group(records, (ALICE, Role.ADMIN))
    now, other = utc_now(), "grp_" + "b" * 24
    await records.add_group(Group(other, "g", now, now), Member(other, ALICE.id, Role.ADMIN, now), event(other))
    alice = replace(ALICE, groups={GROUP: Role.ADMIN, other: Role.ADMIN})
    with pytest.raises(Conflict, match=rf"2 groups of yours are called 'g': use an id \(({GROUP}|{other}|, )+\)"):
        await secrets.create(alice, "TOKEN", b"x", group="g")
    await secrets.create(alice, "TOKEN", b"x", group=other)


async def test_of_several_secrets_the_one_that_is_not_there_is_named(secrets: Secrets, sandboxes: Sandboxes) -> None:
    await secrets.create(ALICE, "THERE", b"x")
    with pytest.raises(NotFound, match=r"^secret not found: 'NOPE'$"):
        await sandboxes.create(ALICE, SandboxSpec(secrets=(SecretUse("THERE"), SecretUse("NOPE"))))


async def test_a_brokered_secrets_host_must_be_on_the_list(secrets: Secrets, records: MemoryRecords) -> None:
    await secrets.create(ALICE, "TOKEN", b"x", hosts=["api.example.com", "*.example.net"])
    authorities: Any = object()  # only asked when it is given
    giving = SecretGiving(records, secrets, authorities)
    uses = [SecretUse("TOKEN", GivenAs.BROKER)]
    with pytest.raises(InvalidInput, match=r"TOKEN is for api.example.com, \*.example.net, .* \(other.example.com\)"):
        await giving.resolve(ALICE, uses, ALICE.id, allow=["other.example.com"])
    for host in ("api.example.com", "*.example.com", "a.example.net", "*"):
        assert await giving.resolve(ALICE, uses, ALICE.id, allow=["other.example.com", host])
