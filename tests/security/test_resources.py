"""Group R: a tenant who takes all it can get is bounded, and nobody else notices."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict, DeadlineExceeded, NotFound, Unavailable
from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import ProcessSpec, RunResult
from atoll.domain.sandbox import Resources, SandboxSpec
from atoll.sidekick.client import ProcessStream
from tests.ground import ROOT_ONLY, Ground, Tenant
from tests.oracles import children

pytestmark = ROOT_ONLY

MB = 2**20


async def destroyed_within(tenant: Tenant, seconds: float) -> None:
    started = time.monotonic()
    await tenant.runtime.destroy(tenant.id)
    assert time.monotonic() - started < seconds


async def test_r02_programs_are_ended_before_their_sidekick_when_memory_runs_out(ground: Ground) -> None:
    mallory = await ground.make(memory_bytes=96 * MB)
    await mallory.start("sleep", "100")
    sidekick = await mallory.pid()
    (program,) = children(sidekick)
    assert Path(f"/proc/{program}/oom_score_adj").read_text() == "1000\n"
    assert Path(f"/proc/{sidekick}/oom_score_adj").read_text() == "0\n"
    # small programs hold nothing themselves: the memory is in a file
    fills = "for i in 1 2 3 4 5 6; do (sleep 20 & wait) & done; cat /dev/zero > /dev/shm/a; cat /dev/zero > /tmp/a"
    for _ in range(3):
        await mallory.sh(fills, timeout_s=10)
        assert await mallory.pid() == sidekick
    await mallory.sh("rm -f /tmp/a /dev/shm/a")
    assert await mallory.answers()


async def test_r02_system_v_memory_is_bounded_too(ground: Ground) -> None:
    mallory = await ground.make(memory_bytes=128 * MB)
    script = """
import ctypes, json
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
kept = queued = sets = 0
for _ in range(64):  # segments that nobody has attached any more
    segment = libc.shmget(0, ctypes.c_size_t(1 << 20), 0o1600)
    if segment < 0:
        break
    address = libc.shmat(segment, None, 0)
    ctypes.memset(address, 1, 1 << 20)
    libc.shmdt(ctypes.c_void_p(address))
    kept += 1
for _ in range(4096):
    queue = libc.msgget(0, 0o1600)
    if queue < 0:
        break
    while libc.msgsnd(queue, (1).to_bytes(8, "little") + bytes(4096), ctypes.c_size_t(4096), 0o4000) == 0:
        queued += 1
while sets < 40_000 and libc.semget(0, 250, 0o1600) >= 0:
    sets += 1
print(json.dumps([kept, queued, sets]))
"""
    kept, queued, sets = await mallory.told(script)
    assert kept == 16
    assert queued <= 64 * 4
    assert sets <= 128
    assert await mallory.answers()


async def test_r02_terminals_of_one_tenant_do_not_use_up_the_hosts(ground: Ground) -> None:
    mallory = await ground.make()
    count = await mallory.told(
        "import json, os\nopened = []\ntry:\n"
        "    while len(opened) < 2000: opened.append(os.open('/dev/ptmx', os.O_RDWR))\n"
        "except OSError: pass\nprint(json.dumps(len(opened)))"
    )
    assert count == 128


async def test_r02_a_full_disk_of_a_small_sandbox_leaves_it_alive(ground: Ground) -> None:
    for memory in (32 * MB, 64 * MB, 512 * MB):
        mallory = await ground.make(memory_bytes=memory)
        for _ in range(2):
            await mallory.sh(
                "cat /dev/zero > /dev/shm/a; cat /dev/zero > /tmp/a; i=0; while : > /tmp/f$i; do i=$((i+1)); done"
            )
            assert await mallory.answers()
        await ground.runtime.destroy(mallory.id)


async def test_r02_what_the_kernel_counts_by_user_is_counted_for_each_sandbox_alone(ground: Ground) -> None:
    """Unlimited by memory or pids, and shared by all whose user namespaces root made."""
    take = """
import ctypes, json, os, signal
libc = ctypes.CDLL(None, use_errno=True)
def most(call, limit=200_000):
    count = 0
    while count < limit and call() >= 0: count += 1
    return count
watches = most(libc.inotify_init)
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
signals = most(lambda: libc.sigqueue(os.getpid(), 40, None))
class Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in "flags maxmsg msgsize curmsgs a b c d".split()]
rt = ctypes.CDLL("librt.so.1", use_errno=True)
names = iter(range(10_000))
queues = most(lambda: rt.mq_open(f"/q{next(names)}".encode(), os.O_CREAT | os.O_RDWR, 0o600,
    ctypes.byref(Attributes(0, 10, 8192))), 500)
