"""Group F: the files API reaches the sandbox's own files and nothing else, whatever lies in the way."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.domain.errors import AtollError, Conflict, Forbidden, Internal, InvalidInput, NotFound, TooLarge
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import SandboxSpec
from atoll.sidekick.client import SidekickClient
from tests.ground import ROOT_ONLY, Ground

pytestmark = ROOT_ONLY

MB = 2**20


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def content(inside: SidekickClient, path: str) -> bytes:
    async with asyncio.timeout(10):
        _, found = await inside.read_file(path)
        return b"".join([piece async for piece in found])


async def every_operation(inside: SidekickClient, path: str, free: str) -> dict[str, AtollError | object]:
    """What each operation of the files API says to a path; `free` is where nothing is."""
    calls = {
        "stat": lambda: inside.stat(path),
        "list": lambda: inside.list_dir(path),
        "read": lambda: content(inside, path),
        "write": lambda: inside.write_file(path, pieces(b"written")),
        "make_dir": lambda: inside.make_dir(path),
        "move from": lambda: inside.move(path, free),
        "move to": lambda: inside.move("/tmp/source", path),
        "remove": lambda: inside.remove(path, recursive=True),
    }
    said: dict[str, AtollError | object] = {}
    for name, call in calls.items():
        try:
            async with asyncio.timeout(5):
                said[name] = await call()  # type: ignore[no-untyped-call]
        except AtollError as error:
            said[name] = error
    return said


REFUSED = ["", "\0", "/tmp/a\0b", "\ud800", "/" + "a/" * 2048 + "a", "/" + "a" * 4097, "a" * 5000]


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: repr(path[:12]))
async def test_f01_what_is_no_path_is_refused_by_every_operation(path: str, ground: Ground) -> None:
    mallory = await ground.make()
    await mallory.sh("touch /tmp/source")
    for name, said in (await every_operation(mallory.inside, path, "/tmp/free")).items():
        assert isinstance(said, InvalidInput), (name, said)


INSIDE = {
    "../../../../etc/../tmp/x": "/tmp/x",
    "/../../..//tmp/./x": "/tmp/x",
    "//tmp///x": "/tmp/x",
    "tmp/x": "/tmp/x",
    "/tmp/..%2f..%2fx": "/tmp/..%2f..%2fx",
    "/tmp/%2e%2e/x": "/tmp/%2e%2e/x",
    "/tmp/..\\..\\x": "/tmp/..\\..\\x",
    "/tmp/x\ny": "/tmp/x\ny",
    "/tmp/\u202ex": "/tmp/\u202ex",
    "/tmp/\xc0\xae\xc0\xae/x": "/tmp/\xc0\xae\xc0\xae/x",
    "/tmp/..../x": "/tmp/..../x",
    "/tmp/ /x": "/tmp/ /x",
    "/tmp/-rf": "/tmp/-rf",
    "/tmp/$(id)`id`;id": "/tmp/$(id)`id`;id",
    "/tmp/" + "\U0001f600" * 63: "/tmp/" + "\U0001f600" * 63,  # 252 bytes
    "/tmp/" + "n" * 255: "/tmp/" + "n" * 255,
}


@pytest.mark.parametrize("path", INSIDE, ids=lambda path: repr(path[:24]))
async def test_f01_an_odd_path_means_the_same_to_every_operation_and_stays_inside(path: str, ground: Ground) -> None:
    mallory = await ground.make()
    inside, real = mallory.inside, INSIDE[path]
    assert await inside.write_file(path, pieces(b"mine")) == 4
    seen = await mallory.python(f"import sys; sys.stdout.buffer.write(open({real!r}, 'rb').read())")
    assert seen.stdout == b"mine", seen.stderr
    assert await content(inside, path) == b"mine"
    assert (await inside.stat(path)).size == 4
    assert os.path.basename(real) in [entry.name for entry in await inside.list_dir(os.path.dirname(real))]
    await inside.move(path, "/tmp/moved")
    await inside.move("/tmp/moved", path)
    await inside.remove(path)
    with pytest.raises(NotFound):
        await inside.stat(real)


async def test_f01_names_of_raw_bytes_are_listed_and_hurt_nobody(ground: Ground) -> None:
    mallory = await ground.make()
    names = [b"\xff\xfe", b"a\nb", b"\x1b[2J", b"\x01" * 255, "\u00fc".encode(), b"\x80" * 255, b'"}]', b" "]
    program = f"import os\nos.mkdir('/tmp/d')\nfor name in {names!r}: open(b'/tmp/d/' + name, 'w')"
    made = await mallory.python(program)
    assert made.exit.code == 0, made.stderr
    listed = [entry.name for entry in await mallory.inside.list_dir("/tmp/d")]
    assert len(listed) == len(names)
    assert {"a\nb", "\x1b[2J", "\u00fc", '"}]', " "} < set(listed)
    for name in listed:
        name.encode()  # nothing that an answer could not carry
    await mallory.inside.remove("/tmp/d", recursive=True)


def upper_of(pid: int) -> str:
    """The number of the descriptor by which a sidekick keeps its raw writable layer."""
    return next(fd for fd in os.listdir(f"/proc/{pid}/fd") if os.readlink(f"/proc/{pid}/fd/{fd}").endswith("/u"))


LINKS = {
    "file": "/etc/passwd",
    "folder": "/etc",
    "root": "/",
    "dangling": "/nowhere/at/all",
    "magic root": "/proc/self/root/{canary}",
    "of the sidekick": "/proc/1/root/{canary}",
    "descriptor": "/proc/self/fd/3",
    "descriptor's folder": "/proc/1/fd/{writable}/..",
    "upwards": "../../../../../../{canary}",
    "host": "{canary}",
    "loop": "/tmp/link",
    "long": "/" + "a/" * 2000,
}


@pytest.mark.parametrize("kind", LINKS)
async def test_f02_links_lead_nowhere_but_into_the_sandbox(kind: str, ground: Ground, tmp_path: Path) -> None:
    mallory = await ground.make()
    canary = str(ground.host.canaries[0])
    writable = upper_of(await mallory.pid())
    target = LINKS[kind].format(canary=canary.lstrip("/") if "/{canary}" in LINKS[kind] else canary, writable=writable)
    plant = 'rm -rf /tmp/*; touch /tmp/source; ln -s "$TARGET" /tmp/link; mkdir /tmp/in; ln -s "$TARGET" /tmp/in/l'
    secret = ground.host.canaries[0].read_bytes()
    for path in ("/tmp/link", "/tmp/in/l", "/tmp/link/x", "/tmp/link/../x", "/tmp/in/l/" + canary.lstrip("/")):
        await mallory.sh(plant, env={"TARGET": target})
        for name, said in (await every_operation(mallory.inside, path, "/tmp/free")).items():
            assert not isinstance(said, Internal), (name, path, said)
            assert said != secret
            assert not isinstance(said, bytes) or b"flag" not in said
    assert ground.host.canaries[0].read_bytes() == secret
    assert not (tmp_path / "x").exists()


async def test_f02_a_write_through_a_link_lands_where_the_link_says(ground: Ground) -> None:
    mallory = await ground.make()
    await mallory.sh(
        "mkdir -p /tmp/a/b /tmp/real/deep; ln -s real /tmp/dir; ln -s ../target /tmp/a/up;"
        "ln -s /tmp/dir/deep/../new /tmp/far; ln -s one /tmp/two; ln -s three /tmp/one;"
        "ln -s /tmp/real/deep /tmp/elsewhere; ln -s ../beside /tmp/real/deep/l"
    )
    for path, lands in (
        ("/tmp/a/up", "/tmp/target"),
        ("/tmp/far", "/tmp/real/new"),
        ("/tmp/two", "/tmp/three"),
        ("/tmp/dir/file", "/tmp/real/file"),
        ("/tmp/elsewhere/l", "/tmp/real/beside"),
    ):
        await mallory.inside.write_file(path, pieces(path.encode()))
        assert (await mallory.sh(f"test -f {lands} -a ! -L {lands} && cat {lands}")).stdout == path.encode(), path
    assert (await mallory.sh("find /tmp -name '.atoll*'")).stdout == b""


async def test_f02_what_is_not_the_tenants_cannot_be_changed(ground: Ground) -> None:
    mallory = await ground.make()
    for path in (
        "/etc/passwd",
        "/usr/bin/env",
        "/proc/self/comm",
        "/dev/null",
        "/dev/pts/0",
        "/sys/x",
        "/root/x",
        "/proc/x",
    ):
        with pytest.raises((Forbidden, InvalidInput, NotFound, Conflict)):
            await mallory.inside.write_file(path, pieces(b"x"))
    for path in ("/usr", "/etc/passwd", "/proc", "/dev", "/", "/usr/bin/env"):
        with pytest.raises((Forbidden, InvalidInput, Conflict)):
            await mallory.inside.remove(path, recursive=True)
    assert (await mallory.sh("id -un; ls /usr/bin/env")).stdout == b"user\n/usr/bin/env\n"


async def test_f02_swapping_links_while_the_api_works_gets_nothing_out(ground: Ground) -> None:
    """The tenant turns a folder into a link to the sidekick's descriptors and back, thousands of times a second."""
    mallory = await ground.make(cpu_millis=2000)
    pid = await mallory.pid()
    writable = upper_of(pid)
    swap = f"""
import os
os.chdir("/tmp")
os.makedirs("plain", exist_ok=True)
targets = ["/proc/1/fd/{writable}", "/proc/self/fd", "/proc/1/root", "/proc/1/cwd", "/", "/etc", "plain"]
n = 0
while True:
    n += 1
    os.symlink(targets[n % len(targets)], "new"); os.rename("new", "swapped")
    os.rename("swapped", "aside"); os.rename("plain", "swapped"); os.rename("swapped", "plain"); os.unlink("aside")
"""
    await mallory.start("python3", "-c", swap)
    inside = mallory.inside
    (ground.data / "planted").unlink(missing_ok=True)
    deadline = time.monotonic() + 2.5
    rounds = 0
    while time.monotonic() < deadline:
        calls = [
            inside.write_file("/tmp/swapped/escaped", pieces(b"x")),
            content(inside, "/tmp/swapped/passwd"),
            inside.list_dir("/tmp/swapped"),
            inside.make_dir("/tmp/swapped/made/deep"),
            inside.move("/tmp/swapped/escaped", "/tmp/swapped/moved"),
            inside.remove("/tmp/swapped/made", recursive=True),
            mallory.sh("pwd -P", cwd="/tmp/swapped"),
        ]
        for said in await asyncio.gather(*calls, return_exceptions=True):
            assert not isinstance(said, Internal), said
            if isinstance(said, BaseException):
                assert isinstance(said, AtollError), said
        rounds += 1
    assert rounds > 20
    # what lies under the raw upper layer only a sidekick's descriptor could have reached
    upper = f"/proc/{pid}/fd/{writable}"
    assert set(os.listdir(upper)) <= {
        "home",
        "opt",
        "srv",
        "mnt",
        "media",
        "var",
        "run",
        "tmp",
        "escaped",
        "moved",
        "made",
    }


