"""Names of sandboxes: found by their owner and its groups, claimed once, free again when their sandbox has ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from atoll.domain.errors import DeadlineExceeded, Forbidden, InvalidInput, NameTaken, NotFound
from atoll.domain.group import Role
from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import HOST_RESTARTED, Sandbox, SandboxState
from atoll.domain.workspace import WorkspaceMount
from atoll.services.sandbox_names import CHARS_MAX, SandboxNames, check_named
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.records_conformance import event, sandbox

ALICE = Principal("key_a", KeyKind.STANDARD, DEFAULT_SCOPES)


async def added(
    records: MemoryRecords, owner: str = "key_a", state: SandboxState = SandboxState.RUNNING, name: str = "dev"
) -> Sandbox:
    one = replace(sandbox(owner), name=name, namespace="n", state=state)
    await records.add_sandbox(one, event(one.id))
    return one


async def never() -> Sandbox:
    raise AssertionError("nobody asked for another one")


async def test_an_id_stays_as_it_is_and_a_name_is_found() -> None:
    records = MemoryRecords()
    names, one = SandboxNames(records), await added(records)
    assert await names.resolve(ALICE, "sess_000000000000", "n") == "sess_000000000000"
    assert await names.resolve(ALICE, "dev", "n") == one.id
    for name, namespace in (("dev", "other"), ("other", "n"), ("x" * (CHARS_MAX + 1), "n")):
        with pytest.raises(NotFound):
            await names.resolve(ALICE, name, namespace)
    with pytest.raises(NotFound):
        await names.resolve(Principal("key_b", KeyKind.STANDARD, DEFAULT_SCOPES), "dev", "n")
    with pytest.raises(Forbidden):
        await names.find(replace(ALICE, scopes=frozenset({Scope.EXECUTE})), "n", "dev")


async def test_ones_own_goes_before_a_groups_and_bounds_hide_what_they_do_not_name() -> None:
    records = MemoryRecords()
    names = SandboxNames(records)
    theirs = await added(records, "key_team")
    member = replace(ALICE, groups={"key_team": Role.VIEWER})
    found = await names.find(member, "n", "dev")
    assert found is not None
    assert found.id == theirs.id
    own = await added(records)
    found = await names.find(member, "n", "dev")
    assert found is not None
    assert found.id == own.id
    assert await names.find(replace(member, resources=frozenset({"sess_other"})), "n", "dev") is None


async def test_one_that_was_lost_with_its_machine_is_found_until_there_is_another() -> None:
    records = MemoryRecords()
    names, one = SandboxNames(records), await added(records)
    spec = replace(one.spec, workspaces=(WorkspaceMount("ws_1"),))
    await records.swap_sandbox(replace(one.to(SandboxState.FAILED, reason=HOST_RESTARTED), spec=spec), None)
    assert await names.resolve(ALICE, "dev", "n") == one.id
    other = await added(records)
    assert await names.resolve(ALICE, "dev", "n") == other.id


async def test_who_claims_waits_for_what_is_being_made_and_takes_a_name_that_became_free() -> None:
    records = MemoryRecords()
    names, making = SandboxNames(records), await added(records, state=SandboxState.PENDING)
    waiting = asyncio.create_task(names.claim(ALICE, "n", "dev", never))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await records.swap_sandbox(making.to(SandboxState.RUNNING), None)
    found, made = await waiting
    assert (found.id, made) == (making.id, False)
    running = await records.get_sandbox(making.id)
    assert running is not None
    await records.swap_sandbox(running.to(SandboxState.KILLED), None)
    tries = 0

    async def make() -> Sandbox:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise NameTaken  # somebody was quicker, and ended it again
        return await added(records)

    found, made = await names.claim(ALICE, "n", "dev", make)
    assert (made, tries) == (True, 2)
    assert found.id != making.id


async def test_nobody_waits_for_ever() -> None:
    async def taken() -> Sandbox:
        raise NameTaken  # by one that who asks may not see

    records = MemoryRecords()
    names = SandboxNames(records, wait_s=0.05)
    with pytest.raises(DeadlineExceeded):
        await names.claim(ALICE, "n", "dev", taken)
    await added(records, state=SandboxState.BUILDING)
    with pytest.raises(DeadlineExceeded):
        await names.claim(ALICE, "n", "dev", never)


async def test_making_one_takes_as_long_as_it_takes() -> None:
    records = MemoryRecords()

    async def slow() -> Sandbox:
        await asyncio.sleep(0.1)
        return await added(records)

    _, made = await SandboxNames(records, wait_s=0.05).claim(ALICE, "n", "dev", slow)
    assert made


@pytest.mark.parametrize(
    ("name", "namespace", "field"),
    [
        (None, "n", "name"),
        ("", "n", "name"),
        ("a/b", "n", "name"),
        ("x" * (CHARS_MAX + 1), "n", "name"),
        ("sess_000000000000", "n", "name"),
        ("a", "", "namespace"),
        ("a", "\n", "namespace"),
    ],
    ids=["none", "empty", "slash", "long", "an-id", "no-namespace", "unprintable"],
)
def test_what_is_no_name_is_refused(name: str | None, namespace: str, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_named(name, namespace)
    assert refusal.value.field == field
