"""A tenant who works against its keeper: it changes the tree at every moment, and fills it with what should not be."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.domain.errors import AtollError, Conflict, Internal, InvalidInput, NotFound, TooLarge, Unavailable
from atoll.domain.tree import Entry, EntryKind
from atoll.sidekick import keeper, keeper_read
from atoll.sidekick import protocol as wire
from atoll.sidekick.keeper_client import Data, KeeperClient, ReadFile, Remove, Skip, Write
from atoll.testing.local_keeper import LocalKeeper
from tests.sidekick.running import receive, until
from tests.sidekick.trees import file, folder, read_all, scanned, these

SECRET = b"a secret of the host"

_MALLORY = """
import os, random, sys
tree, outside = sys.argv[1:]
os.chdir(tree)
dice = random.Random(int(os.environ["SEED"]))
names = ["d", "d/e", "d/f", "f", "x", "d/e/g"]
print("ready", flush=True)
def at(path):  # she must not follow her own links: in a sandbox they lead to nothing
    *parents, name = path.split("/")
    folder = os.open(".", os.O_PATH)
    for parent in parents:
        try: deeper = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        finally: os.close(folder)
        folder = deeper
    return folder, name
def anything(name, here):
    kind = dice.randrange(7)
    if kind == 0: os.symlink(outside, name, dir_fd=here)
    elif kind == 1: os.mkfifo(name, dir_fd=here)
    elif kind == 2: os.mkdir(name, dir_fd=here)
    elif kind == 3: os.symlink(outside + "/secret", name, dir_fd=here)
    elif kind == 4: os.symlink(name, name, dir_fd=here)
    elif kind == 5: os.link("x", name, dst_dir_fd=here, follow_symlinks=False)
    else:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=here)
        os.write(fd, b"mine" * dice.randrange(100_000))
        os.close(fd)
while True:
    here = there = -1
    try:
        here, name = at(dice.choice(names))
        step = dice.randrange(4)
        if step == 0: anything(name, here)
        elif step == 1:
            there, other = at(dice.choice(names))
            os.rename(name, other, src_dir_fd=here, dst_dir_fd=there)
        elif step == 2: os.unlink(name, dir_fd=here)
        else: os.rmdir(name, dir_fd=here)
    except OSError:
        pass
    for fd in (here, there):
        if fd >= 0: os.close(fd)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    return made


@pytest.fixture
def local(tree: Path) -> Iterator[LocalKeeper]:
    with LocalKeeper(tree) as running:
        yield running


@pytest.fixture
def client(local: LocalKeeper) -> KeeperClient:
    return local.client


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """What lies beside the tree, and must be neither read nor changed."""
    made = tmp_path / "outside"
    made.mkdir()
    (made / "secret").write_bytes(SECRET)
    (made / "e").mkdir()
    before = [(path, path.stat()) for path in (made, made / "secret", made / "e")]
    yield made
    for path, info in before:
        now = path.stat()
        assert (now.st_ino, now.st_mode, now.st_uid, now.st_mtime_ns) == (
            info.st_ino,
            info.st_mode,
            info.st_uid,
            info.st_mtime_ns,
        )
    assert sorted(os.listdir(made)) == ["e", "secret"]
    assert (made / "secret").read_bytes() == SECRET


async def test_a_tenant_that_changes_everything_all_the_time(tree: Path, outside: Path, client: KeeperClient) -> None:
    seed = random.randrange(2**32)
    mallory = subprocess.Popen(
        [sys.executable, "-c", _MALLORY, tree, outside], stdout=subprocess.PIPE, env={**os.environ, "SEED": str(seed)}
    )
    try:
        assert mallory.stdout is not None
        mallory.stdout.readline()
        deadline = time.monotonic() + 3
        rounds = 0
        while time.monotonic() < deadline:
            async with asyncio.timeout(20):
                await asyncio.gather(_look(client), _change(client, rounds), client.usage())
            rounds += 1
        assert rounds >= 3, f"seed {seed}"
    finally:
        mallory.kill()
        mallory.wait()
        assert mallory.stdout is not None
        mallory.stdout.close()
    await client.apply(these(*(Remove(name) for name in (b"d", b"f", b"x"))))
    assert [name for name in os.listdir(tree) if not name.startswith(".atoll-")] == []


