"""Group L: whatever programs do with signals, children and streams, they end when they must and nothing stays."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest

from atoll.domain.errors import NotFound, Unavailable
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import SandboxSpec
from tests.ground import ROOT_ONLY, Ground, Tenant, until
from tests.oracles import children, descriptors

pytestmark = ROOT_ONLY

MB = 2**20


async def pids(tenant: Tenant) -> int:
    """How many processes are in the sandbox, its sidekick included."""
    sidekick = await tenant.pid()
    group = next(
        line.split(":", 2)[2] for line in Path(f"/proc/{sidekick}/cgroup").read_text().splitlines() if "pids" in line
    )
    return int(Path(f"/sys/fs/cgroup/pids{group}/pids.current").read_text())


DETACHED = "setsid sh -c \"trap '' TERM HUP; sleep 100; sleep 100\""
STUBBORN = {
    "in its session": "trap '' TERM HUP INT; sleep 100 & (trap '' TERM; sleep 100) & wait; sleep 100",
    "in sessions of their own": f"trap '' TERM HUP INT; {DETACHED} & sleep 100",
    "whose leader ends at once": f"{DETACHED} & (trap '' TERM; sleep 99) & sleep 100",
}


@pytest.mark.parametrize("kind", STUBBORN)
async def test_l01_what_ignores_every_signal_ends_at_its_deadline(kind: str, ground: Ground) -> None:
    mallory = await ground.make()
    started = time.monotonic()
    result = await mallory.sh(STUBBORN[kind], timeout_s=0.5)
    took_s = time.monotonic() - started
    assert result.exit.timed_out
    assert 0.45 < took_s < 2.5  # TERM at 0.5, KILL a second later
    await until(lambda: _alone(mallory), "no child left", 2)


@pytest.mark.parametrize("kind", STUBBORN)
async def test_l01_stop_ends_the_whole_tree_after_its_grace(kind: str, ground: Ground) -> None:
    mallory = await ground.make()
    process = await mallory.start("sh", "-c", STUBBORN[kind])
    await asyncio.sleep(0.2)
    exit_ = await mallory.inside.stop(process, grace_s=0.4)
    assert exit_.signal in (signal.SIGKILL, signal.SIGTERM)
    await until(lambda: _alone(mallory), "no child left", 2)


async def _alone(tenant: Tenant) -> bool:
    return await pids(tenant) == 1


async def test_l01_a_sandbox_of_stubborn_programs_ends_at_its_own_deadline(ground: Ground) -> None:
    command = ("sh", "-c", "trap '' TERM HUP INT QUIT; while :; do sleep 1; done")
    mallory = await ground.make(SandboxSpec(command=command))
    started = time.monotonic()
    await ground.runtime.destroy(mallory.id)
    assert time.monotonic() - started < 2


async def test_l02_an_orphan_holds_no_stream_open_and_dies_with_the_sandbox(ground: Ground) -> None:
    mallory = await ground.make()
    started = time.monotonic()
    result = await mallory.sh("(setsid sleep 100 &) ; (setsid sh -c 'sleep 100; echo late' & ) ; echo early")
    assert result.stdout == b"early\n"
    assert time.monotonic() - started < 2
    await until(lambda: _number(mallory, 4), "both orphans and what one of them runs")
    sidekick = await mallory.pid()
    orphans = children(sidekick)
    assert len(orphans) == 2
    await ground.runtime.destroy(mallory.id)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in orphans)


async def _number(tenant: Tenant, count: int) -> bool:
    return await pids(tenant) == count


async def test_l02_an_orphan_that_writes_on_does_not_hold_its_parents_exit_back(ground: Ground) -> None:
    mallory = await ground.make()
    for tty in (False, True):
        started = time.monotonic()
        result = await mallory.sh("trap '' HUP; (yes & ) ; sleep 0.2; exit 3", tty=tty)
        assert result.exit.code == 3
        assert time.monotonic() - started < 3
        await mallory.sh("pkill yes; true")


async def test_l03_zombies_of_others_are_reaped(ground: Ground) -> None:
    mallory = await ground.make(pids=300)
    farm = """
