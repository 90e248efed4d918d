"""Group R: a tenant who takes all it can get is bounded, and nobody else notices."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from atoll.domain.process import ProcessSpec
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
        "import json, os\nopened = []\ntry:\n    while len(opened) < 2000: opened.append(os.open('/dev/ptmx', os.O_RDWR))\n"
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
