"""Beyond the list: attacks on the sidekick itself, on terminals, odd programs; it stays or only its sandbox goes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import atoll
from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound, Unavailable
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import SandboxSpec
from atoll.sidekick.client import ProcessStream
from tests.ground import ROOT_ONLY, Ground, Tenant

pytestmark = ROOT_ONLY

MB = 2**20


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def read_until(stream: ProcessStream, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(10):
        async for _, data in stream:
            seen += data
            if wanted in seen:
                break
    return seen


async def exercise(tenant: Tenant, port: int) -> None:
    """Every operation of a sidekick, good and bad."""
    inside = tenant.inside
    await tenant.sh("echo out; echo err >&2; exit 3", tty=False)
    await tenant.sh("stty size", tty=True)
    await tenant.sh("no-such-program")
    await tenant.sh("sleep 10", timeout_s=0.1)
    await inside.write_file("/tmp/deep/er/file", pieces(b"x" * 100_000))
    _, chunks = await inside.read_file("/tmp/deep/er/file")
    assert len(b"".join([chunk async for chunk in chunks])) == 100_000
    await inside.list_dir("/tmp")
    await inside.stat("/tmp")
    await inside.move("/tmp/deep/er/file", "/tmp/moved")
    await inside.remove("/tmp/deep", recursive=True)
    job = await tenant.start("sleep", "100")
    await inside.signal(job, signal.SIGTERM)
    await inside.wait(job)
    job = await tenant.start("sleep", "100")
    await inside.stop(job, 0.1)
    for call in (
        inside.stat("/nowhere"),
        inside.list_dir("/etc/passwd"),
        inside.write_file("/etc/x", pieces(b"x")),
        inside.wait("p999"),
        inside.signal(job, 9),
        inside.dial(1),
        inside.make_dir("/proc/x"),
        tenant.sh("true", cwd="/nowhere"),
        inside.start(ProcessSpec(("bad\0word",))),
        inside.start(ProcessSpec(("\ud800",))),
    ):
        with pytest.raises(AtollError):
            await call  # type: ignore[misc]
    reader, writer = await inside.dial(port)
    writer.write(b"ping")
    assert await asyncio.wait_for(reader.read(4), 5) == b"ping"
    writer.close()
    await inside.processes()
    await inside.ping()


ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096): self.request.sendall(data)
server = socketserver.ThreadingTCPServer(("127.0.0.1", 7777), Echo)
print("listening", flush=True)
server.serve_forever()
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="looks at a sidekick's system calls: needs strace")
async def test_a_sidekick_loads_no_code_from_the_sandbox(ground: Ground, tmp_path: Path) -> None:
    """Its root is the tenant's: a module that it imported late would be the tenant's too."""
    mallory = await ground.make()
    server = await mallory.inside.start(ProcessSpec(("python3", "-c", ECHO)))
    await read_until(server, b"listening")
    trace = tmp_path / "trace"
    tracer = subprocess.Popen(
        ["strace", "-qq", "-e", "trace=openat,open,openat2,execve", "-o", str(trace), "-p", str(await mallory.pid())]
    )
    try:
        await asyncio.sleep(0.3)
        await exercise(mallory, 7777)
    finally:
        tracer.terminate()
        tracer.wait(5)
    opened = trace.read_text()
    assert "/tmp/deep" in opened, "the trace shows nothing"
    assert not [line for line in opened.splitlines() if ".py" in line or ".so" in line or "site-packages" in line]
    await server.close()


async def test_a_child_that_has_become_a_sidekick_cannot_import() -> None:
    program = """
from atoll.runtimes.local import child
child.import_no_more()
try: import colorsys
except ImportError: print("no")
"""
    words = [sys.executable, "-c", program]
    environment = {"PYTHONPATH": str(Path(atoll.__file__).parents[1])}
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, env=environment, check=True)
    assert done.stdout == b"no\n"


async def test_code_planted_where_the_package_lies_is_not_run(ground: Ground) -> None:
    mallory = await ground.make()
    package = Path(atoll.__file__).parent
    plant = f"""
import os
for folder in ({str(package.parent)!r}, {str(package)!r}, {str(package / "sidekick")!r}):
    os.makedirs(folder, exist_ok=True)
    for name in ("encodings", "traceback", "linecache", "idna", "stringprep", "files", "ports", "random"):
        with open(f"{{folder}}/{{name}}.py", "w") as file: file.write("import os; os.mkdir('/tmp/owned')")
"""
    if not str(package).startswith("/usr"):
        assert (await mallory.python(plant)).exit.code == 0
    server = await mallory.inside.start(ProcessSpec(("python3", "-c", ECHO), cwd="/"))
    await read_until(server, b"listening")
    await exercise(mallory, 7777)
    with pytest.raises(NotFound):
        await mallory.inside.stat("/tmp/owned")
    await server.close()


async def test_the_sidekicks_memory_and_descriptors_are_out_of_reach_while_it_spawns(ground: Ground) -> None:
    """For an instant a child has the tenant's user and the sidekick's memory."""
    mallory = await ground.make(cpu_millis=2000)
    watch = """
