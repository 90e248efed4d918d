"""Processes: run, start, attach, and what is left of a main process that has ended."""

from __future__ import annotations

import asyncio

import pytest

from atoll.domain.errors import Conflict, DeadlineExceeded, InvalidInput, NotFound
from atoll.domain.process import Exit, ProcessSpec
from atoll.domain.sandbox import Resources, SandboxState
from atoll.services.saved_log import log_path
from atoll.sidekick.client import ProcessStream
from atoll.sidekick.protocol import STDERR, STDOUT

from .conftest import ALICE, House, until

S = SandboxState


async def output(stream: ProcessStream) -> bytes:
    async with asyncio.timeout(3):
        return b"".join([data async for _, data in stream])


async def ended(house: House, sandbox_id: str) -> bool:
    return not (await house.record(sandbox_id)).live


async def test_run_tells_output_and_exit(house: House) -> None:
    sandbox = await house.create(env={"WHO": "you"}, work_dir="/srv")
    run = house.sandboxes.processes.run
    result = await run(ALICE, sandbox.id, ProcessSpec(("sh", "-c", "echo $WHO; pwd; echo no >&2; exit 3")))
    assert (result.stdout, result.stderr, result.exit.code) == (b"you\n/srv\n", b"no\n", 3)
    result = await run(ALICE, sandbox.id, ProcessSpec(("cat",)), stdin=b"in")
    assert result.stdout == b"in"
    result = await run(ALICE, sandbox.id, ProcessSpec(("flood", "1000")), max_output_bytes=10)
    assert (len(result.stdout), result.truncated) == (10, True)
    result = await run(ALICE, sandbox.id, ProcessSpec(("sleep", "9"), timeout_s=0.05))
    assert result.exit.timed_out
    await house.sandboxes.files.make_dir(ALICE, sandbox.id, "below")
    assert (await run(ALICE, sandbox.id, ProcessSpec(("pwd",), cwd="below"))).stdout == b"/srv/below\n"


async def test_a_cancelled_run_leaves_no_process(house: House) -> None:
    sandbox = await house.create()
    running = asyncio.create_task(house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("sleep", "100"))))
    await until(lambda: house.host.sandboxes[sandbox.id].processes)
    running.cancel()
    process = house.host.sandboxes[sandbox.id].processes["p1"]
    await until(lambda: process.exit is not None)


async def test_a_storm_of_cancelled_runs_leaves_no_process(house: House) -> None:
    sandbox = await house.create()
    tasks = []
    for number in range(200):
        spec = ProcessSpec(("sh", "-c", "echo x; sleep 50"))
        tasks.append(asyncio.create_task(house.sandboxes.processes.run(ALICE, sandbox.id, spec)))
        await asyncio.sleep(0.0001 * (number % 7))
        tasks[number // 2].cancel()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    processes = house.host.sandboxes[sandbox.id].processes
    await until(lambda: all(process.exit is not None for process in processes.values()))


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("cmd", ProcessSpec(())),
        ("cmd", ProcessSpec(("",))),
        ("cmd", ProcessSpec(("a\0",))),
        ("cmd", ProcessSpec(tuple("x" for _ in range(5000)))),
        ("env", ProcessSpec(("true",), env={"": ""})),
        ("cwd", ProcessSpec(("true",), cwd="")),
        ("cwd", ProcessSpec(("true",), cwd="/no/such")),
        ("cols", ProcessSpec(("true",), tty=True, cols=-1)),
        ("rows", ProcessSpec(("true",), tty=True, rows=10**6)),
        ("timeout", ProcessSpec(("true",), timeout_s=0)),
        ("timeout", ProcessSpec(("true",), timeout_s=float("nan"))),
        ("timeout", ProcessSpec(("true",), timeout_s=float("inf"))),
    ],
)
async def test_a_wrong_field_of_a_command_is_named(house: House, field: str, spec: ProcessSpec) -> None:
    sandbox = await house.create()
    for call in (house.sandboxes.processes.run, house.sandboxes.processes.start):
        with pytest.raises(InvalidInput) as caught:
            await call(ALICE, sandbox.id, spec)
        assert caught.value.field == field