async def test_f04_root_never_follows_what_a_tenant_linked(ground: Ground, tmp_path: Path) -> None:
    """Links to host canaries all over the layer, then the ways that root itself goes through it: bake, and the end."""
    mallory = await ground.make()
    canaries = [str(canary) for canary in ground.host.canaries]
    script = f"""
import os
for folder in ("/tmp", "/home/user", "/var/log", "/opt", "/srv", "/"):
    for n, canary in enumerate({canaries!r}):
        os.symlink(canary, f"{{folder}}/link{{n}}")
        os.symlink(os.path.dirname(canary), f"{{folder}}/folder{{n}}")
os.mkdir("/opt/d")
os.rename("/opt/d", "/opt/e")
os.symlink("{ground.data}", "/opt/d")
"""
    assert (await mallory.python(script)).exit.code == 0
    layer = tmp_path / "layer"
    await ground.runtime.bake(mallory.id, str(layer))
    assert (layer / "tmp" / "link0").is_symlink()
    assert (layer / "tmp" / "link0").lstat().st_uid == 1000
    await ground.runtime.destroy(mallory.id)
    ground.host.check()


async def test_f05_hard_links_reach_only_what_is_the_tenants(ground: Ground) -> None:
    mallory = await ground.make()
    script = """
import errno, json, os
said = {}
for path in ("/etc/passwd", "/usr/bin/env", "/proc/self/status", "/dev/null", "/proc/1/exe", "/dev/pts/ptmx"):
    try: os.link(path, "/tmp/hard"); said[path] = "linked"; os.unlink("/tmp/hard")
    except OSError as error: said[path] = errno.errorcode[error.errno]
print(json.dumps(said))
"""
    assert "linked" not in (await mallory.told(script)).values()
    await mallory.sh("echo old > /tmp/one; ln /tmp/one /tmp/other; chmod 640 /tmp/one")
    await mallory.inside.write_file("/tmp/one", pieces(b"new"))
    told = await mallory.sh("cat /tmp/other; stat -c '%h %a' /tmp/one /tmp/other")
    assert told.stdout == b"old\n1 640\n1 640\n"  # replaced in one step: the other name keeps what it had