import os, time
found = set()
until = time.monotonic() + 2.5
own = os.getpid()
while time.monotonic() < until:
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == own: continue
        for what in ("mem", "maps", "environ", "fd", "exe"):
            try:
                if what == "fd":
                    for fd in os.listdir(f"/proc/{name}/fd"):
                        target = os.readlink(f"/proc/{name}/fd/{fd}")
                        if "anon_inode" in target or target.endswith(("/u", ".log")): found.add((name, target))
                elif what == "exe":
                    os.readlink(f"/proc/{name}/exe")
                else:
                    data = open(f"/proc/{name}/{what}", "rb").read(1 << 16)
                    if b"atoll" in data and b"/usr/bin/true" not in data and name == "1": found.add((name, what))
            except OSError: pass
print(sorted(found))
"""
    watching = asyncio.create_task(mallory.python(watch))
    spawned = 0
    while not watching.done():
        await asyncio.gather(*(mallory.sh("true") for _ in range(5)))
        spawned += 5
    assert spawned > 50
    assert (await watching).stdout.strip() == b"[]"


async def test_huge_arguments_and_environments_are_taken_or_refused_in_words(ground: Ground) -> None:
    mallory = await ground.make()
    many = await mallory.inside.run(ProcessSpec(("sh", "-c", "echo $#", "sh", *["word"] * 50_000)))
    assert many.stdout == b"50000\n"
    large = {f"V{n}": "x" * 100_000 for n in range(9)}
    assert (await mallory.sh("env | wc -c", env=large)).stdout > b"900000"
    one = await mallory.inside.run(ProcessSpec(("echo", "x" * 900_000)))  # the kernel takes 128 KiB in one
    assert (one.exit.code, b"too long" in one.stderr) == (126, True)
    for spec in (
        ProcessSpec(("true", "x" * 2_000_000)),
        ProcessSpec(("true",), env={"A=B": "x"}),
        ProcessSpec(("true",), env={"": "x"}),
        ProcessSpec(("true",), env={"A": "\0"}),
        ProcessSpec(()),
        ProcessSpec(("true",), cols=70_000, tty=True),
        ProcessSpec(("true",), timeout_s=-1),
    ):
        with pytest.raises((InvalidInput, AtollError)) as caught:
            await mallory.inside.run(spec)
        assert caught.value.code in ("bad_request", "too_large")
    assert (await mallory.inside.run(ProcessSpec(("",)))).exit.code == 127
    assert await mallory.answers()


async def test_a_program_named_like_a_line_of_the_kernel_is_ended_with_its_tree(ground: Ground) -> None:
    mallory = await ground.make()
    disguise = """
import ctypes, os, signal, time
for name in (b") Z 1 1 1 (", b"a) R 0 0", b"\\n\\n) S 9"):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(15, name)
        if os.fork() == 0: os.setsid()
        time.sleep(100)
ctypes.CDLL(None).prctl(15, b") 1 1 1 1")
time.sleep(100)
"""
    result = await mallory.inside.run(ProcessSpec(("python3", "-c", disguise), timeout_s=0.6))
    assert result.exit.timed_out
    # The tree is killed by then; the kernel takes a moment more to take the dead out of /proc. None sleeps on.
    async with asyncio.timeout(5):
        while (await mallory.sh("ls -d /proc/[0-9]* | wc -l")).stdout.strip() > b"4":  # pid 1, the shell, ls and wc
            await asyncio.sleep(0.05)


async def test_terminals_give_no_more_than_pipes(ground: Ground) -> None:
    mallory = await ground.make()
    program = """
import errno, fcntl, json, os, struct, termios
said = {}
def attempt(name, call):
    try: said[name] = repr(call())
    except OSError as error: said[name] = errno.errorcode[error.errno]