async def test_streams_list_signal_stop_and_wait(house: House) -> None:
    sandbox = await house.create()
    processes = house.sandboxes.processes
    stream = await processes.start(ALICE, sandbox.id, ProcessSpec(("cat",), stdin=True))
    await stream.write_stdin(b"hello")
    await stream.close_stdin()
    assert await output(stream) == b"hello"
    assert stream.exit == Exit(0, duration_s=stream.exit.duration_s if stream.exit else 0)
    await stream.close()
    again = await processes.attach(ALICE, sandbox.id, stream.id, offset=2)
    assert await output(again) == b"llo"
    await again.close()
    sleeper = await processes.start(ALICE, sandbox.id, ProcessSpec(("sleep", "100")))
    with pytest.raises(DeadlineExceeded):
        await processes.wait(ALICE, sandbox.id, sleeper.id, timeout_s=0.02)
    assert [info.id for info in await processes.list(ALICE, sandbox.id)] == [stream.id, sleeper.id]
    await processes.signal(ALICE, sandbox.id, sleeper.id, 10)
    assert (await processes.wait(ALICE, sandbox.id, sleeper.id, timeout_s=2)).signal == 10
    with pytest.raises(Conflict):
        await processes.signal(ALICE, sandbox.id, sleeper.id, 10)
    for number in (0, 65, -1):
        with pytest.raises(InvalidInput, match="signal"):
            await processes.signal(ALICE, sandbox.id, sleeper.id, number)
    for unknown in ("p99", "", "x" * 1000):
        with pytest.raises(NotFound):
            await processes.attach(ALICE, sandbox.id, unknown)
    with pytest.raises(InvalidInput, match="offset"):
        await processes.attach(ALICE, sandbox.id, sleeper.id, offset=-1)
    with pytest.raises(Conflict, match="no main process"):
        await processes.attach(ALICE, sandbox.id)
    assert (await processes.stop(ALICE, sandbox.id, sleeper.id, grace_s=0)).signal == 10
    await sleeper.close()


async def test_the_end_of_the_main_process_ends_the_sandbox_and_keeps_its_output(house: House) -> None:
    sandbox = await house.create("sh", "-c", "echo out; echo err >&2; exit 5")
    await until(lambda: ended(house, sandbox.id))
    record = await house.record(sandbox)
    assert (record.state, record.reason, record.exit_code, record.exit_signal) == (S.STOPPED, "exited", 5, None)
    await until(lambda: not house.host.sandboxes)
    stream = await house.sandboxes.processes.attach(ALICE, sandbox.id)
    assert [piece async for piece in stream] == [(STDOUT, b"out\n"), (STDERR, b"err\n")]
    assert stream.exit is not None
    assert stream.exit.code == 5
    await stream.write_stdin(b"nobody")
    await stream.close()
    late = await house.sandboxes.processes.attach(ALICE, sandbox.id, offset=6)
    assert (late.first_offset, await output(late), late.offset) == (6, b"r\n", 8)
    after = await house.sandboxes.processes.attach(ALICE, sandbox.id, offset=999)
    assert (after.first_offset, await output(after)) == (8, b"")
    assert (await house.sandboxes.processes.wait(ALICE, sandbox.id)).code == 5
    with pytest.raises(Conflict, match="session not running: status=stopped"):
        await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("true",)))
    with pytest.raises(Conflict, match="session not running: status=stopped"):
        await house.sandboxes.processes.attach(ALICE, sandbox.id, "p1")


async def test_the_log_outlives_the_server_and_goes_with_the_record(house: House) -> None:
    sandbox = await house.create("echo", "kept")
    await until(lambda: ended(house, sandbox.id))
    await house.restart()
    assert await output(await house.sandboxes.processes.attach(ALICE, sandbox.id)) == b"kept\n"
    await house.sandboxes.remove(ALICE, sandbox.id)
    assert not log_path(house.data, sandbox.id).exists()