SPECIAL = {
    "pipe": "mkfifo /tmp/odd",
    "socket": "python3 -c 'import socket; socket.socket(1).bind(\"/tmp/odd\")'",
    "endless": "ln -s /dev/zero /tmp/odd",
    "terminal": "ln -s /dev/ptmx /tmp/odd",
    "own tty": "ln -s /dev/tty /tmp/odd",
    "random": "ln -s /dev/random /tmp/odd",
    "kernel's": "ln -s /proc/self/status /tmp/odd",
    "blocking": "ln -s /proc/self/fd/0 /tmp/odd",
    "memory": "ln -s /proc/1/mem /tmp/odd",
    "mounts": "ln -s /proc/self/mountinfo /tmp/odd",
    "folder": "mkdir /tmp/odd",
}


@pytest.mark.parametrize("kind", SPECIAL)
async def test_f06_what_is_no_regular_file_is_refused_at_once(kind: str, ground: Ground) -> None:
    mallory = await ground.make()
    await mallory.sh(SPECIAL[kind])
    started = time.monotonic()
    with pytest.raises((InvalidInput, Forbidden, NotFound)):
        await content(mallory.inside, "/tmp/odd")
    if kind in ("pipe", "socket", "folder"):
        with pytest.raises(InvalidInput):
            await mallory.inside.write_file("/tmp/odd", pieces(b"x"))
    assert (await mallory.inside.stat("/tmp/odd")).name == "odd"
    assert time.monotonic() - started < 1
    assert await mallory.answers()