print(json.dumps([watches, signals, queues]), flush=True)
import sys; sys.stdout.close(); os.close(1)
import time; time.sleep(60 if GREEDY else 0)
"""
    mallory, bob = await ground.make(memory_bytes=1024 * MB), await ground.make(memory_bytes=1024 * MB)
    greedy = await mallory.inside.start(ProcessSpec(("python3", "-c", "GREEDY = True" + take)))
    async with asyncio.timeout(30):
        taken = b"".join([data async for _, data in _first(greedy)])
    modest = (await bob.python("GREEDY = False" + take)).stdout
    assert modest == taken
    watches, signals, queues = json.loads(modest)
    assert min(watches, signals, queues) > 0
    ours = [os.fdopen(_inotify()) for _ in range(5)]  # root's own, on the host
    for file in ours:
        file.close()
    await greedy.close()


async def _first(stream: ProcessStream) -> AsyncIterator[tuple[int, bytes]]:
    """Output up to the end of the first line."""
    async for kind, data in stream:
        yield kind, data
        if b"\n" in data:
            return


def _inotify() -> int:
    fd = ctypes.CDLL(None, use_errno=True).inotify_init()
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return fd


BOMBS = {
    "processes": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError as error: print(error.errno, flush=True); break"
    ),
    "threads": (
        "import threading, time\nwhile True:\n    try: threading.Thread(target=time.sleep, args=(100,)).start()\n"
        "    except RuntimeError: print(11, flush=True); break"
    ),
    "shells": "import os\nos.execvp('bash', ['bash', '-c', 'bomb() { bomb | bomb & }; bomb; sleep 30'])",
}


@pytest.mark.parametrize("kind", BOMBS)
async def test_r01_a_fork_bomb_stays_in_its_sandbox(kind: str, ground: Ground) -> None:
    mallory = await ground.make(pids=200, cpu_millis=500)
    bomb = await mallory.inside.start(ProcessSpec(("python3", "-c", BOMBS[kind])))
    if kind != "shells":
        async with asyncio.timeout(20):
            async for _, data in bomb:
                if b"11\n" in data:  # EAGAIN
                    break
    else:
        await asyncio.sleep(1)
    try:
        assert (await mallory.sh("true", within_s=10)).exit.code == 0
    except Unavailable as error:
        assert "limit of processes" in error.message
    assert len(ground.leaks.processes()) < 200 + 100
    await destroyed_within(mallory, 5)
    await bomb.close()


HOGS = {
    "heap": "x = bytearray(1 << 30)",
    "many small": "import os\nfor _ in range(20):\n    if os.fork() == 0:\n        x = bytearray(100 << 20)\n"
    "        import time; time.sleep(20)\nimport time; x = bytearray(1 << 30)",
    "memfd": "import os\nfd = os.memfd_create('x')\nwhile True: os.write(fd, bytes(1 << 20))",
    "anonymous maps": "import mmap\nm = mmap.mmap(-1, 1 << 30)\nfor at in range(0, 1 << 30, 4096): m[at] = 1",
    "pipes": (
        "import os, fcntl\nkept = []\nwhile True:\n    r, w = os.pipe(); kept.append((r, w))\n"
        "    fcntl.fcntl(w, 1031, 1 << 20); os.write(w, bytes(1 << 20))"
    ),
    "sockets": "import socket\nkept = []\nwhile True:\n    a, b = socket.socketpair(); kept.append((a, b))\n"
    "    a.setsockopt(1, 7, 1 << 20); a.setblocking(False)\n    try:\n        while True: a.send(bytes(65536))\n"
    "    except OSError: pass",
}


@pytest.mark.parametrize("kind", HOGS)
async def test_r02_a_memory_hog_is_ended_and_says_so(kind: str, ground: Ground) -> None:
    mallory = await ground.make(memory_bytes=128 * MB)
    result = await mallory.python(HOGS[kind], timeout_s=15)
    if kind in ("pipes", "sockets"):  # the kernel bounds these by user as well: the hog then meets an error first
        assert result.exit.oom_killed or result.exit.code == 1, result
    else:
        assert (result.exit.code, result.exit.oom_killed) == (137, True), result
    through_a_shell = await mallory.sh("python3 -c 'x = bytearray(1 << 30)'; exit $?")
    assert (through_a_shell.exit.code, through_a_shell.exit.oom_killed) == (137, True)
    await mallory.inside.stop_all(0)  # a hog's children that outlived it would be killed meanwhile
    assert not (await mallory.sh("exit 137")).exit.oom_killed
    assert await mallory.answers()


async def test_r02_the_page_cache_of_files_is_given_back_instead(ground: Ground) -> None:
    mallory = await ground.make(memory_bytes=64 * MB, disk_bytes=300 * MB)
    result = await mallory.sh("head -c 200000000 /dev/zero > /tmp/big && cat /tmp/big /tmp/big | wc -c", timeout_s=20)
    assert result.stdout.strip() == b"400000000", result
    assert not result.exit.oom_killed


FILLS = {
    "one file": "cat /dev/zero > /tmp/a",
    "deleted and open": "exec 3> /tmp/a; rm /tmp/a; cat /dev/zero >&3; cat /dev/zero > /tmp/b",
    "many files": "i=0; while head -c 1000000 /dev/zero > /tmp/f$i; do i=$((i+1)); done",
    "sparse, then filled": "truncate -s 100G /tmp/a; dd if=/dev/zero of=/tmp/a bs=1M conv=notrunc",
    "holes punched": "fallocate -l 20M /tmp/a; fallocate -p -o 0 -l 20M /tmp/a; cat /dev/zero > /tmp/b",
    "copied up": "cat /dev/zero >> /planted",
    "preallocated": "fallocate -l 10G /tmp/a; cat /dev/zero > /tmp/b",
}


@pytest.mark.parametrize("disk", ["memory", "image"])
@pytest.mark.parametrize("kind", FILLS)
async def test_r03_a_full_disk_is_full_for_its_tenant_only(
    kind: str, disk: str, ground: Ground, tmp_path: Path
) -> None:
    (tmp_path / "planted").write_bytes(bytes(MB))
    os.chown(tmp_path / "planted", 1000, 1000)
    quota = 24 * MB if disk == "memory" else 48 * MB
    memory = 512 * MB if disk == "memory" else 48 * MB  # too little to hold it
    resources = Resources(disk_bytes=quota, memory_bytes=memory)
    mallory = await ground.make(SandboxSpec(resources=resources, layers=(str(tmp_path),)))
    before = _taken(ground)
    result = await mallory.sh(FILLS[kind], timeout_s=20)
    assert b"No space left" in result.stderr, result
    used = await mallory.sh("df --output=used -B1 / | tail -1")
    assert int(used.stdout) <= quota
    await asyncio.to_thread(os.sync)
    taken = _taken(ground) - before
    assert taken < quota + 16 * MB
    if (kind, disk) == ("one file", "image"):
        assert taken > quota // 2  # it is there that it counts
    assert await mallory.answers()
    await mallory.sh("exec 3>&-; rm -f /tmp/*")
    await destroyed_within(mallory, 5)


def _taken(ground: Ground) -> int:
    """What the runtime's files take of the disk: others write to it meanwhile."""
    return sum(path.lstat().st_blocks * 512 for path in ground.data.rglob("*"))