async def test_a_damaged_log_is_no_log(house: House) -> None:
    sandbox = await house.create("echo", "kept")
    await until(lambda: ended(house, sandbox.id))
    path = log_path(house.data, sandbox.id)
    whole = path.read_bytes()
    for damaged in (whole[:-3], whole[:3], b"", b"\xff" * 100):
        path.write_bytes(damaged)
        if damaged == whole[:-3]:
            assert damaged != whole
        with pytest.raises(Conflict, match="session not running: status=stopped"):
            await house.sandboxes.processes.attach(ALICE, sandbox.id)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_attaching_to_one_that_was_ended_says_how_it_is(house: House, end: str) -> None:
    sandbox = await house.create("sh", "-c", "echo x; sleep 100")
    record = await getattr(house.sandboxes, end)(ALICE, sandbox.id)
    with pytest.raises(Conflict, match=f"^session not running: status={record.state}$"):
        await house.sandboxes.processes.attach(ALICE, sandbox.id)


async def test_an_end_by_signal_is_recorded_as_one(house: House) -> None:
    sandbox = await house.create("sh", "-c", "kill -9 $$; sleep 5")
    await until(lambda: ended(house, sandbox.id))
    record = await house.record(sandbox)
    assert (record.state, record.exit_code, record.exit_signal) == (S.STOPPED, 137, 9)


async def test_attached_clients_read_the_end_before_the_sandbox_goes(house: House) -> None:
    sandbox = await house.create("sh", "-c", "sleep 0.05; flood 200000; exit 4")
    streams = [await house.sandboxes.processes.attach(ALICE, sandbox.id) for _ in range(3)]
    await until(lambda: ended(house, sandbox.id))
    assert house.host.sandboxes  # they have not read it yet
    for stream in streams:
        assert len(await output(stream)) == 200_000
        assert stream.exit is not None
        assert stream.exit.code == 4
        await stream.close()
    await until(lambda: not house.host.sandboxes)


async def test_a_client_that_does_not_read_holds_the_sandbox_for_a_moment_only(house: House) -> None:
    sandbox = await house.create("sh", "-c", "sleep 0.02; echo x")
    stream = await house.sandboxes.processes.attach(ALICE, sandbox.id)
    await until(lambda: ended(house, sandbox.id))
    await until(lambda: not house.host.sandboxes, within_s=1)
    await stream.close()


async def test_a_stream_under_a_kill_says_how_it_ended(house: House) -> None:
    sandbox = await house.create("sleep", "100")
    main = await house.sandboxes.processes.attach(ALICE, sandbox.id)
    other = await house.sandboxes.processes.start(ALICE, sandbox.id, ProcessSpec(("sleep", "100")))
    readers = [asyncio.create_task(output(stream)) for stream in (main, other)]
    await asyncio.sleep(0.02)
    await house.sandboxes.kill(ALICE, sandbox.id)
    for reader in readers:
        with pytest.raises(Conflict, match="session not running: status=killed"):
            await reader
    await main.close()
    await other.close()


@pytest.mark.parametrize(
    ("limits", "state", "reason"),
    [
        ({"timeout_s": 0.1}, S.KILLED, "timeout"),
        ({"max_age_s": 0.1}, S.KILLED, "max_age"),
        ({"idle_s": 0.1}, S.STOPPED, "idle"),
    ],
)
async def test_ends_by_the_runtime_are_recorded_with_their_reason(
    house: House, limits: dict[str, float], state: SandboxState, reason: str
) -> None:
    sandbox = await house.create(resources=Resources(**limits))  # type: ignore[arg-type]
    await until(lambda: ended(house, sandbox.id))
    record = await house.record(sandbox)
    assert (record.state, record.reason) == (state, reason)
    assert record.usage.duration_s >= 0.09
    assert record.ended_at is not None


async def test_a_timeout_that_passes_while_it_is_made_is_not_lost(house: House) -> None:
    sandbox = await house.create(resources=Resources(timeout_s=0.1))
    house.host.end(house.host.sandboxes[sandbox.id], "timeout")
    await until(lambda: ended(house, sandbox.id))
    assert (await house.record(sandbox)).reason == "timeout"
