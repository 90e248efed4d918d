"""Working trees on a real host: bounded, owned by the right ids, safe from tenants' tricks, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound, Unavailable
from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import ProcessSpec, RunResult
from atoll.domain.sandbox import SandboxSpec
from atoll.domain.tree import Entry, EntryKind
from atoll.domain.tree_size import size_of, with_slack
from atoll.domain.workspace import Quota, WorkspaceMount
from atoll.runtimes.local import node_client
from atoll.runtimes.local.runtime import LocalRuntime
from atoll.sidekick.keeper_client import Data, Skip, Step, Write
from tests.oracles import LeakOracle, children

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="images and mounts need root"),
]

SMALL = Quota(bytes=16 * 2**20, inodes=512)
SETTLE_S = 10.0
KEEPERS_CAPABILITIES = 0b11111  # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID


class Host:
    """A runtime of its own folder, and words for tests."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.runtime = LocalRuntime(data, spares=1, keeper_idle_s=30.0)
        self.leaks = LeakOracle(data)

    async def tree(self, name: str = "one", quota: Quota = SMALL) -> str:
        await self.runtime.make_tree(name, quota)
        return name

    async def make(self, *mounts: tuple[str, str], layers: tuple[str, ...] = ()) -> str:
        """A sandbox with (tree, path) mounted."""
        sandbox_id = new_sandbox_id()
        wanted = tuple(WorkspaceMount("ws", path, tree_id=tree) for tree, path in mounts)
        await self.runtime.make(sandbox_id, SandboxSpec(workspaces=wanted, layers=layers))
        return sandbox_id

    async def sh(self, sandbox_id: str, script: str) -> RunResult:
        async with asyncio.timeout(20):
            return await self.runtime.sidekick(sandbox_id).run(ProcessSpec(("sh", "-c", script)))

    async def said(self, sandbox_id: str, script: str) -> str:
        result = await self.sh(sandbox_id, script)
        assert result.exit.code == 0, result
        return result.stdout.decode()

    async def write(self, tree: str, path: bytes, data: bytes) -> None:
        keeper = await self.runtime.keeper(tree)
        await keeper.apply(_steps(Write(Entry(path, EntryKind.FILE, size=len(data))), Data(data)))

    async def sizes(self, tree: str) -> dict[bytes, int]:
        """Of its files, as its keeper sees them."""
        keeper = await self.runtime.keeper(tree)
        return {seen.path: seen.size async for piece in keeper.scan() for seen in piece if seen.kind == "f"}

    async def kill_node(self) -> None:
        """KILL it; the next one is there when something is asked."""
        node = self.leaks.node()
        os.kill(node, signal.SIGKILL)
        await until(lambda: self.leaks.node() not in (0, node), "the next node")

    async def pid(self, sandbox_id: str) -> int:
        found = await self.runtime.find(sandbox_id)
        assert found is not None
        return int(found.handle["pid"])

    async def nothing_is_left(self) -> None:
        """No loop, no mount, no process of a tree, with the node still there."""

        def clean() -> bool:
            left = self.leaks.loops(), self.leaks.mounted_trees(), os.listdir(self.data / "run" / "trees")
            return left == ([], [], [])

        await until(clean, "every loop and mount is gone")


async def _steps(*steps: Step) -> AsyncIterator[Step]:
    for step in steps:
        yield step


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SETTLE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {SETTLE_S:g} s: {what}"
        await asyncio.sleep(0.02)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path / "data")
    await host.runtime.start()
    try:
        yield host
    finally:
        await asyncio.shield(host.runtime.shutdown())
    await until(lambda: (host.leaks.loops(), host.leaks.node()) == ([], 0), "the node and its loops are gone")
    assert (host.leaks.processes(), host.leaks.cgroups()) == ([], [])
    assert os.listdir(host.data / "run" / "keepers") == []
    log = (host.data / "run" / "node.log").read_text()
    assert log == "", log