attempt("TIOCSTI", lambda: fcntl.ioctl(0, 0x5412, b"x"))
attempt("TIOCLINUX", lambda: fcntl.ioctl(0, 0x541C, b"\\x0b"))
attempt("TIOCSETD", lambda: fcntl.ioctl(0, 0x5423, struct.pack("i", 21)))
attempt("TIOCCONS", lambda: fcntl.ioctl(0, 0x541D))
attempt("TIOCGDEV", lambda: fcntl.ioctl(0, 0x80045432, bytes(4)) and None)
attempt("other terminals", lambda: [n for n in os.listdir("/dev/pts") if n not in ("ptmx", "0")])
attempt("steal", lambda: fcntl.ioctl(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY), termios.TIOCSCTTY, 1))
attempt("console", lambda: os.open("/dev/console", os.O_RDWR))
attempt("tty0", lambda: os.open("/dev/tty0", os.O_RDWR))
print(json.dumps(said), flush=True)
"""
    stream = await mallory.inside.start(ProcessSpec(("python3", "-c", program), tty=True))
    seen = await read_until(stream, b"}")
    said = json.loads(seen)
    assert {name: said[name] for name in ("TIOCSTI", "TIOCLINUX", "TIOCSETD", "TIOCCONS")} == dict.fromkeys(
        ("TIOCSTI", "TIOCLINUX", "TIOCSETD", "TIOCCONS"), "EPERM"
    )
    assert said["other terminals"] == "[]"
    assert said["steal"] in ("EPERM", "ENOTTY")
    assert said["console"] == said["tty0"] == "ENOENT"
    await stream.close()


async def test_a_terminal_that_is_misused_holds_up_nobody(ground: Ground) -> None:
    mallory = await ground.make()
    inside = mallory.inside
    deaf = await inside.start(ProcessSpec(("sh", "-c", "stty -icanon -echo; exec sleep 100"), tty=True))

    async def pour() -> None:
        for _ in range(64):
            await deaf.write_stdin(b"x" * MB)

    pouring = asyncio.create_task(pour())
    exclusive = "import fcntl, termios, time; fcntl.ioctl(0, termios.TIOCEXCL); termios.tcflow(1, termios.TCOOFF)\n"
    exclusive += "print('x'); time.sleep(100)"
    locked = await inside.start(ProcessSpec(("python3", "-c", exclusive), tty=True))
    await locked.resize(1, 65_535)
    await locked.resize(0, 0)
    left = await inside.start(
        ProcessSpec(("sh", "-c", "exec 0<&- 1>&- 2>&-; sleep 0.3; echo late > /dev/tty; exit 4"), tty=True)
    )
    async with asyncio.timeout(5):
        async for _ in left:
            pass
    assert left.exit is not None
    assert left.exit.code == 4
    assert await mallory.answers()
    assert not pouring.done()
    pouring.cancel()
    await asyncio.gather(pouring, return_exceptions=True)
    for stream in (deaf, locked, left):
        await stream.close()


async def test_a_port_that_nobody_accepts_on_holds_up_nobody(ground: Ground) -> None:
    mallory = await ground.make()
    lazy = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 7000)); s.listen(0)\n"
    lazy += "print('listening', flush=True); time.sleep(100)"
    server = await mallory.inside.start(ProcessSpec(("python3", "-c", lazy)))
    await read_until(server, b"listening")
    dials = [asyncio.create_task(mallory.inside.dial(7000)) for _ in range(20)]
    await asyncio.sleep(0.2)
    started = time.monotonic()
    for _ in range(5):
        assert await mallory.answers()
    assert time.monotonic() - started < 2
    done = await asyncio.wait_for(asyncio.gather(*dials, return_exceptions=True), 15)
    assert all(isinstance(result, (tuple, Unavailable)) for result in done), done
    assert any(isinstance(result, Unavailable) for result in done)
    for result in done:
        if isinstance(result, tuple):
            result[1].close()
    await server.close()


async def test_a_lease_on_a_program_delays_only_who_runs_it(ground: Ground) -> None:
    """To execute a file breaks leases on it, which takes the kernel up to 45 s: destroy must not wait for that."""
    mallory = await ground.make(timeout_s=4)
    await mallory.sh("cp /bin/true /dev/shm/slow")
    hold = """
import fcntl, signal, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open("/dev/shm/slow", "r+")
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
time.sleep(60)
"""
    holder = await mallory.inside.start(ProcessSpec(("python3", "-c", hold)))
    await read_until(holder, b"held")
    running = asyncio.create_task(mallory.inside.run(ProcessSpec(("/dev/shm/slow",))))
    ended, _ = await ground.end_of(mallory, 6)
    assert ended.reason == "timeout"
    await asyncio.gather(running, return_exceptions=True)
    await holder.close()


async def test_a_socket_of_a_tenant_is_not_the_sidekicks(ground: Ground) -> None:
    """A tenant listens under the name that the sidekick's socket shows: nobody of ours comes to it."""
    mallory = await ground.make()
    listen = """
import os, socket, time
for folder in ("/", "/tmp", "/home/user"):
    os.chdir(folder)
    for name in ("sidekick", b"\\0sidekick"):
        s = socket.socket(socket.AF_UNIX); s.bind(name) if folder == "/" or name == "sidekick" else None
        s.listen(8) if s.getsockname() else None
        globals()[folder + str(name)] = s
print("listening", flush=True)
time.sleep(100)
"""
    stream = await mallory.inside.start(ProcessSpec(("python3", "-c", listen)))
    await read_until(stream, b"listening")
    assert await mallory.answers()
    assert (await mallory.inside.ping())["version"] == 1
    await stream.close()