INODES = {
    "files": "i=0; while : > /tmp/d/$i; do i=$((i+1)); done",
    "folders": "i=0; while mkdir /tmp/d/$i; do i=$((i+1)); done",
    "deep folders": 'cd /tmp/d; exec python3 -c \'import os\nwhile True: os.mkdir("a"); os.chdir("a")\'',
    "links": "ln -s x /tmp/d/l; i=0; while ln -s x /tmp/d/l$i; do i=$((i+1)); done",
    "pipes": "i=0; while mkfifo /tmp/d/p$i; do i=$((i+1)); done",
}


@pytest.mark.parametrize("kind", INODES)
async def test_r04_a_tenant_has_only_so_many_inodes(kind: str, ground: Ground) -> None:
    mallory = await ground.make(inodes=1200)
    result = await mallory.sh(f"mkdir /tmp/d; {INODES[kind]}", timeout_s=30)
    assert b"No space left" in result.stderr, result.stderr[-200:]
    left = await mallory.sh("df --output=iavail,itotal / | tail -1")
    assert left.stdout.split() == [b"0", b"1200"]
    assert await mallory.answers()
    await destroyed_within(mallory, 5)


async def test_r04_hard_links_and_extended_attributes_are_bounded_too(ground: Ground) -> None:
    mallory = await ground.make(inodes=2000, disk_bytes=8 * MB)
    script = """
import json, os
os.chdir("/tmp")
open("f", "w").close()
links = attributes = 0
try:
    while links < 100_000:
        os.link("f", f"l{links}"); links += 1
except OSError: pass
for n in range(links): os.unlink(f"l{n}")
try:
    while attributes < 100_000:
        os.setxattr("f", f"user.{attributes}", bytes(4096)); attributes += 1
except OSError: pass
print(json.dumps([links, attributes]))
"""
    links, attributes = await mallory.told(script)
    assert links <= 2000
    assert attributes * 4096 <= 16 * MB
    assert await mallory.answers()