async def test_a_tree_offers_its_quota_whatever_its_shape(host: Host) -> None:
    shapes = [
        (2**20, 16),
        (5 * 2**20, 1280),
        (2**26, 4096),
        (2**26, 1_000_000),
        (2**30, 10_000),
        (10 * 2**30, 1_000_000),
        (200 * 2**30, 1_000_000),
    ]
    trees = [await host.tree(f"t{at}", Quota(size, inodes)) for at, (size, inodes) in enumerate(shapes)]
    sandbox_id = await host.make(*((tree, f"/mnt/{tree}") for tree in trees))
    for tree, (size, inodes) in zip(trees, shapes, strict=True):
        said = await host.said(sandbox_id, f"stat -f -c '%a %S %d' /mnt/{tree}; ls -A /mnt/{tree}")
        blocks, block_bytes, files = (int(word) for word in said.split()[:3])
        more = ".home\n" if tree == "t0" else ""
        assert said.endswith(f"{files}\n{more}"), "an empty tree has nothing in it"
        home = 4096 if more else 0
        assert blocks * block_bytes == size - home, (size, inodes)
        wanted = min(inodes, size // 4096) - 1 - bool(more)  # no more files than blocks; the root is one
        steps = 16 * (size // 2**27 + 3)  # ext4 has so many in each of its groups
        assert wanted <= files < wanted + steps, (size, inodes)
        assert os.stat(host.data / "trees" / tree).st_blocks * 512 < 4 * 2**20, "an empty tree takes no room"


async def test_a_small_tree_is_full_at_its_quota_and_not_before(host: Host) -> None:
    tree = await host.tree(quota=Quota(5 * 2**20, 64))
    sandbox_id = await host.make((tree, "/mnt/tree"))
    said = await host.said(
        sandbox_id,
        "cd /mnt/tree; rmdir .home; head -c 5242880 /dev/zero > fits && echo fits; echo x > more || echo full;"
        " rm fits more; i=0; while true > f$i; do i=$((i+1)); done 2> /dev/null; echo $i",
    )
    assert said.split()[:2] == ["fits", "full"]
    assert 63 <= int(said.split()[2]) < 63 + 16
    assert await (await host.runtime.keeper(tree)).free() == (5 * 2**20, 0)


async def test_a_tree_takes_the_room_that_is_reckoned_for_it(host: Host) -> None:
    kind = EntryKind
    entries = [Entry(b"", kind.DIRECTORY), Entry(b"many", kind.DIRECTORY)]
    entries += [Entry(b"d%d" % at, kind.DIRECTORY) for at in range(100)]
    entries += [Entry(b"many/a-name-of-some-length-%04d" % at, kind.FILE, size=at * 3) for at in range(1_500)]
    entries += [Entry(b"l%d" % at, kind.SYMLINK, target=b"x" * at) for at in range(1, 200)]
    entries += [Entry(b"x%d" % at, kind.FILE, xattrs=((b"user.a", b"x" * at * 4),)) for at in range(50)]
    holes = tuple((at * 65_536, 61_440) for at in range(1_500))
    entries.append(Entry(b"sparse", kind.FILE, size=1_500 * 65_536, holes=holes))
    entries.append(Entry(b"hard", kind.HARDLINK, target=b"sparse"))
    entries.sort(key=lambda entry: (entry.kind is kind.HARDLINK, entry.path))

    async def steps() -> AsyncIterator[Step]:
        for entry in entries:
            yield Write(entry)
            for _, length in entry.holes:
                yield Skip(length)
                yield Data(b"x" * (65_536 - length))
            if not entry.holes and entry.size:
                yield Data(b"x" * entry.size)

    quota = Quota(64 * 2**20, 16_384)
    keeper = await host.runtime.keeper(await host.tree(quota=quota))
    before = await keeper.free()
    await keeper.apply(steps())
    after, wanted = await keeper.free(), size_of(entries)
    assert before.inodes - after.inodes == wanted.inodes - 1
    taken = before.bytes - after.bytes
    assert abs(taken - wanted.bytes) <= 0.03 * taken and taken <= with_slack(wanted).bytes, (taken, wanted)


async def test_what_is_deleted_is_given_back_to_the_host(host: Host) -> None:
    sandbox_id = await host.make((await host.tree(), "/workspace"))
    image = host.data / "trees" / "one"
    await host.said(sandbox_id, "head -c 12000000 /dev/urandom > /workspace/big; sync /workspace/big")
    assert os.stat(image).st_blocks * 512 > 11_000_000
    await host.said(sandbox_id, "rm /workspace/big; sync /workspace")
    await until(lambda: os.stat(image).st_blocks * 512 < 4_000_000, "the image shrinks")


async def test_owners_are_each_sandboxs_own_outside_and_the_user_inside(host: Host) -> None:
    tree = await host.tree()
    one, other = await host.make((tree, "/workspace")), await host.make((tree, "/workspace"))
    await host.said(one, "echo x > /workspace/f")
    owners: set[int] = set()
    for sandbox_id in (one, other):
        assert await host.said(sandbox_id, "stat -c '%u %g' /workspace /workspace/f") == "1000 1000\n" * 2
        pid = await host.pid(sandbox_id)
        owner = os.stat(f"/proc/{pid}/root/workspace/f").st_uid
        assert owner == os.stat(f"/proc/{pid}").st_uid + 1000
        owners.add(owner)
    assert len(owners) == 2
    assert await host.said(other, "echo y >> /workspace/f; cat /workspace/f") == "x\ny\n"
    told = await host.said(one, "grep ' /workspace ' /proc/self/mountinfo")
    assert "nosuid,nodev" in told and "idmapped" in told


async def test_a_link_in_a_template_is_not_followed(host: Host, tmp_path: Path) -> None:
    tree = await host.tree()
    builder = await host.make()
    await host.said(builder, "ln -s /etc /workspace; mkdir /data; ln -s /usr /data/deep")
    layer = str(tmp_path / "layer")
    await host.runtime.bake(builder, layer)
    for path in ("/workspace", "/data/deep/x"):
        with pytest.raises(InvalidInput, match=r"workspaces\.path.*links are not followed"):
            await host.make((tree, path), layers=(layer,))
    assert [found.id for found in await host.runtime.list()] == [builder]
    await host.runtime.remove_tree(tree)


async def test_a_link_in_a_workspace_is_not_followed(host: Host) -> None:
    outer, inner = await host.tree("outer"), await host.tree("inner")
    await host.said(await host.make((outer, "/workspace")), "ln -s /tmp /workspace/lib; echo x > /workspace/file")
    for path in ("/workspace/lib", "/workspace/lib/x", "/workspace/file", "/workspace/file/x"):
        with pytest.raises(InvalidInput, match=r"workspaces\.path"):
            await host.make((outer, "/workspace"), (inner, path))
    assert len(await host.runtime.list()) == 1
    await host.runtime.remove_tree(inner)


async def test_a_swap_finds_a_mount_whose_parents_were_renamed(host: Host) -> None:
    old, new = await host.tree("old"), await host.tree("new")
    await host.write(new, b"which", b"new")
    sandbox_id = await host.make((old, "/mnt/a/b"))
    await host.said(sandbox_id, "mv /mnt/a '/mnt/mo ved'; mkdir -p /mnt/a; ln -s /etc /mnt/a/b")
    await host.runtime.swap_tree(sandbox_id, "/mnt/a/b", new, read_only=False)
    assert await host.said(sandbox_id, "cat '/mnt/mo ved/b/which'; test ! -e /etc/which") == "new"
    await host.runtime.remove_tree(old)


async def test_home_is_there_after_a_swap(host: Host) -> None:
    sandbox_id = await host.make((await host.tree("old"), "/workspace"))
    await host.runtime.swap_tree(sandbox_id, "/workspace", await host.tree("new"), read_only=False)
    assert await host.said(sandbox_id, "echo x > ~/f; stat -c '%u %a' ~") == "1000 755\n"


async def test_a_swap_keeps_what_is_mounted_below(host: Host) -> None:
    old, new, lib, deep = [await host.tree(name) for name in ("old", "new", "lib", "deep")]
    sandbox_id = await host.make((old, "/workspace"), (lib, "/workspace/lib"), (deep, "/workspace/lib/x/deep"))
    await host.said(sandbox_id, "echo lib > /workspace/lib/f; echo deep > /workspace/lib/x/deep/f")
    for tree in (new, old, new):
        await host.runtime.swap_tree(sandbox_id, "/workspace", tree, read_only=False)
        assert await host.said(sandbox_id, "cat /workspace/lib/f /workspace/lib/x/deep/f") == "lib\ndeep\n"
    assert await host.said(sandbox_id, "grep -c workspace /proc/self/mountinfo") == "3\n"
    await host.runtime.swap_tree(sandbox_id, "/workspace/lib", old, read_only=False)
    assert await host.said(sandbox_id, "ls -A /workspace/lib; cat /workspace/lib/x/deep/f") == (".home\nlib\nx\ndeep\n")
    # the tree to come has a link where one is mounted below: nothing changes
    await host.said(sandbox_id, "mkdir /workspace/lib/s")
    hostile = await host.tree("hostile")
    await host.said(await host.make((hostile, "/workspace")), "ln -s /etc /workspace/lib")
    with pytest.raises(AtollError, match="links are not followed"):
        await host.runtime.swap_tree(sandbox_id, "/workspace", hostile, read_only=False)
    assert await host.said(sandbox_id, "cat /workspace/lib/x/deep/f") == "deep\n"
    assert {one.path: one.tree_id for one in await host.runtime.tree_mounts(sandbox_id)} == {
        "/workspace": new,
        "/workspace/lib": old,
        "/workspace/lib/x/deep": deep,
    }


async def test_a_kernel_that_cannot_mount_beneath_mounts_on_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = "import atoll.runtimes.local.tree_mounts as mounts; mounts.BENEATH = False;"
    begin, main = node_client._PROGRAM.rsplit(";", 1)
    monkeypatch.setattr(node_client, "_PROGRAM", f"{begin};{older}{main}")
    host = Host(tmp_path / "data")
    await host.runtime.start()
    try:
        old, new, lib = [await host.tree(name) for name in ("old", "new", "lib")]
        sandbox_id = await host.make((old, "/workspace"), (lib, "/workspace/lib"))
        await host.said(sandbox_id, "echo lib > /workspace/lib/f; echo old > /workspace/f")
        await host.runtime.swap_tree(sandbox_id, "/workspace", new, read_only=False)
        assert await host.said(sandbox_id, "ls -A /workspace; cat /workspace/lib/f") == ".home\nlib\nlib\n"
        with pytest.raises(Conflict):  # it is still there, below
            await host.runtime.remove_tree(old)
        assert await host.runtime.tree_in_use(old)
        await host.kill_node()
        with pytest.raises(Conflict):
            await host.runtime.remove_tree(old)
        await host.runtime.swap_tree(sandbox_id, "/workspace", old, read_only=False)
        assert await host.said(sandbox_id, "cat /workspace/f /workspace/lib/f") == "old\nlib\n"
        await host.runtime.destroy(sandbox_id)
        await host.runtime.remove_tree(old)
    finally:
        await host.runtime.shutdown()
    assert host.leaks.loops() == []


async def test_many_trees_are_made_and_swapped_at_once(host: Host) -> None:
    names = [f"t{at}" for at in range(8)]
    await asyncio.gather(*(host.tree(name, Quota(16 * 2**20 + 4096 * (at // 3), 300)) for at, name in enumerate(names)))
    sandbox_id = await host.make((names[0], "/mnt/a"), (names[1], "/mnt/b"))
    swaps = [("/mnt/a", names[2]), ("/mnt/b", names[3]), ("/mnt/a", names[4]), ("/mnt/b", names[5])]
    await asyncio.gather(*(host.runtime.swap_tree(sandbox_id, path, name, read_only=False) for path, name in swaps))
    assert [one.tree_id for one in await host.runtime.tree_mounts(sandbox_id)] == [names[4], names[5]]
    others = await asyncio.gather(*(host.make((name, "/workspace")) for name in names))
    for other in others:
        await host.said(other, "echo x > /workspace/f && test -d ~")
    with pytest.raises(Conflict):
        await asyncio.gather(*(host.runtime.make_tree("same", SMALL) for _ in range(3)))


async def test_nobody_inside_ever_sees_a_swap_half_done(host: Host) -> None:
    trees = [await host.tree("a"), await host.tree("b")]
    for tree in trees:
        await host.write(tree, b"always", b"there")
    sandbox_id = await host.make((trees[0], "/workspace"))
    script = "while [ ! -e /tmp/stop ]; do cat /workspace/always > /dev/null || exit 9; done"
    stream = await host.runtime.sidekick(sandbox_id).start(ProcessSpec(("sh", "-c", script)))
    for at in range(20):
        await host.runtime.swap_tree(sandbox_id, "/workspace", trees[(at + 1) % 2], read_only=False)
    await host.said(sandbox_id, "touch /tmp/stop")
    assert (await host.runtime.sidekick(sandbox_id).wait(stream.id)).code == 0
    await stream.close()


async def test_the_next_node_finds_what_is_mounted(host: Host) -> None:
    tree, other = await host.tree("one"), await host.tree("two")
    first = await host.make((tree, "/workspace"))
    await host.said(first, "echo before > /workspace/f")
    keeper = await host.runtime.keeper(tree)
    await host.kill_node()
    assert await keeper.usage() >= (1, 1)
    assert host.leaks.keepers() == [tree]
    with pytest.raises(Conflict):
        await host.runtime.remove_tree(tree)
    # one file system, not two over one image
    second = await host.make((tree, "/workspace"))
    assert await host.said(second, "cat /workspace/f; echo after > /workspace/g") == "before\n"
    assert await host.said(first, "cat /workspace/g") == "after\n"
    assert len([loop for loop in host.leaks.loops() if loop]) == 1
    await host.runtime.swap_tree(first, "/workspace", other, read_only=False)
    await host.kill_node()
    assert [one.tree_id for one in await host.runtime.tree_mounts(first)] == [other]
    for sandbox_id in (first, second):
        await host.runtime.destroy(sandbox_id)
    for name in (tree, other):
        await host.runtime.remove_tree(name)
    await host.nothing_is_left()


async def test_what_programs_write_in_an_old_tree_is_there_when_they_have_let_go(host: Host) -> None:
    old, new = await host.tree("old"), await host.tree("new")
    sandbox_id = await host.make((old, "/workspace"))
    script = "cd /workspace; exec 3> log; until [ -e /tmp/stop ]; do sleep 0.02; done; echo late > late; echo y >&3"
    await host.said(sandbox_id, f"({script}) > /dev/null 2>&1 & until [ -e /workspace/log ]; do sleep 0.02; done")
    await host.runtime.swap_tree(sandbox_id, "/workspace", new, read_only=False)
    assert await host.runtime.tree_in_use(old)
    assert await host.sizes(old) == {b"log": 0}
    await host.kill_node()  # whichever node is asked, and whoever has read it meanwhile
    assert await host.runtime.tree_in_use(old)
    await host.said(sandbox_id, "touch /tmp/stop")
    async with asyncio.timeout(SETTLE_S):
        while await host.runtime.tree_in_use(old):
            await asyncio.sleep(0.02)
    assert await host.sizes(old) == {b"log": 2, b"late": 5}
    await host.runtime.remove_tree(old)


async def test_a_node_that_dies_at_any_moment_leaves_nothing(host: Host) -> None:
    a, b = await host.tree("a"), await host.tree("b")
    for delay_ms in (0, 2, 4, 7, 11, 16, 30):
        sandbox_id = new_sandbox_id()
        spec = SandboxSpec(workspaces=(WorkspaceMount("ws", tree_id=a),))

        async def live(name: str, spec: SandboxSpec = spec, sandbox_id: str = sandbox_id) -> None:
            await host.runtime.make_tree(name, SMALL)
            await host.runtime.keeper(name)
            await host.runtime.make(sandbox_id, spec)
            await host.runtime.swap_tree(sandbox_id, "/workspace", b, read_only=False)

        living = asyncio.create_task(live(f"m{delay_ms}"))
        await asyncio.sleep(delay_ms / 1000)
        await host.kill_node()
        await asyncio.gather(living, return_exceptions=True)
        for found in await host.runtime.list():
            for one in await host.runtime.tree_mounts(found.id):
                assert await host.said(found.id, f"ls -A {one.path}") is not None
            await host.runtime.destroy(found.id)
    for tree in await host.runtime.list_trees():
        await host.runtime.remove_tree(tree)
    await host.nothing_is_left()
    left = [name for name in os.listdir(host.data / "trees") if name != ".masters"]
    assert left == [], left
    assert await host.runtime.list() == []


async def test_what_nobody_uses_is_unmounted(host: Host) -> None:
    tree = await host.tree()
    sandbox_id = await host.make((tree, "/workspace"))
    assert len(host.leaks.mounted_trees()) == 1
    await host.runtime.destroy(sandbox_id)
    await host.nothing_is_left()
    assert await host.runtime.list_trees() == [tree]


async def test_shutdown_unmounts_and_keeps_the_trees(host: Host) -> None:
    tree = await host.tree()
    await host.said(await host.make((tree, "/workspace")), "echo kept > /workspace/f")
    await host.runtime.shutdown()
    assert host.leaks.loops() == [] and host.leaks.processes() == []
    await host.runtime.start()
    assert await host.said(await host.make((tree, "/workspace")), "cat /workspace/f") == "kept\n"


async def test_a_tree_survives_a_crash_of_the_machine(host: Host, tmp_path: Path) -> None:
    tree = await host.tree()
    sandbox_id = await host.make((tree, "/workspace"))
    await host.said(sandbox_id, "echo safe > /workspace/f; sync; (cd /workspace; for i in 1 2 3; do mkdir d$i; done)")
    image = host.data / "trees" / tree
    shutil.copyfile(image, tmp_path / "as it was")  # what the disk holds while it is mounted
    await host.runtime.destroy(sandbox_id)
    await host.nothing_is_left()
    shutil.copyfile(tmp_path / "as it was", image)
    assert await host.said(await host.make((tree, "/workspace")), "cat /workspace/f; ls -d /workspace/.home") == (
        "safe\n/workspace/.home\n"
    )


async def test_a_damaged_tree_is_an_error_and_harms_nobody_else(host: Host) -> None:
    tree, well = await host.tree("hurt"), await host.tree("well")
    image = os.open(host.data / "trees" / tree, os.O_WRONLY)
    os.pwrite(image, os.urandom(8 * 2**20), 0)
    os.close(image)
    for attempt in (host.make((tree, "/workspace")), host.runtime.keeper(tree)):
        with pytest.raises(Unavailable, match="damaged"):
            await attempt
    assert await host.runtime.list() == []
    await host.said(await host.make((well, "/workspace")), "true")
    await host.runtime.remove_tree(tree)
    assert await host.runtime.list_trees() == [well]


async def test_a_keeper_has_the_tree_and_hardly_any_rights(host: Host) -> None:
    tree = await host.tree()
    await host.runtime.keeper(tree)
    (pid,) = [pid for pid in children(host.leaks.node()) if _root_of(pid) == ["tree"]]
    status = Path(f"/proc/{pid}/status").read_text()
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(re.search(rf"{name}:\s+(\w+)", status)[1], 16) & ~KEEPERS_CAPABILITIES == 0  # type: ignore[index]
    assert re.search(r"CapInh:\s+0+\n", status) and re.search(r"CapAmb:\s+0+\n", status)
    assert re.search(r"NoNewPrivs:\s+1", status) and re.search(r"Seccomp:\s+2", status)
    assert any(os.stat(f"/proc/{pid}").st_uid in span for span in host.leaks.uid_ranges())
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    flags = {fields[4]: fields[5] for fields in mounts}
    assert flags.keys() == {"/", "/tree"}
    assert flags["/"].startswith("ro,nosuid,nodev") and flags["/tree"].startswith("rw,nosuid,nodev")
    for kind in ("net", "ipc", "uts", "mnt", "user", "pid", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def _root_of(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/root")
    except OSError:
        return []


async def test_an_idle_keeper_ends_and_the_next_call_has_another(tmp_path: Path) -> None:
    runtime = LocalRuntime(tmp_path / "data", spares=0, keeper_idle_s=0.2)
    leaks = LeakOracle(tmp_path / "data")
    await runtime.start()
    try:
        await runtime.make_tree("one", SMALL)
        keeper = await runtime.keeper("one")
        for _ in range(2):
            assert (await keeper.usage())[1] >= 1
            await until(lambda: leaks.keepers() == [], "it ends")
        await until(lambda: leaks.mounted_trees() == [], "its tree is unmounted")
    finally:
        await runtime.shutdown()
    assert leaks.loops() == []


async def test_a_tree_that_is_removed_takes_its_keeper_along(host: Host) -> None:
    tree = await host.tree()
    keeper = await host.runtime.keeper(tree)
    await host.runtime.remove_tree(tree)
    assert host.leaks.keepers() == []
    with pytest.raises(NotFound):
        await keeper.usage()
    await host.nothing_is_left()


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "x" * 200, "a\0"])
async def test_only_plain_names_are_trees(host: Host, name: str) -> None:
    with pytest.raises(InvalidInput, match="tree_id"):
        await host.runtime.make_tree(name, SMALL)
    with pytest.raises(NotFound):
        await host.runtime.keeper(name)
    await host.runtime.remove_tree(name)