async def test_nothing_of_other_tenants_is_in_a_sidekicks_answers(ground: Ground) -> None:
    secret = "bobs-" + os.urandom(12).hex()
    bob = await ground.make(SandboxSpec(env={"SECRET": secret}, command=("sleep", "100")))
    mallory = await ground.make()
    told = await mallory.sh(
        "env; cat /proc/*/environ /proc/*/cmdline /proc/*/maps 2>/dev/null; ls -R /proc/1 2>/dev/null"
    )
    assert secret.encode() not in told.stdout
    assert bob.id.encode() not in told.stdout


async def test_core_dumps_are_off_in_the_way_that_programs_of_the_host_heed(ground: Ground) -> None:
    mallory = await ground.make()
    limits = (await mallory.sh("grep core /proc/self/limits; ulimit -c unlimited; ulimit -Hc")).stdout.split()
    assert limits[4:6] == [b"1", b"1"]


async def test_a_tenants_load_does_not_keep_another_waiting(ground: Ground) -> None:
    """Four sandboxes spin, swap, fork and write at once while alice and bob work."""
    bob = await ground.make()
    for script in (
        "while :; do :; done",
        "while :; do head -c 10000000 /dev/zero > /tmp/x; rm /tmp/x; done",
        "while :; do /bin/true; done",
        "yes > /dev/null & yes | cat > /dev/null & cat /dev/urandom > /dev/null",
    ):
        mallory = await ground.make(cpu_millis=500)
        await mallory.start("sh", "-c", script)
    times: list[float] = []
    for _ in range(40):
        started = time.monotonic()
        assert (await bob.sh("true")).exit.code == 0
        times.append(time.monotonic() - started)
    times.sort()
    assert times[-1] < 1.0, times[-5:]


async def test_addresses_of_one_sandbox_are_its_own(ground: Ground) -> None:
    """The same port on the loopback of two sandboxes and of the host are three ports."""
    mallory, bob = await ground.make(), await ground.make()
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        ours.listen()
        port = ours.getsockname()[1]
        with pytest.raises(Unavailable):
            await mallory.inside.dial(port)
        serve = f"import socket; s = socket.create_server(('127.0.0.1', {port}))\n"
        serve += "print('listening', flush=True); s.accept()"
        stream = await bob.inside.start(ProcessSpec(("python3", "-c", serve)))
        await read_until(stream, b"listening")
        with pytest.raises(Unavailable):
            await mallory.inside.dial(port)
        probe = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
        assert (await mallory.python(probe)).exit.code == 1
        await stream.close()


async def test_destroy_races_are_conflicts_or_not_found(ground: Ground) -> None:
    for _ in range(10):
        mallory = await ground.make()
        calls = [
            ground.runtime.destroy(mallory.id),
            ground.runtime.pause(mallory.id),
            ground.runtime.resume(mallory.id),
            mallory.sh("true"),
            ground.runtime.destroy(mallory.id),
            ground.runtime.make(mallory.id, SandboxSpec()),
        ]
        done = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
        assert all(not isinstance(r, BaseException) or isinstance(r, (Conflict, NotFound)) for r in done), done
        await ground.runtime.destroy(mallory.id)
        assert await ground.runtime.find(mallory.id) is None


async def test_a_tenants_signals_do_not_end_pid_1(ground: Ground) -> None:
    """While it starts a program it has the tenant's user, so that every signal may be sent to it."""
    mallory = await ground.make(cpu_millis=2000)
    shoot = """
import os, signal, time
numbers = [n for n in range(1, 65) if n not in (32, 33)]
sent = dict.fromkeys(numbers, 0)
until = time.monotonic() + 3
while time.monotonic() < until:
    for number in numbers:
        try: os.kill(1, number)
        except OSError: continue
        sent[number] += 1
print(sum(1 for count in sent.values() if count))
"""
    shooting = asyncio.create_task(mallory.python(shoot))
    while not shooting.done():
        await asyncio.gather(*(mallory.sh("true") for _ in range(5)))
    assert int((await shooting).stdout) > 30, "it did not hit the moment"
    assert await mallory.answers()
    told = await mallory.sh('grep -E "^Sig(Blk|Ign)" /proc/self/status')
    assert told.stdout.split()[1::2] == [b"0" * 16, b"0000000180000000"]  # what it starts ignores libc's own two


async def test_a_sandbox_whose_pid_1_is_held_up_is_idle(ground: Ground) -> None:
    """As by a program that the tenant stops while pid 1 still waits for it to be itself: nobody is answered then."""
    mallory = await ground.make(idle_s=2)
    await mallory.start("sleep", "100")
    os.kill(await mallory.pid(), signal.SIGSTOP)
    assert (await ground.end_of(mallory, 30))[0].reason == "idle"
