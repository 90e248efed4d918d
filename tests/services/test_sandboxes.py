"""Sandboxes: create, look, end; who may, and what stands in the records."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from atoll.domain.errors import Conflict, Forbidden, InvalidInput, NotFound, QuotaExceeded
from atoll.domain.ids import SANDBOX_ID, new_sandbox_id
from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import NetworkMode, Port, Resources, SandboxSpec, SandboxState
from atoll.services.limits import Limits
from atoll.testing.fake_runtime import FakeRuntime

from .conftest import ALICE, BOB, OWNER, QUICK, House, until

S = SandboxState


async def test_create_runs_it_with_two_writes_and_one_make(house: House) -> None:
    sandbox = await house.create()
    assert SANDBOX_ID.match(sandbox.id)
    assert (sandbox.state, sandbox.owner, sandbox.runtime) == (S.RUNNING, ALICE.id, "fake")
    assert sandbox.handle == {"boot_id": "boot-1"}
    assert sandbox.started_at is not None
    assert house.records.writes == 2
    assert await house.actions(sandbox) == ["sandbox.created", "sandbox.started"]
    assert await house.record(sandbox) == sandbox


async def test_an_exec_in_a_live_sandbox_needs_no_records_at_all(house: House) -> None:
    sandbox = await house.create()
    house.records.down = True
    result = await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("echo", "hi")))
    assert (result.stdout, result.exit.code) == (b"hi\n", 0)
    house.records.down = False


async def test_get_and_list_show_only_ones_own(house: House) -> None:
    mine, theirs = await house.create(), await house.create(principal=BOB)
    assert (await house.sandboxes.get(ALICE, mine.id)).id == mine.id
    assert [s.id for s in await house.sandboxes.list(ALICE)] == [mine.id]
    assert [s.id for s in await house.sandboxes.list(BOB, states={S.RUNNING})] == [theirs.id]
    assert await house.sandboxes.list(BOB, states={S.STOPPED}) == []
    assert await house.sandboxes.list(OWNER) == []


async def test_a_foreign_id_an_unknown_id_and_nonsense_get_the_same_answer(house: House) -> None:
    mine = await house.create()
    files, processes, ports = house.sandboxes.files, house.sandboxes.processes, house.sandboxes.ports

    async def chunks():
        yield b"x"

    calls = [
        lambda p, i: house.sandboxes.get(p, i),
        lambda p, i: house.sandboxes.stop(p, i),
        lambda p, i: house.sandboxes.kill(p, i),
        lambda p, i: house.sandboxes.remove(p, i),
        lambda p, i: house.sandboxes.keepalive(p, i),
        lambda p, i: house.sandboxes.pause(p, i),
        lambda p, i: house.sandboxes.resume(p, i),
        lambda p, i: house.sandboxes.usage(p, i),
        lambda p, i: processes.start(p, i, ProcessSpec(("true",))),
        lambda p, i: processes.run(p, i, ProcessSpec(("true",))),
        lambda p, i: processes.attach(p, i),
        lambda p, i: processes.list(p, i),
        lambda p, i: processes.signal(p, i, "main", 15),
        lambda p, i: processes.stop(p, i, "main"),
        lambda p, i: processes.wait(p, i),
        lambda p, i: files.read(p, i, "/x"),
        lambda p, i: files.write(p, i, "/x", chunks()),
        lambda p, i: files.list(p, i, "/"),
        lambda p, i: files.stat(p, i, "/"),
        lambda p, i: files.make_dir(p, i, "/x"),
        lambda p, i: files.remove(p, i, "/x"),
        lambda p, i: files.move(p, i, "/x", "/y"),
        lambda p, i: ports.dial(p, i, 80),
        lambda p, i: ports.url(p, i, 80),
    ]
    for principal in (BOB, OWNER):
        for call in calls:
            messages = set()
            for sandbox_id in (mine.id, new_sandbox_id(), "../../etc/passwd", "", "x" * 10_000):
                with pytest.raises(NotFound) as caught:
                    await call(principal, sandbox_id)
                messages.add(str(caught.value))
            assert messages == {"session not found"}
    assert await house.state(mine) is S.RUNNING


@pytest.mark.parametrize("missing", sorted(DEFAULT_SCOPES))
async def test_each_call_needs_its_scope(house: House, missing: Scope) -> None:
    mine = await house.create()
    limited = Principal(ALICE.id, KeyKind.STANDARD, DEFAULT_SCOPES - {missing})
    sandboxes, files, processes = house.sandboxes, house.sandboxes.files, house.sandboxes.processes

    async def chunks():
        yield b"x"

    needs = {
        Scope.EXECUTE: [
            lambda: sandboxes.create(limited, SandboxSpec()),
            lambda: sandboxes.stop(limited, mine.id),
            lambda: sandboxes.kill(limited, mine.id),
            lambda: sandboxes.remove(limited, mine.id),
            lambda: sandboxes.keepalive(limited, mine.id),
            lambda: sandboxes.pause(limited, mine.id),
            lambda: sandboxes.resume(limited, mine.id),
            lambda: processes.start(limited, mine.id, ProcessSpec(("true",))),
            lambda: processes.run(limited, mine.id, ProcessSpec(("true",))),
            lambda: processes.attach(limited, mine.id),
            lambda: processes.signal(limited, mine.id, "main", 15),
            lambda: processes.stop(limited, mine.id, "main"),
            lambda: sandboxes.ports.dial(limited, mine.id, 80),
        ],
        Scope.READ: [
            lambda: sandboxes.get(limited, mine.id),
            lambda: sandboxes.list(limited),
            lambda: sandboxes.usage(limited, mine.id),
            lambda: processes.list(limited, mine.id),
            lambda: processes.wait(limited, mine.id),
            lambda: files.read(limited, mine.id, "/x"),
            lambda: files.list(limited, mine.id, "/"),
            lambda: files.stat(limited, mine.id, "/"),
            lambda: sandboxes.ports.url(limited, mine.id, 80),
        ],
        Scope.WRITE: [
            lambda: files.write(limited, mine.id, "/x", chunks()),
            lambda: files.make_dir(limited, mine.id, "/x"),
            lambda: files.remove(limited, mine.id, "/x"),
            lambda: files.move(limited, mine.id, "/x", "/y"),
        ],
    }
    for call in needs[missing]:
        with pytest.raises(Forbidden, match=missing.value):
            await call()
    assert await house.state(mine) is S.RUNNING
    assert len(house.host.sandboxes) == 1


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("image", SandboxSpec(image="")),
        ("image", SandboxSpec(image="python:3.12")),
        ("command", SandboxSpec(command=("",))),
        ("command", SandboxSpec(command=("a\0b",))),
        ("command", SandboxSpec(command=("\udc80",))),
        ("command", SandboxSpec(command=("x" * 200_000,))),
        ("env", SandboxSpec(env={"": "x"})),
        ("env", SandboxSpec(env={"A=B": "x"})),
        ("env", SandboxSpec(env={"A": "x\0"})),
        ("env", SandboxSpec(env={f"V{n}": "x" for n in range(2000)})),
        ("workDir", SandboxSpec(work_dir="relative")),
        ("workDir", SandboxSpec(work_dir="/a\0")),
        ("cols", SandboxSpec(tty=True, cols=0)),
        ("rows", SandboxSpec(tty=True, rows=70_000)),
        ("resources.cpuMillis", SandboxSpec(resources=Resources(cpu_millis=0))),
        ("resources.cpuMillis", SandboxSpec(resources=Resources(cpu_millis=8_001))),
        ("resources.memoryMB", SandboxSpec(resources=Resources(memory_bytes=2**40))),
        ("resources.memoryMB", SandboxSpec(resources=Resources(memory_bytes=-1))),
        ("resources.diskMB", SandboxSpec(resources=Resources(disk_bytes=0))),
        ("resources.inodes", SandboxSpec(resources=Resources(inodes=1))),
        ("resources.pids", SandboxSpec(resources=Resources(pids=10**9))),
        ("resources.timeoutMs", SandboxSpec(resources=Resources(timeout_s=0))),
        ("resources.timeoutMs", SandboxSpec(resources=Resources(timeout_s=float("nan")))),
        ("resources.timeoutMs", SandboxSpec(resources=Resources(timeout_s=10**9))),
        ("resources.idleMs", SandboxSpec(resources=Resources(idle_s=float("inf")))),
        ("resources.maxAgeMs", SandboxSpec(resources=Resources(max_age_s=-5))),
        ("ports", SandboxSpec(ports=(Port(80),))),
        ("ports", SandboxSpec(network=NetworkMode.EXPOSED, ports=(Port(0),))),
        ("ports", SandboxSpec(network=NetworkMode.EXPOSED, ports=(Port(80), Port(80)))),
        ("ports", SandboxSpec(network=NetworkMode.EXPOSED, ports=(Port(80, "udp"),))),
        ("ports", SandboxSpec(network=NetworkMode.EXPOSED, ports=tuple(Port(n) for n in range(1, 99)))),
        ("setup", SandboxSpec(setup=("FROM scratch",))),
        ("setup", SandboxSpec(setup=("echo hi\n  from other",))),
        ("setup", SandboxSpec(setup=("",))),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_recorded(house: House, field: str, spec: SandboxSpec) -> None:
    with pytest.raises(InvalidInput) as caught:
        await house.sandboxes.create(ALICE, spec)
    assert caught.value.field == field
    assert field.split(".")[0] in caught.value.message
    assert house.records.writes == 0
    assert not house.host.sandboxes


@pytest.mark.parametrize("name", ["", " ", "x" * 129, "a\nb", "\udc80"])
async def test_a_name_is_short_and_printable(house: House, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await house.sandboxes.create(ALICE, SandboxSpec(), name=name)
    assert caught.value.field == "name"


async def test_an_unknown_image_lists_what_exists(house: House) -> None:
    with pytest.raises(InvalidInput, match=r"python:3.12.*there are: host"):
        await house.create(image="python:3.12")


async def test_the_quota_holds_for_standard_keys_under_concurrency(house: House) -> None:
    results = await asyncio.gather(*(house.create() for _ in range(9)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    assert len(refused) == 9 - QUICK.sandboxes_per_key
    for error in refused:
        assert isinstance(error, QuotaExceeded)
        assert error.message == "concurrent session limit reached (5/5)"
    assert len(house.host.sandboxes) == QUICK.sandboxes_per_key
    await house.sandboxes.kill(ALICE, (await house.sandboxes.list(ALICE))[0].id)
    await house.create()
    for _ in range(QUICK.sandboxes_per_key + 1):
        await house.create(principal=OWNER)


async def test_the_server_holds_no_more_than_its_maximum(house: House) -> None:
    house.limits = replace(QUICK, sandboxes_max=2)
    await house.restart()
    await house.create(principal=OWNER)
    await house.create(principal=OWNER)
    with pytest.raises(QuotaExceeded, match="maximum of 2"):
        await house.create(principal=OWNER)


async def test_a_maximum_age_of_the_operator_holds_for_those_that_ask_for_none(house: House) -> None:
    house.limits = replace(QUICK, max_age_s_max=0.2)
    await house.restart()
    sandbox = await house.create()
    assert sandbox.spec.resources.max_age_s == 0.2
    await until(lambda: _is(house, sandbox.id, S.KILLED))
    assert (await house.record(sandbox)).reason == "max_age"


async def test_stop_terminates_waits_and_destroys(house: House) -> None:
    sandbox = await house.create("sleep", "100")
    stopped = await house.sandboxes.stop(ALICE, sandbox.id)
    assert (stopped.state, stopped.reason, stopped.exit_code, stopped.exit_signal) == (
        S.STOPPED,
        "stopped",
        143,
        15,
    )
    assert stopped.ended_at is not None
    assert stopped.usage.duration_s > 0
    assert not house.host.sandboxes
    assert await house.actions(sandbox) == [
        "sandbox.created",
        "sandbox.started",
        "sandbox.stopping",
        "sandbox.stopped",
    ]


async def test_stop_kills_what_ignores_term_after_the_grace(house: House) -> None:
    sandbox = await house.create("sh", "-c", "trap '' TERM; sleep 100")
    await asyncio.sleep(0.02)
    started = asyncio.get_running_loop().time()
    stopped = await house.sandboxes.stop(ALICE, sandbox.id, grace_s=0.1)
    assert 0.1 <= asyncio.get_running_loop().time() - started < 1
    assert (stopped.exit_code, stopped.exit_signal) == (137, 9)


@pytest.mark.parametrize("command", [(), ("sleep", "100")])
async def test_stop_lets_exec_d_processes_end_by_term_too(house: House, command: tuple[str, ...]) -> None:
    sandbox = await house.create(*command)
    stream = await house.sandboxes.processes.start(ALICE, sandbox.id, ProcessSpec(("sleep", "100")))
    inside = house.host.sandboxes[sandbox.id].processes[stream.id]
    assert (await house.sandboxes.stop(ALICE, sandbox.id)).exit_signal == (15 if command else None)
    assert inside.exit is not None
    assert inside.exit.signal == 15


async def test_a_second_stop_waits_for_the_first_and_a_later_one_is_a_conflict(house: House) -> None:
    sandbox = await house.create("sh", "-c", "trap '' TERM; sleep 100")
    await asyncio.sleep(0.02)
    both = await asyncio.gather(house.sandboxes.stop(ALICE, sandbox.id), house.sandboxes.stop(ALICE, sandbox.id))
    assert [one.state for one in both] == [S.STOPPED, S.STOPPED]
    for end in (house.sandboxes.stop, house.sandboxes.kill):
        with pytest.raises(Conflict, match=r"^session already stopped$"):
            await end(ALICE, sandbox.id)


async def test_stop_goes_on_when_its_caller_goes_away(house: House) -> None:
    sandbox = await house.create("sh", "-c", "trap '' TERM; sleep 100")
    await asyncio.sleep(0.02)
    caller = asyncio.create_task(house.sandboxes.stop(ALICE, sandbox.id, grace_s=0.1))
    await asyncio.sleep(0.03)
    caller.cancel()
    await until(lambda: _is(house, sandbox.id, S.STOPPED))


@pytest.mark.parametrize("grace_s", [-1, 1e9, float("nan")])
async def test_a_grace_has_bounds(house: House, grace_s: float) -> None:
    sandbox = await house.create()
    with pytest.raises(InvalidInput, match="grace"):
        await house.sandboxes.stop(ALICE, sandbox.id, grace_s=grace_s)


async def test_kill_ends_it_at_once_and_wins_over_a_stop(house: House) -> None:
    sandbox = await house.create("sh", "-c", "trap '' TERM; sleep 100")
    await asyncio.sleep(0.02)
    stopping = asyncio.create_task(house.sandboxes.stop(ALICE, sandbox.id, grace_s=5))
    await until(lambda: _is(house, sandbox.id, S.STOPPING))
    killed = await house.sandboxes.kill(ALICE, sandbox.id)
    assert (killed.state, killed.reason) == (S.KILLED, "killed")
    assert (await stopping).state is S.KILLED
    assert await house.state(sandbox) is S.KILLED
    assert not house.host.sandboxes


async def test_a_kill_while_it_is_made_wins(house: House) -> None:
    await house.restart(FakeRuntime(house.host, make_s=0.2))
    creating = asyncio.create_task(house.create("sleep", "100"))
    await until(lambda: len(house.host.sandboxes) == 1)
    sandbox_id = next(iter(house.host.sandboxes))
    killed = await house.sandboxes.kill(ALICE, sandbox_id)
    assert killed.state is S.KILLED
    with pytest.raises((Conflict, NotFound)):
        await creating
    assert await house.state(sandbox_id) is S.KILLED
    assert not house.host.sandboxes


async def test_a_kill_before_the_make_wins(house: House) -> None:
    class Late(FakeRuntime):
        async def make(self, sandbox_id, spec):
            await asyncio.sleep(0.2)
            return await super().make(sandbox_id, spec)

    await house.restart(Late(house.host))
    creating = asyncio.create_task(house.create())
    await until(lambda: house.records.writes == 1)
    sandbox_id = (await house.sandboxes.list(ALICE))[0].id
    await house.sandboxes.kill(ALICE, sandbox_id)
    with pytest.raises(Conflict, match=r"^session already killed$"):
        await creating
    assert not house.host.sandboxes
    assert await house.state(sandbox_id) is S.KILLED


async def test_a_create_whose_caller_goes_away_leaves_no_sandbox(house: House) -> None:
    await house.restart(FakeRuntime(house.host, make_s=0.1))
    creating = asyncio.create_task(house.create())
    await until(lambda: len(house.host.sandboxes) == 1)
    sandbox_id = next(iter(house.host.sandboxes))
    creating.cancel()
    await until(lambda: _is(house, sandbox_id, S.KILLED))
    await until(lambda: not house.host.sandboxes)
    assert (await house.record(sandbox_id)).reason == "abandoned"


async def test_racing_ends_have_one_winner_and_legal_states(house: House) -> None:
    for _ in range(20):
        sandbox = await house.create("sleep", "0.01")
        ends = [house.sandboxes.stop, house.sandboxes.kill, house.sandboxes.kill, house.sandboxes.stop]
        results = await asyncio.gather(*(end(ALICE, sandbox.id) for end in ends), return_exceptions=True)
        assert all(isinstance(result, Conflict) or not isinstance(result, BaseException) for result in results)
        record = await house.record(sandbox)
        assert not record.live
        actions = await house.actions(sandbox)
        enders = {"sandbox.stopped", "sandbox.killed", "sandbox.exited", "sandbox.ended"}
        assert len([action for action in actions if action in enders]) == 1
        assert sandbox.id not in house.host.sandboxes


async def test_remove_hides_an_ended_one_and_refuses_a_live_one(house: House) -> None:
    sandbox = await house.create()
    with pytest.raises(Conflict, match="running"):
        await house.sandboxes.remove(ALICE, sandbox.id)
    await house.sandboxes.kill(ALICE, sandbox.id)
    await house.sandboxes.remove(ALICE, sandbox.id)
    assert await house.sandboxes.list(ALICE) == []
    with pytest.raises(NotFound):
        await house.sandboxes.get(ALICE, sandbox.id)
    with pytest.raises(NotFound):
        await house.sandboxes.remove(ALICE, sandbox.id)


async def test_keepalive_moves_the_deadline_but_not_past_the_maximum_age(house: House) -> None:
    sandbox = await house.create(resources=Resources(timeout_s=0.3, max_age_s=0.9))
    for _ in range(4):
        await asyncio.sleep(0.15)
        kept = await house.sandboxes.keepalive(ALICE, sandbox.id)
    assert kept.state is S.RUNNING
    assert await house.state(sandbox) is S.RUNNING  # 0.6 s: twice its timeout
    await until(lambda: _is(house, sandbox.id, S.KILLED))
    record = await house.record(sandbox)
    assert record.reason in ("timeout", "max_age")
    with pytest.raises(InvalidInput):
        another = await house.create()
        await house.sandboxes.keepalive(ALICE, another.id, timeout_s=10**9)


async def test_keepalive_s_default_does_not_grow_over_a_restart(house: House) -> None:
    sandbox = await house.create(resources=Resources(timeout_s=0.4))
    await asyncio.sleep(0.2)
    kept = await house.sandboxes.keepalive(ALICE, sandbox.id)
    assert kept.spec.resources.timeout_s == 0.4
    await house.restart()
    await house.sandboxes.keepalive(ALICE, sandbox.id)
    assert (await house.record(sandbox)).spec.resources.timeout_s == 0.4
    await house.sandboxes.keepalive(ALICE, sandbox.id, timeout_s=0.5)
    assert (await house.record(sandbox)).spec.resources.timeout_s == 0.5
    await until(lambda: _is(house, sandbox.id, S.KILLED), within_s=1.0)


async def test_keepalive_leaves_what_changed_meanwhile(house: House) -> None:
    class Moving(FakeRuntime):
        async def set_deadline(self, sandbox_id: str, resources: Resources) -> None:
            record = await house.record(sandbox_id)
            moved = replace(record.spec, work_dir="/moved")
            await house.records.swap_sandbox(replace(record, spec=moved), None)
            await super().set_deadline(sandbox_id, resources)

    await house.restart(Moving(house.host))
    sandbox = await house.create(resources=Resources(timeout_s=5.0))
    await house.sandboxes.keepalive(ALICE, sandbox.id, timeout_s=6.0)
    spec = (await house.record(sandbox)).spec
    assert (spec.work_dir, spec.resources.timeout_s) == ("/moved", 6.0)


async def test_pause_freezes_and_resume_thaws(house: House) -> None:
    sandbox = await house.create()
    await house.sandboxes.pause(ALICE, sandbox.id)
    with pytest.raises(Conflict, match="paused"):
        await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("true",)))
    await house.sandboxes.pause(ALICE, sandbox.id)
    await house.sandboxes.resume(ALICE, sandbox.id)
    await house.sandboxes.resume(ALICE, sandbox.id)
    result = await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("true",)))
    assert result.exit.code == 0
    await house.sandboxes.pause(ALICE, sandbox.id)
    assert (await house.sandboxes.kill(ALICE, sandbox.id)).state is S.KILLED


async def test_stop_of_a_paused_one_still_ends_its_main_process_with_term(house: House) -> None:
    sandbox = await house.create("sleep", "100")
    await house.sandboxes.pause(ALICE, sandbox.id)
    assert (await house.sandboxes.stop(ALICE, sandbox.id)).exit_signal == 15


async def test_usage_counts_bytes_and_commands_live_and_at_the_end(house: House) -> None:
    sandbox = await house.create()

    async def chunks():
        yield b"x" * 700
        yield b"y" * 300

    await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("cat",)), stdin=b"12345")
    await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("echo", "hi")))
    await house.sandboxes.files.write(ALICE, sandbox.id, "/tmp/f", chunks())
    _, content = await house.sandboxes.files.read(ALICE, sandbox.id, "/tmp/f")
    assert b"".join([chunk async for chunk in content]) == b"x" * 700 + b"y" * 300
    usage = await house.sandboxes.usage(ALICE, sandbox.id)
    assert (usage.bytes_in, usage.bytes_out, usage.exec_count) == (1005, 1008, 2)
    assert usage.duration_s > 0
    assert usage.memory_peak_bytes > 0
    usages = await house.sandboxes.usages(ALICE, await house.sandboxes.list(ALICE))
    assert usages[sandbox.id].bytes_out == 1008
    assert usages[sandbox.id].duration_s >= usage.duration_s
    assert await house.sandboxes.usages(BOB, [sandbox]) == {}
    await house.sandboxes.reconciler.flush_usage()
    await house.sandboxes.reconciler.flush_usage()
    assert (await house.record(sandbox)).usage.bytes_in == 1005
    await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("echo", "hi")))
    final = (await house.sandboxes.kill(ALICE, sandbox.id)).usage
    assert (final.bytes_in, final.bytes_out, final.exec_count) == (1005, 1011, 3)
    assert await house.sandboxes.usage(ALICE, sandbox.id) == final


async def test_limits_that_the_documentation_promises_are_the_defaults() -> None:
    limits = Limits()
    assert (limits.cpu_millis_max, limits.memory_bytes_max) == (8_000, 8 * 2**30)


async def _is(house: House, sandbox_id: str, state: SandboxState) -> bool:
    return await house.state(sandbox_id) is state