async def test_f06_a_lease_that_a_tenant_holds_makes_nobody_wait(ground: Ground) -> None:
    mallory = await ground.make()
    hold = """
import fcntl, signal, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open("/dev/shm/leased", "w+")
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
time.sleep(60)
"""
    stream = await mallory.inside.start(ProcessSpec(("python3", "-c", hold)))
    async with asyncio.timeout(5):
        async for _ in stream:
            break
    started = time.monotonic()
    with pytest.raises((Conflict, InvalidInput)):
        await content(mallory.inside, "/dev/shm/leased")
    await mallory.inside.write_file("/dev/shm/leased", pieces(b"x"))
    assert time.monotonic() - started < 2
    await stream.close()


async def test_f07_empty_and_sparse_files_pass_and_a_full_disk_is_told(ground: Ground) -> None:
    mallory = await ground.make(disk_bytes=64 * MB)
    inside = mallory.inside
    assert await inside.write_file("/tmp/empty", pieces()) == 0
    assert await content(inside, "/tmp/empty") == b""
    await mallory.sh("truncate -s 2G /tmp/sparse; truncate -s 7E /tmp/huge")
    assert (await inside.stat("/tmp/sparse")).size == 2 << 30
    entry, chunks = await inside.read_file("/tmp/huge")  # nobody must read it to its end
    assert entry.size > 1 << 60
    async for _ in chunks:
        break
    await chunks.aclose()  # type: ignore[attr-defined]

    async def much() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(MB)

    for _ in range(5):
        with pytest.raises(TooLarge):
            await inside.write_file("/tmp/full", much())
    assert (await mallory.sh("ls -A /tmp")).stdout.split() == [b"empty", b"huge", b"sparse"]


async def test_f07_a_reader_sees_the_old_file_or_the_new_and_a_cut_upload_changes_nothing(ground: Ground) -> None:
    mallory = await ground.make(cpu_millis=2000)
    inside = mallory.inside
    whole = {bytes([letter]) * (3 * MB) for letter in b"ABCD"}
    await inside.write_file("/tmp/f", pieces(b"A" * (3 * MB)))
    until = time.monotonic() + 2

    async def write(letter: int) -> None:
        while time.monotonic() < until:
            await inside.write_file("/tmp/f", pieces(*[bytes([letter]) * MB] * 3))

    async def cut() -> None:
        async def stuck() -> AsyncIterator[bytes]:
            yield b"Z" * MB
            await asyncio.sleep(30)

        while time.monotonic() < until:
            task = asyncio.create_task(inside.write_file("/tmp/f", stuck()))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def look() -> int:
        looks = 0
        while time.monotonic() < until:
            assert await content(inside, "/tmp/f") in whole
            looks += 1
        return looks

    *_, looks = await asyncio.gather(*(write(letter) for letter in b"BCD"), cut(), look())
    assert looks > 3
    for _ in range(100):
        left = (await mallory.sh("ls -A /tmp")).stdout
        if left == b"f\n":
            break
        await asyncio.sleep(0.02)
    assert left == b"f\n"