async def _look(client: KeeperClient) -> None:
    for _ in range(5):
        seen = await scanned(client)
        read = await read_all(client, sorted({*seen, b"d/secret", b"d/e/secret", b"x/secret", b"f"}))
        assert not any(SECRET in data for _, data in read.values())
        for found, data in read.values():
            if not found.gone:
                assert len(data) == found.size - sum(length for _, length in found.holes)


async def _change(client: KeeperClient, number: int) -> None:
    steps = (
        (folder(b"d"), folder(b"d/e"), *file(b"d/e/secret", b"ours"), *file(b"d/f", b"ours" * 1000)),
        (Remove(b"d"), Remove(b"x"), Remove(b"f")),
        (*file(b"x", b"ours"), Write(Entry(b"f", EntryKind.HARDLINK, 0, target=b"x"))),
        (Write(Entry(b"f", EntryKind.SYMLINK, 0, target=b"x")), *file(b"d/secret", b"ours")),
    )
    for _ in range(5):
        try:
            await client.apply(these(*steps[number % len(steps)]), sync=False)
        except Conflict:
            pass


async def test_what_would_block_or_has_no_place_in_a_tree(tree: Path, client: KeeperClient) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "d").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(".", os.O_PATH)
    os.chdir(tree)
    listener.bind("socket")
    os.fchdir(here)
    os.close(here)
    if os.geteuid() == 0:
        os.mknod(tree / "null", 0o020666, os.makedev(1, 3))
    seen = await scanned(client)
    assert {path: one.kind for path, one in seen.items() if path in (b"fifo", b"socket", b"null")} == {
        path: kind for path, kind in ((b"fifo", "p"), (b"socket", "?"), (b"null", "?")) if path in seen
    }
    async with asyncio.timeout(10):
        read = await read_all(client, sorted(seen))
    assert {path for path, (found, _) in read.items() if found.gone} == {b"socket", b"null"} & set(seen)
    await client.apply(these(*file(b"fifo", b"x"), *file(b"socket", b"y"), *file(b"null", b"z")), sync=False)
    assert (tree / "fifo").read_bytes() + (tree / "socket").read_bytes() + (tree / "null").read_bytes() == b"xyz"
    listener.close()


async def test_a_file_that_never_rests_is_told_as_it_was_last_read(tree: Path, client: KeeperClient) -> None:
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys\n"
            "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
            "while True:\n"
            "    for size in (0, 1, 300_000, 5_000_000, 12_000_000):\n"
            "        os.ftruncate(fd, size)\n"
            "        os.pwrite(fd, b'x' * 5000, max(0, size - 5000))\n",
            tree / "f",
        ]
    )
    try:
        until((tree / "f").exists)
        for _ in range(40):
            async with asyncio.timeout(20):
                found, data = (await read_all(client, [b"f"]))[b"f"]
            assert len(data) == found.size - sum(length for _, length in found.holes)
            assert set(data) <= {0, ord("x")}
    finally:
        writer.kill()
        writer.wait()


async def test_a_lease_is_waited_for_but_not_for_ever(
    tree: Path, client: KeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "f").write_bytes(b"leased")
    fd = os.open(tree / "f", os.O_RDWR)
    told: list[int] = []
    before = signal.signal(signal.SIGIO, lambda *_: told.append(1))
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        reading = asyncio.create_task(read_all(client, [b"f"]))
        while not told:
            await asyncio.sleep(0.01)
        assert not reading.done()
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        async with asyncio.timeout(10):
            assert (await reading)[b"f"][1] == b"leased"
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)
    assert keeper_read.LEASE_S < 120  # less than what the client waits


