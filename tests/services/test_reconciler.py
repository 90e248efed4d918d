"""The reconciler: after any crash records and sandboxes agree, ends are honest, and a delete has won."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, Unavailable
from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import ENDED, Resources, Sandbox, SandboxSpec, SandboxState
from atoll.records.base import KeyUse
from atoll.services.saved_log import log_path
from atoll.testing.fake_runtime import FakeRuntime
from atoll.testing.memory_records import MemoryRecords

from .conftest import ALICE, QUICK, House, until

S = SandboxState


class Died(BaseException):
    """The server dies here: no handler of ours sees more than a kill -9 would leave it."""


async def recorded(house: House, state: SandboxState, *, made: bool, **fields: object) -> Sandbox:
    """A record in some state, and its sandbox if it was made, as an earlier server left them."""
    sandbox = Sandbox(
        id=new_sandbox_id(),
        owner=ALICE.id,
        spec=SandboxSpec(),
        runtime="fake",
        created_at=datetime.now(UTC),
        handle={"boot_id": house.host.boot_id},
        **fields,  # type: ignore[arg-type]
    )
    sandbox = replace(sandbox, state=state, ended_at=datetime.now(UTC) if state in ENDED else None)
    await house.records.add_sandbox(sandbox, house.sandboxes._access.event("test", sandbox))
    if made:
        await FakeRuntime(house.host).make(sandbox.id, sandbox.spec)
    return sandbox


@pytest.mark.parametrize(
    ("before", "made", "after", "reason"),
    [
        (S.PENDING, False, S.FAILED, "interrupted"),
        (S.PENDING, True, S.RUNNING, None),
        (S.BUILDING, False, S.FAILED, "interrupted"),
        (S.BUILDING, True, S.RUNNING, None),
        (S.RUNNING, False, S.FAILED, "lost"),
        (S.RUNNING, True, S.RUNNING, None),
        (S.SUSPENDING, False, S.SUSPENDED, "suspended"),
        (S.SUSPENDING, True, S.RUNNING, None),
        (S.SUSPENDED, False, S.SUSPENDED, None),
        (S.SUSPENDED, True, S.SUSPENDED, None),
        (S.STOPPING, False, S.STOPPED, "stopped"),
        (S.STOPPING, True, S.STOPPED, "stopped"),
        (S.STOPPED, False, S.STOPPED, None),
        (S.STOPPED, True, S.STOPPED, None),
        (S.KILLED, True, S.KILLED, None),
        (S.FAILED, True, S.FAILED, None),
    ],
)
async def test_every_pair_of_record_and_reality_comes_to_agree(
    house: House, before: SandboxState, made: bool, after: SandboxState, reason: str | None
) -> None:
    await house.sandboxes.close()
    sandbox = await recorded(house, before, made=made)
    await house.restart()
    record = await house.record(sandbox)
    assert (record.state, record.reason) == (after, reason)
    assert (sandbox.id in house.host.sandboxes) is (after is S.RUNNING)
    if after is S.RUNNING:
        result = await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("echo", "hi")))
        assert result.stdout == b"hi\n"
    again = await house.sandboxes.reconciler.run()
    assert (again.adopted, again.ended, again.destroyed) == ([], [], [])


async def test_a_suspended_sandbox_is_not_removed_like_an_ended_one(house: House) -> None:
    sandbox = await recorded(house, S.SUSPENDED, made=False)
    with pytest.raises(Conflict, match="session is suspended: stop it first"):
        await house.sandboxes.remove(ALICE, sandbox.id)
    assert await house.records.count_live(ALICE.id) == 0
    assert await house.records.prune_sandboxes(datetime.now(UTC) + timedelta(days=1)) == 0
    assert (await house.record(sandbox)).state is S.SUSPENDED


async def test_after_a_reboot_records_say_so(house: House) -> None:
    sandboxes = [await house.create() for _ in range(3)]
    await house.host.reboot()
    await house.restart()
    for sandbox in sandboxes:
        record = await house.record(sandbox)
        assert (record.state, record.reason) == (S.FAILED, "host_restarted")
    assert await house.sandboxes.list(ALICE, states={S.RUNNING}) == []


async def test_the_boot_id_tells_a_reboot_from_a_loss(house: House) -> None:
    sandbox = await house.create()
    house.host.sandboxes.clear()
    await house.sandboxes.reconciler.run()
    assert (await house.record(sandbox)).reason == "lost"
    other = await house.create()
    house.host.sandboxes.clear()
    house.host.boot_id = "boot-2"
    await house.sandboxes.reconciler.run()
    assert (await house.record(other)).reason == "host_restarted"


async def test_a_main_process_is_watched_again_after_a_restart(house: House) -> None:
    sandbox = await house.create("sh", "-c", "echo before; cat; exit 6")
    await house.restart()
    stream = await house.sandboxes.processes.attach(ALICE, sandbox.id)
    await stream.write_stdin(b"after\n")
    await stream.close_stdin()
    assert b"".join([data async for _, data in stream]) == b"before\nafter\n"
    await stream.close()
    await until(lambda: _ended(house, sandbox))
    assert (await house.record(sandbox)).exit_code == 6


async def test_a_paused_sandbox_is_still_known_as_paused_after_a_restart(house: House) -> None:
    sandbox = await recorded(house, S.RUNNING, made=True)
    await FakeRuntime(house.host).pause(sandbox.id)
    await house.sandboxes.reconciler.run()
    with pytest.raises(Conflict, match="paused"):
        await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("echo", "hi")))
    await house.sandboxes.resume(ALICE, sandbox.id)
    assert (await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("echo", "hi")))).stdout == b"hi\n"


async def test_a_main_process_that_ended_while_the_server_was_down_is_recorded(house: House) -> None:
    sandbox = await house.create("sh", "-c", "sleep 0.05; echo out; exit 8")
    await house.sandboxes.close()
    await asyncio.sleep(0.1)
    house.build()
    await house.sandboxes.start()
    await until(lambda: _ended(house, sandbox))
    assert (await house.record(sandbox)).exit_code == 8
    stream = await house.sandboxes.processes.attach(ALICE, sandbox.id)
    assert b"".join([data async for _, data in stream]) == b"out\n"


async def test_what_ended_by_itself_while_the_server_was_down_keeps_its_reason(house: House) -> None:
    sandbox = await house.create(resources=Resources(timeout_s=0.15))
    await house.sandboxes.close()
    await until(lambda: not house.host.sandboxes)
    house.build()
    await house.sandboxes.start()
    record = await house.record(sandbox)
    assert (record.state, record.reason) == (S.KILLED, "timeout")


async def test_an_orphan_is_destroyed_after_its_grace_and_not_before(house: House) -> None:
    house.limits = replace(QUICK, orphan_grace_s=0.2)
    await house.restart()
    orphan = new_sandbox_id()
    await FakeRuntime(house.host).make(orphan, SandboxSpec())
    await FakeRuntime(house.host).make("not-even-an-id", SandboxSpec())
    assert (await house.sandboxes.reconciler.run()).destroyed == []
    assert len(house.host.sandboxes) == 2
    await asyncio.sleep(0.25)
    assert sorted((await house.sandboxes.reconciler.run()).destroyed) == sorted([orphan, "not-even-an-id"])
    assert not house.host.sandboxes


async def test_what_is_being_made_is_left_alone(house: House) -> None:
    await house.restart(FakeRuntime(house.host, make_s=0.2))
    creating = asyncio.create_task(house.create())
    await until(lambda: len(house.host.sandboxes) == 1)
    outcome = await house.sandboxes.reconciler.run()
    assert (outcome.adopted, outcome.ended, outcome.destroyed) == ([], [], [])
    assert (await creating).state is S.RUNNING


async def test_passes_beside_busy_callers_harm_nobody(house: House) -> None:
    async def passes() -> None:
        for _ in range(100):
            await house.sandboxes.reconciler.run()
            await house.sandboxes.reconciler.flush_usage()
            await asyncio.sleep(0)

    async def life() -> None:
        for _ in range(10):
            sandbox = await house.create()
            result = await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("echo", "hi")))
            assert result.stdout == b"hi\n"
            assert (await house.sandboxes.stop(ALICE, sandbox.id)).state is S.STOPPED

    await asyncio.gather(passes(), *(life() for _ in range(4)))
    for record in await house.records.list_sandboxes():
        assert (record.state, record.reason, record.usage.exec_count) == (S.STOPPED, "stopped", 1)


@pytest.mark.parametrize("point", sorted(name for name in crash.POINTS if name.startswith("sandboxes.")))
@pytest.mark.parametrize("operation", ["create", "stop", "kill", "exit"])
async def test_a_server_that_dies_anywhere_leaves_what_the_next_one_can_finish(
    house: House, point: str, operation: str
) -> None:
    """C01 in one process: the operation is cut at the point, its server forgotten, and a new one started."""
    reached = asyncio.Event()

    def die(name: str) -> None:
        reached.set()
        raise Died(name)

    async def act() -> None:
        if operation == "create":
            await house.create("sleep", "100")
            return
        command = ("sleep", "0.05") if operation == "exit" else ("sleep", "100")
        sandbox = await house.create(*command) if not armed_late else existing
        if operation == "exit":
            await until(lambda: _ended(house, sandbox), within_s=0.3)
        else:
            await getattr(house.sandboxes, operation)(ALICE, sandbox.id)

    armed_late = operation != "create" and not point.startswith("sandboxes.create")
    existing = None
    if armed_late:
        command = ("sleep", "0.05") if operation == "exit" else ("sleep", "100")
        existing = await house.create(*command)
    with crash.armed(point, die):
        try:
            await act()
        except (Died, TimeoutError):
            pass
        await asyncio.sleep(0.05)
    was_reached = reached.is_set()
    await house.restart()
    await house.sandboxes.reconciler.run()
    for record in await house.records.list_sandboxes(removed=None):
        assert record.live is (record.id in house.host.sandboxes)
        assert record.state in ENDED | {S.RUNNING}
        if was_reached and operation in ("stop", "kill") and armed_late:
            assert record.state in ENDED  # what was asked for and recorded is done
    assert set(house.host.sandboxes) <= {record.id for record in await house.records.list_sandboxes()}
    sandbox = await house.create()
    assert (await house.sandboxes.kill(ALICE, sandbox.id)).state is S.KILLED


async def test_every_crash_point_of_sandboxes_without_workspaces_is_reached(house: House) -> None:
    points = {name for name in crash.POINTS if name.startswith("sandboxes.")}
    points -= {name for name in points if name.startswith(("sandboxes.suspend.", "sandboxes.resume."))}
    seen: set[str] = set()
    for point in points:
        with crash.armed(point, seen.add):
            await house.sandboxes.stop(ALICE, (await house.create("sleep", "100")).id)
            await house.sandboxes.kill(ALICE, (await house.create()).id)
            ended = await house.create("true")
            await until(lambda ended=ended: _ended(house, ended))
            await until(lambda: not house.host.sandboxes)
    assert seen == points


@pytest.mark.parametrize("point", sorted(name for name in crash.POINTS if name.startswith("sandboxes.create")))
async def test_a_create_that_fails_anywhere_leaves_a_clean_slate_at_once(house: House, point: str) -> None:
    def fail(name: str) -> None:
        raise RuntimeError(name)

    with crash.armed(point, fail), pytest.raises(AtollError):
        await house.create("sleep", "100")
    assert not house.host.sandboxes
    (record,) = await house.sandboxes.list(ALICE)
    assert (record.state, record.reason) == (S.FAILED, "internal error")
    assert await house.records.count_live() == 0


class Failing(MemoryRecords):
    """Its nth write fails."""

    fail_at = 0

    async def swap_sandbox(self, sandbox, event, **more):
        self._count()
        return await super().swap_sandbox(sandbox, event, **more)

    async def add_sandbox(self, sandbox, event, **more):
        self._count()
        return await super().add_sandbox(sandbox, event, **more)

    def _count(self) -> None:
        self.fail_at -= 1
        if self.fail_at == 0:
            self.down = True
            self._check()


@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_records_that_go_down_at_any_write_leave_what_comes_to_agree(house: House, at: int, end: str) -> None:
    await house.sandboxes.close()
    house.records = records = Failing()
    house.build()
    await house.sandboxes.start()
    records.fail_at = at
    try:
        sandbox = await house.create("sleep", "100")
        await getattr(house.sandboxes, end)(ALICE, sandbox.id)
    except AtollError:
        pass
    records.down = False
    await house.sandboxes.reconciler.run()
    await house.sandboxes.reconciler.run()
    for record in await records.list_sandboxes(removed=None):
        assert record.live is (record.id in house.host.sandboxes)
    assert set(house.host.sandboxes) <= {record.id for record in await records.list_sandboxes()}


class Unsure(MemoryRecords):
    """Loses its connection in the middle of a commit: the nth write is done, and looks failed."""

    lose_at = 0

    async def swap_sandbox(self, sandbox, event, **more):
        after = await super().swap_sandbox(sandbox, event, **more)
        self._lose()
        return after

    async def add_sandbox(self, sandbox, event, **more):
        used = await super().add_sandbox(sandbox, event, **more)
        self._lose()
        return used

    def _lose(self) -> None:
        self.lose_at -= 1
        if self.lose_at == 0:
            raise Unavailable("the connection was lost")


@pytest.mark.parametrize("at", range(1, 6))
@pytest.mark.parametrize("end", ["stop", "kill", "exit"])
async def test_a_write_that_landed_and_looked_failed_comes_to_agree(house: House, at: int, end: str) -> None:
    await house.sandboxes.close()
    house.records = records = Unsure()
    house.build()
    await house.sandboxes.start()
    records.lose_at = at
    try:
        sandbox = await house.create("sleep", "0.02" if end == "exit" else "100")
        if end == "exit":
            await asyncio.sleep(0.1)
        else:
            await getattr(house.sandboxes, end)(ALICE, sandbox.id)
    except AtollError:
        pass
    await house.sandboxes.reconciler.run()
    await house.sandboxes.reconciler.run()
    if end == "exit":
        await until(lambda: not house.host.sandboxes)
    for record in await records.list_sandboxes(removed=None):
        assert record.live is (record.id in house.host.sandboxes)
    assert set(house.host.sandboxes) <= {record.id for record in await records.list_sandboxes()}
    assert len(house.sandboxes._access.lives) == len(house.host.sandboxes)


@pytest.mark.parametrize("how", ["exit", "timeout"])
async def test_an_end_while_the_records_are_down_is_recorded_when_they_are_back(house: House, how: str) -> None:
    if how == "exit":
        sandbox = await house.create("sh", "-c", "sleep 0.1; exit 3")
    else:
        sandbox = await house.create(resources=Resources(timeout_s=0.1))
    house.records.down = True
    await asyncio.sleep(0.3)
    house.records.down = False
    await until(lambda: _ended(house, sandbox))
    record = await house.record(sandbox)
    assert (record.reason, record.exit_code) == (("exited", 3) if how == "exit" else ("timeout", None))
    await until(lambda: not house.host.sandboxes)


async def test_old_records_logs_and_key_uses_are_pruned(house: House) -> None:
    sandbox = await house.create("true")
    await until(lambda: _ended(house, sandbox))
    await until(lambda: not house.host.sandboxes)
    path = log_path(house.data, sandbox.id)
    old = datetime.now(UTC) - timedelta(days=365)
    await house.records.log_key_use([KeyUse(ALICE.id, "/x", "GET", 200, old, None, None)])
    await house.sandboxes.reconciler.prune()
    assert path.exists()
    record = await house.record(sandbox)
    await house.records.swap_sandbox(replace(record, ended_at=old), None)
    os.utime(path, (old.timestamp(), old.timestamp()))
    await house.sandboxes.reconciler.prune()
    assert not path.exists()
    assert await house.records.get_sandbox(sandbox.id) is None
    assert house.records._uses == []


async def test_the_timer_reconciles_by_itself(house: House) -> None:
    house.limits = replace(QUICK, reconcile_every_s=0.05)
    await house.restart()
    sandbox = await house.create()
    house.host.sandboxes.clear()
    await until(lambda: _ended(house, sandbox))


async def _ended(house: House, sandbox: Sandbox) -> bool:
    return not (await house.record(sandbox)).live