async def test_f07_huge_folders_are_listed_in_pieces_without_much_memory(ground: Ground) -> None:
    mallory = await ground.make(memory_bytes=512 * MB)
    pid = await mallory.pid()
    count = 30_000
    await mallory.sh(f"mkdir /tmp/d; cd /tmp/d; seq -f 'a-name-of-some-length-%06g' {count} | xargs touch")
    before = _resident(pid)
    listed = await mallory.inside.list_dir("/tmp/d")
    assert len(listed) == count
    assert listed[0].name < listed[-1].name
    assert _resident(pid) - before < 16 * MB
    await mallory.inside.remove("/tmp/d", recursive=True)
    assert await mallory.inside.list_dir("/tmp") == []


async def test_f07_folders_deeper_than_a_path_are_refused_in_words(ground: Ground) -> None:
    mallory = await ground.make()
    deep = "import os\nos.chdir('/tmp')\nfor _ in range(5000): os.mkdir('d'); os.chdir('d')"
    assert (await mallory.python(deep)).exit.code == 0
    with pytest.raises(TooLarge, match="deep"):
        await mallory.inside.remove("/tmp/d", recursive=True)
    with pytest.raises(InvalidInput):
        await mallory.inside.stat("/tmp" + "/d" * 3000)
    assert (await mallory.inside.stat("/tmp" + "/d" * 1500)).kind == "directory"
    assert await mallory.answers()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_f04_what_a_layer_took_away_stays_away_in_those_baked_on_top(ground: Ground, tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    first = await ground.make()
    await first.sh(
        "mkdir -p /opt/a/b /opt/k; echo 1 > /opt/a/f; echo 2 > /opt/a/b/g; echo 3 > /opt/h; echo 4 > /opt/k/l"
    )
    await ground.runtime.bake(first.id, one)
    second = await ground.make(SandboxSpec(layers=(one,)))
    await second.sh("rm -r /opt/a /opt/h; mkdir /opt/a; echo new > /opt/a/n; echo 5 > /opt/k/m")
    await ground.runtime.bake(second.id, two)
    third = await ground.make(SandboxSpec(layers=(one, two)))
    assert (await third.sh("cd /opt; find . -type f | sort")).stdout.split() == [b"./a/n", b"./k/l", b"./k/m"]


async def test_f04_an_upload_in_progress_does_not_choose_what_is_baked(ground: Ground, tmp_path: Path) -> None:
    """The sidekick then has the upload's folder open; were that taken for the layer, the host's programs went along."""
    mallory = await ground.make()
    held = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await held.wait()

    uploads = [asyncio.create_task(mallory.inside.write_file(path, slow())) for path in ("/a", "/tmp/b", "/dev/shm/c")]
    await asyncio.sleep(0.2)
    await mallory.sh("echo mine > /opt/mine")
    await ground.runtime.bake(mallory.id, str(tmp_path / "layer"))
    held.set()
    await asyncio.gather(*uploads)
    assert (tmp_path / "layer" / "opt" / "mine").read_text() == "mine\n"
    assert not (tmp_path / "layer" / "usr").exists()


async def test_f04_a_layer_that_is_changed_while_it_is_baked_gives_a_layer_or_an_error(
    ground: Ground, tmp_path: Path
) -> None:
    mallory = await ground.make(cpu_millis=2000)
    swap = """
import os
os.chdir("/opt")
os.mkfifo("pipe"); open("file", "w").write("x" * 1000); os.symlink("/etc/shadow", "link"); os.mkdir("dir")
names = ["pipe", "file", "link", "dir"]
while True:
    for name in names:
        os.rename(name, "aside"); os.rename("aside", "swapped"); os.rename("swapped", name)
"""
    await mallory.start("python3", "-c", swap)
    for number in range(8):
        layer = tmp_path / str(number)
        try:
            async with asyncio.timeout(10):
                await ground.runtime.bake(mallory.id, str(layer))
        except AtollError as error:
            assert "could not be copied" in error.message
            continue
        for folder, _, names in os.walk(layer):
            for name in names:
                info = os.lstat(f"{folder}/{name}")
                assert stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)
                assert info.st_uid == 1000