@pytest.mark.alone
async def test_r06_busy_threads_get_their_quota_and_nobody_elses_time(ground: Ground) -> None:
    mallory = await ground.make(cpu_millis=300)
    spin = "import os\nfor _ in range(63):\n    if os.fork() == 0: break\nwhile True: pass"
    started = time.monotonic()
    before = await ground.runtime.stats(mallory.id)
    await mallory.sh(f"exec python3 -c '{spin}'", timeout_s=3)
    used_s = (await ground.runtime.stats(mallory.id)).cpu_s - before.cpu_s
    share = used_s / (time.monotonic() - started)
    assert 0.15 < share < 0.33, f"{share:.3f} of a core at a quota of 0.3"


FLOODS = {
    "lines": "yes",
    "no newline": "cat /dev/zero",
    "both streams": "yes & yes >&2",
}


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
@pytest.mark.parametrize("kind", FLOODS)
async def test_r08_a_flood_of_output_is_cut_and_costs_no_memory(kind: str, tty: bool, ground: Ground) -> None:
    mallory = await ground.make(cpu_millis=2000)
    sidekick = await mallory.pid()
    ours, theirs = _resident(os.getpid()), _resident(sidekick)
    spec = ProcessSpec(("sh", "-c", FLOODS[kind]), tty=tty, timeout_s=0.7)
    result = await mallory.inside.run(spec, max_output_bytes=100_000)
    assert result.truncated
    assert len(result.stdout) == 100_000
    assert len(result.stderr) == (100_000 if kind == "both streams" and not tty else 0)
    assert _resident(os.getpid()) - ours < 32 * MB
    assert _resident(sidekick) - theirs < 8 * MB


async def test_r08_a_gigabyte_passes_through_flat(ground: Ground) -> None:
    mallory = await ground.make(cpu_millis=2000)
    sidekick = await mallory.pid()
    before = _resident(sidekick)
    stream = await mallory.inside.start(ProcessSpec(("head", "-c", "1073741824", "/dev/zero")))
    total = 0
    async with asyncio.timeout(50):
        async for _, data in stream:
            total += len(data)
    await stream.close()
    assert total == 1 << 30
    assert _resident(sidekick) - before < 8 * MB


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_r10_a_stampede_is_made_whole_or_not_at_all(ground: Ground) -> None:
    tenants = [Tenant(ground.runtime, new_sandbox_id()) for _ in range(200)]
    twice = tenants[::10]
    small = SandboxSpec(resources=Resources(timeout_s=60))
    async with asyncio.timeout(30):
        made = await asyncio.gather(
            *(ground.runtime.make(tenant.id, small) for tenant in [*tenants, *twice]), return_exceptions=True
        )
    assert sum(isinstance(result, Conflict) for result in made) == len(twice)
    assert sum(isinstance(result, dict) for result in made) == 200
    assert {found.id for found in await ground.runtime.list()} == {t.id for t in tenants} | {ground.alice.tenant.id}
    results = await asyncio.gather(*(tenant.sh("echo $ATOLL_SANDBOX_ID") for tenant in tenants))
    assert [result.stdout.decode().strip() for result in results] == [tenant.id for tenant in tenants]
    async with asyncio.timeout(30):
        usages = await asyncio.gather(*(ground.runtime.destroy(tenant.id) for tenant in tenants))
    assert all(usages)


EXACT_S = 0.5


@pytest.mark.parametrize("limit", ["timeout_s", "max_age_s"])
async def test_r11_a_hard_limit_ends_a_busy_sandbox_on_time(limit: str, ground: Ground) -> None:
    started = time.monotonic()
    mallory = await ground.make(**{limit: 0.8})
    await mallory.start("sh", "-c", "trap '' TERM; while :; do :; done")
    while mallory.id not in ground.ended and time.monotonic() - started < 3:  # keepalive does not help
        try:
            await mallory.inside.ping()
            await mallory.sh("true")
        except NotFound:
            break
    ended, at = await ground.end_of(mallory)
    assert ended.reason == limit.removesuffix("_s")
    assert 0.8 <= at - started < 0.8 + EXACT_S
    assert ended.usage.duration_s >= 0.8
    assert await ground.runtime.find(mallory.id) is None