import os, sys
for _ in range(10_000 // 200):
    if os.fork() == 0:
        for _ in range(200):
            if os.fork() == 0: os._exit(0)
        os._exit(0)  # two hundred that nobody waited for are left to pid 1
    os.wait()
"""
    result = await mallory.python(farm, within_s=40)
    assert result.exit.code == 0, result.stderr
    await until(lambda: _alone(mallory), "pid 1 has reaped them")
    node = ground.leaks.node()
    assert not [pid for pid in children(node) if " Z " in Path(f"/proc/{pid}/stat").read_text()]


async def test_l04_stdin_is_bounded_and_its_end_is_told(ground: Ground) -> None:
    mallory = await ground.make()
    sidekick = await mallory.pid()
    before = _resident(sidekick)
    reader = await mallory.inside.start(ProcessSpec(("sleep", "100"), stdin=True))

    async def pour() -> None:
        for _ in range(1024):
            await reader.write_stdin(bytes(MB))

    pouring = asyncio.create_task(pour())
    await asyncio.sleep(1)
    assert not pouring.done()
    assert _resident(sidekick) - before < 8 * MB
    assert await mallory.answers()
    pouring.cancel()
    await asyncio.gather(pouring, return_exceptions=True)
    await reader.close()
    cat = await mallory.inside.start(ProcessSpec(("cat",), stdin=True))
    await cat.write_stdin(b"once")
    await cat.close_stdin()
    async with asyncio.timeout(5):
        assert b"".join([data async for _, data in cat]) == b"once"
    await cat.close()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_l06_every_exit_code_and_signal_is_told_apart(ground: Ground) -> None:
    mallory = await ground.make()
    codes = await asyncio.gather(*(mallory.inside.run(ProcessSpec(("sh", "-c", f"exit {n}"))) for n in range(256)))
    assert [(result.exit.code, result.exit.signal) for result in codes] == [(n, None) for n in range(256)]
    ignored = {signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT}
    stopping = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    deadly = [int(number) for number in signal.valid_signals() if number not in ignored | stopping]
    # dash takes no number above 64 and Python none that it does not know: the kernel is asked directly
    program = """
import os, sys, signal
for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
os.kill(os.getpid(), int(sys.argv[1]))
"""
    for at in range(0, len(deadly), 8):
        group = deadly[at : at + 8]
        specs = [ProcessSpec(("python3", "-I", "-S", "-c", program, str(number))) for number in group]
        results = await asyncio.gather(*(mallory.inside.run(spec) for spec in specs))
        assert [(r.exit.code, r.exit.signal) for r in results] == [(128 + n, n) for n in group]
    assert not list(Path("/").glob("core*"))
    assert (await mallory.sh("ls / /tmp /home/user | grep core")).stdout == b""


async def test_l06_a_program_that_asks_to_be_traced_goes_on_and_ends_as_it_says(ground: Ground) -> None:
    """Its tracer would be pid 1, which had to restart it at every signal."""
    mallory = await ground.make()
    program = """
import ctypes, os, signal, sys
ctypes.CDLL(None).ptrace(0, 0, 0, 0)
signal.signal(signal.SIGUSR1, lambda *_: print("usr1", flush=True))
os.kill(os.getpid(), signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGCHLD)
if len(sys.argv) == 1:
    ctypes.CDLL(None).ptrace(0, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, "-c", sys.stdin.read(), "again"])
print("over", flush=True)
sys.exit(23)
"""
    stdin = "import sys; print('executed'); sys.exit(23)"
    result = await mallory.inside.run(
        ProcessSpec(("python3", "-c", program), stdin=True, timeout_s=5), stdin=stdin.encode()
    )
    assert result.stdout == b"usr1\nexecuted\n"
    assert (result.exit.code, result.exit.timed_out) == (23, False)
    again = await mallory.inside.run(ProcessSpec(("python3", "-c", program, "x"), timeout_s=5))
    assert (again.stdout, again.exit.code) == (b"usr1\nover\n", 23)
    dies = "import ctypes, os; ctypes.CDLL(None).ptrace(0, 0, 0, 0); os.kill(os.getpid(), 15)"
    assert (await mallory.inside.run(ProcessSpec(("python3", "-c", dies), timeout_s=5))).exit.signal == 15


async def test_l08_a_storm_of_cut_clients_leaves_nothing(ground: Ground) -> None:
    mallory = await ground.make()
    await mallory.sh("true")
    sidekick = await mallory.pid()
    before = sum(descriptors(sidekick).values())
    dice = random.Random(500)
    scripts = ("sleep 0.05", "yes | head -c 500000", "cat", "exit 3", "sleep 0.01; echo out; echo err >&2")

    async def cut() -> None:
        script, tty = dice.choice(scripts), dice.random() < 0.2
        spec = ProcessSpec(("sh", "-c", script), stdin=dice.random() < 0.5, tty=tty, timeout_s=2)
        running = asyncio.create_task(mallory.inside.run(spec, stdin=b"x" * dice.randrange(100_000)))
        await asyncio.sleep(dice.random() * 0.03)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    for _ in range(25):
        await asyncio.gather(*(cut() for _ in range(20)))
    await until(lambda: _alone(mallory), "all programs have ended", 10)
    await until(lambda: sum(descriptors(sidekick).values()) <= before, "its descriptors are closed")
    assert all(process.exit is not None for process in await mallory.inside.processes())
    assert await mallory.answers()


async def test_l09_destroy_wins_whatever_else_goes_on(ground: Ground) -> None:
    async def endless() -> object:
        while True:
            yield bytes(65_536)
            await asyncio.sleep(0)

    async def all_of(stream: object) -> None:
        async for _ in stream:  # type: ignore[attr-defined]
            pass

    for _ in range(5):
        mallory = await ground.make()
        await mallory.sh("head -c 5000000 /dev/urandom > /tmp/big")
        inside = mallory.inside
        terminal = await inside.start(ProcessSpec(("sh", "-c", "while :; do echo x; done"), tty=True))
        _, contents = await inside.read_file("/tmp/big")
        busy = [
            asyncio.create_task(work)
            for work in (
                mallory.sh("sleep 100"),
                mallory.sh("yes"),
                inside.write_file("/tmp/up", endless()),  # type: ignore[arg-type]
                all_of(terminal),
                all_of(contents),
                inside.remove("/tmp/big"),
                ground.runtime.pause(mallory.id),
                ground.runtime.stats(mallory.id),
            )
        ]
        await asyncio.sleep(0.05)
        winners = await asyncio.wait_for(asyncio.gather(*(ground.runtime.destroy(mallory.id) for _ in range(3))), 5)
        assert winners[0] is not None
        done = await asyncio.wait_for(asyncio.gather(*busy, return_exceptions=True), 10)
        errors = [error for error in done if isinstance(error, BaseException)]
        assert all(isinstance(error, (NotFound, Unavailable)) for error in errors), errors
        await terminal.close()
        assert await ground.runtime.find(mallory.id) is None