async def test_names_and_trees_beyond_what_a_tree_holds(tree: Path, client: KeeperClient) -> None:
    here = os.open(tree, os.O_RDONLY)
    for _ in range(20):  # 20 * 256 bytes: longer than a path may be
        os.mkdir(b"\xff" * 255, dir_fd=here)
        deeper = os.open(b"\xff" * 255, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    seen = await scanned(client)
    assert {one.kind for path, one in seen.items() if len(path) > 4096} == {"?"}
    assert max(map(len, seen)) > 4096
    fitting = sorted(path for path in seen if len(path) <= 4096)
    assert not any(found.gone for found, _ in (await read_all(client, fitting)).values())
    with pytest.raises(InvalidInput):
        await read_all(client, [b"d/" * 3000])
    await client.apply(these(Remove(b"\xff" * 255)), sync=False)
    assert os.listdir(tree) == []


async def test_a_farm_of_hardlinks(tree: Path, client: KeeperClient) -> None:
    (tree / "f").write_bytes(b"x" * 4096)
    for number in range(5000):
        os.link(tree / "f", tree / f"{number}")
    seen = await scanned(client)
    assert len(seen) == 5002
    assert {one.inode for path, one in seen.items() if path} == {os.stat(tree / "f").st_ino}
    _, inodes = await client.usage()
    assert inodes == 2


async def test_slow_readers_hold_up_nobody(tree: Path, local: LocalKeeper, client: KeeperClient) -> None:
    for number in range(30):
        (tree / f"{number}").write_bytes(b"x" * 2**20)
    paths = [b"%d" % number for number in range(30)]
    slow = [client.read(paths) for _ in range(8)]
    for one in slow:
        assert isinstance(await anext(one), ReadFile)
    async with asyncio.timeout(10):
        assert len(await scanned(client)) == 31
        assert sum(len(data) for _, data in (await read_all(client, paths)).values()) == 30 * 2**20
    for one in slow:
        await one.aclose()  # type: ignore[attr-defined]
    await _ends(client)


async def test_too_many_at_once_are_told(tree: Path, client: KeeperClient) -> None:
    (tree / "f").write_bytes(b"x" * 2**24)
    held = [client.read([b"f"]) for _ in range(keeper.MAX_CHILDREN)]
    for one in held:
        await anext(one)
    with pytest.raises(Unavailable):
        await scanned(client)
    for one in held:
        await one.aclose()  # type: ignore[attr-defined]
    await _ends(client)
    assert len(await scanned(client)) == 2


async def _ends(client: KeeperClient) -> None:
    deadline = time.monotonic() + 10
    while (await client.ping())["operations"]:
        assert time.monotonic() < deadline


async def test_nonsense_is_refused_and_ends_nobody(local: LocalKeeper, client: KeeperClient) -> None:
    await client.ping()
    place = local._place  # pyright: ignore[reportPrivateUsage]
    request = wire.json_frame(wire.REQUEST, {"op": "apply"})

    def ask(data: bytes) -> str | None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(f"{place}/keeper")
            sock.settimeout(10)
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                answer = receive(sock)
            except ConnectionError:
                return None
            return None if answer is None else answer[1].get("code")

    for data in (
        wire.json_frame(wire.REQUEST, {"op": "nothing"}),
        wire.json_frame(wire.REQUEST, {"op": ["scan"]}),
        wire.json_frame(wire.REQUEST, [1]),
        wire.frame(wire.DATA, b"x"),
        request + wire.frame(wire.STDIN, b"x"),
        request + wire.frame(wire.DATA, b"\x01"),
        request + wire.frame(wire.DATA, b"\x02\x00\x00\x00\x09x"),
        request + wire.frame(wire.DATA, b"\x63"),
        request + wire.frame(wire.DATA, b"\x04\xff\xff\xff\xff"),
        wire.json_frame(wire.REQUEST, {"op": "read"}) + wire.frame(wire.DATA, b"\x00"),
        wire.json_frame(wire.REQUEST, {"op": "read"}) + wire.frame(wire.DATA, b"\x00\x02.."),
        wire.json_frame(wire.REQUEST, {"op": "unpack", "bytes_max": "much"}),
    ):
        assert await asyncio.to_thread(ask, data) == "bad_request", data
    assert await asyncio.to_thread(ask, request + wire.HEADER.pack(wire.DATA, 2**31)) == "too_large"
    for data in (request, request + wire.HEADER.pack(wire.DATA, 100) + b"x", b"\x10", b""):
        assert await asyncio.to_thread(ask, data) is None
    await _ends(client)


async def test_it_ends_by_itself_when_nobody_asks_and_not_while_somebody_does(tree: Path) -> None:
    with LocalKeeper(tree, idle_s=0.3) as local:
        await local.client.ping()
        assert local.process is not None
        first = local.process
        reader, writer = await local.connect()
        await asyncio.sleep(1.0)
        assert first.poll() is None
        writer.close()
        await writer.wait_closed()
        del reader
        until(lambda: first.poll() is not None)
        assert first.returncode == 0
        assert len(await scanned(local.client)) == 1  # it is started again


async def test_who_comes_while_it_leaves_is_served_or_told(tree: Path) -> None:
    """Never hung up on: the keeper leaves every few milliseconds here."""
    with LocalKeeper(tree, idle_s=0.002) as local:
        for number in range(12):
            await asyncio.sleep(number * 0.001)
            try:
                async with asyncio.timeout(10):
                    assert (await local.client.ping())["version"] == 1
            except NotFound:
                pass


async def test_a_keeper_that_is_gone_is_told(tree: Path, local: LocalKeeper) -> None:
    (tree / "f").write_bytes(b"x" * 2**25)
    reading = local.client.read([b"f"])
    await anext(reading)
    local.close()
    with pytest.raises(NotFound):
        async for _ in reading:
            pass
    tree_gone = LocalKeeper(tree / "none")
    with pytest.raises(NotFound):
        await tree_gone.client.ping()


async def test_a_keeper_that_lies_is_not_believed() -> None:
    """It runs where the tenant's files are: what it sends is looked at, not trusted."""
    answers = {
        "scan": [b"\x00\x05\x00\x00\x00\x01\x00\x00\x00\x01", b"nonsense", bytes(10) * 7 + b"x"],
        "read": [b"x", b"\x01" + b"\xff" * 20, b"\x09" * 300],
        "apply": [b"x"],
    }

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, size = wire.HEADER.unpack(await reader.readexactly(wire.HEADER.size))
        request = json.loads(await reader.readexactly(size))
        writer.write(wire.frame(wire.DATA, answers[request["op"]].pop()) + wire.frame(wire.END))
        if request["op"] == "apply":
            writer.write(wire.json_frame(wire.RESULT, {"told": []}))
        writer.close()

    server = await asyncio.start_server(lie, "127.0.0.1", 0)
    client = KeeperClient(lambda: asyncio.open_connection(*server.sockets[0].getsockname()[:2]))
    try:
        while answers["read"]:
            with pytest.raises(Internal):
                await scanned(client)
            with pytest.raises(Internal):
                await read_all(client, [b"f"])
        with pytest.raises(Internal):
            await client.apply(these(*file(b"f", b"")))
    finally:
        server.close()


@pytest.fixture
def small(tree: Path) -> Iterator[LocalKeeper]:
    """A tree of 1 MiB and 50 inodes."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=50", "none", tree], check=True)
    try:
        with LocalKeeper(tree) as local:
            yield local
    finally:  # what the keeper had running dies a moment after it
        until(lambda: subprocess.run(["umount", tree], stderr=subprocess.DEVNULL).returncode == 0)


@pytest.mark.root
@pytest.mark.alone  # attacks look at the mounts of this machine
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
async def test_a_full_tree_is_told_and_nothing_half_written_stays(tree: Path, small: LocalKeeper) -> None:
    big = Entry(b"big", EntryKind.FILE, size=2**22)
    with pytest.raises(TooLarge):
        await small.client.apply(these(Write(big), Data(bytes(2**21)), Data(bytes(2**21))), sync=False)
    assert os.listdir(tree) == []
    with pytest.raises(TooLarge):
        await small.client.apply(these(*(step for n in range(60) for step in file(b"%d" % n, b""))), sync=False)
    hole = Entry(b"hole", EntryKind.FILE, size=2**62)
    with pytest.raises(AtollError):
        await small.client.apply(these(Write(hole), Skip(2**62)), sync=False)