async def test_r11_an_idle_sandbox_ends_on_time_counted_from_the_last_thing_that_ran(ground: Ground) -> None:
    mallory = await ground.make(idle_s=0.7)
    await mallory.sh("sleep 1.2")  # longer than the limit: running is not idleness
    last = time.monotonic()
    assert await mallory.answers()
    ended, at = await ground.end_of(mallory)
    assert ended.reason == "idle"
    assert 0.69 <= at - last < 0.7 + EXACT_S + 0.2


async def test_r11_looking_does_not_keep_a_sandbox_alive(ground: Ground) -> None:
    mallory = await ground.make(idle_s=0.6)
    started = time.monotonic()
    while mallory.id not in ground.ended and time.monotonic() - started < 3:
        try:
            await mallory.inside.ping()
            await mallory.inside.processes()
            await ground.runtime.stats(mallory.id)
        except NotFound:
            break
        await asyncio.sleep(0.02)
    _, at = await ground.end_of(mallory)
    assert at - started < 0.6 + EXACT_S


async def test_r11_limits_can_be_moved_while_it_runs(ground: Ground) -> None:
    started = time.monotonic()
    mallory = await ground.make(timeout_s=0.6)
    await ground.runtime.set_deadline(mallory.id, Resources(timeout_s=1.3))
    ended, at = await ground.end_of(mallory)
    assert 1.3 <= at - started < 1.3 + EXACT_S
    idle = await ground.make(idle_s=100)
    await asyncio.sleep(0.5)
    moved = time.monotonic()
    await ground.runtime.set_deadline(idle.id, Resources(idle_s=0.4))  # it has been idle for longer than that
    ended, at = await ground.end_of(idle)
    assert (ended.reason, at - moved < EXACT_S) == ("idle", True)


async def test_r11_a_paused_sandbox_is_not_idle_but_ages(ground: Ground) -> None:
    mallory = await ground.make(idle_s=0.5)
    await ground.runtime.pause(mallory.id)
    await asyncio.sleep(1.0)
    resumed = time.monotonic()
    await ground.runtime.resume(mallory.id)
    assert await ground.runtime.find(mallory.id) is not None
    _, at = await ground.end_of(mallory, 8)
    assert 0.49 <= at - resumed < 0.5 + EXACT_S
    old = await ground.make(max_age_s=0.5)
    await ground.runtime.pause(old.id)
    ended, _ = await ground.end_of(old, 2)
    assert ended.reason == "max_age"


async def test_r12_pid_1_is_not_hurt_from_inside(ground: Ground) -> None:
    mallory = await ground.make()
    attack = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
for number in range(1, 65):
    try: os.kill(1, number)
    except OSError: pass
    libc.syscall(424, os.pidfd_open(1), number, 0, 0)  # pidfd_send_signal
libc.ptrace(16, 1, 0, 0)
libc.ptrace(0x4206, 1, 0, 0)
libc.setpriority(0, 1, 19)
libc.sched_setaffinity(1, 8, bytes(8))
libc.prlimit(1, 7, (0).to_bytes(16, "little"), None)
libc.syscall(251, 1, 1, 3 << 13)  # ioprio_set
for path in ("mem", "fd", "environ", "attr/current", "oom_score_adj", "clear_refs", "coredump_filter"):
    try: open(f"/proc/1/{path}", "r+b")
    except OSError: pass
"""
    for _ in range(3):
        assert (await mallory.python(attack)).exit.code == 0
        assert await mallory.answers()


async def test_r12_stopping_everything_again_and_again_does_not_outlast_a_deadline(ground: Ground) -> None:
    """A program that is stopped before it was executed stops whoever spawns it: then the node's deadlines remain."""
    mallory = await ground.make(timeout_s=3)
    started = time.monotonic()
    await mallory.start("python3", "-c", "import os\nwhile True:\n    try: os.kill(-1, 19)\n    except OSError: pass")
    tries = [asyncio.create_task(mallory.sh("true", within_s=2)) for _ in range(10)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert all(isinstance(result, (TimeoutError, DeadlineExceeded, NotFound, RunResult)) for result in done), done
    ended, at = await ground.end_of(mallory)
    assert ended.reason == "timeout"
    assert at - started < 3 + EXACT_S


async def test_r12_a_stopped_sandbox_is_destroyed_at_once(ground: Ground) -> None:
    mallory = await ground.make()
    await mallory.start("python3", "-c", "import os\nwhile True:\n    try: os.kill(-1, 19)\n    except OSError: pass")
    tries = [asyncio.create_task(mallory.sh("true", within_s=1)) for _ in range(5)]
    await asyncio.gather(*tries, return_exceptions=True)
    await destroyed_within(mallory, 2)
