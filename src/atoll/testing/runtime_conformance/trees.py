"""Working trees: made, bounded, mounted, shared, kept by a keeper, swapped under a live sandbox, and removed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound, Unsupported
from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import SandboxSpec
from atoll.domain.tree import Entry, EntryKind
from atoll.domain.workspace import Quota, WorkspaceMount
from atoll.runtimes.base import Capability, Runtime
from atoll.sidekick.keeper_client import Data, Step, Write
from atoll.testing.runtime_conformance.suite import (
    Machine,
    Suite,
    able,
    chunks,
    content,
    made,
    read_until,
    sh,
    until,
)

SMALL = Quota(bytes=16 * 2**20, inodes=256)


def mount(tree_id: str, path: str = "/workspace", *, read_only: bool = False) -> WorkspaceMount:
    return WorkspaceMount(workspace=f"ws_{tree_id}", path=path, read_only=read_only, tree_id=tree_id)


def with_trees(*mounts: WorkspaceMount, **fields: object) -> SandboxSpec:
    return SandboxSpec(workspaces=mounts, **fields)  # type: ignore[arg-type]


class TreeChecks(Suite):
    @pytest.fixture
    async def tree(self, runtime: Runtime) -> str:
        """A small working tree that nobody uses yet."""
        able(runtime, Capability.TREES)
        await runtime.make_tree("tree_one", SMALL)
        return "tree_one"

    @pytest.fixture
    async def other_tree(self, runtime: Runtime, tree: str) -> str:
        await runtime.make_tree("tree_two", SMALL)
        return "tree_two"

    async def test_trees_are_made_listed_and_removed(self, runtime: Runtime, tree: str, other_tree: str) -> None:
        assert sorted(await runtime.list_trees()) == [tree, other_tree]
        with pytest.raises(Conflict):
            await runtime.make_tree(tree, SMALL)
        await runtime.remove_tree(tree)
        await runtime.remove_tree(tree)
        assert await runtime.list_trees() == [other_tree]
        await runtime.make_tree(tree, SMALL)

    async def test_a_tree_outlives_its_sandboxes(self, runtime: Runtime, tree: str) -> None:
        first = await made(runtime, with_trees(mount(tree)))
        await runtime.sidekick(first).write_file("/workspace/deep/kept", chunks(b"for the next"))
        await runtime.destroy(first)
        second = await made(runtime, with_trees(mount(tree, "/mnt/elsewhere")))
        assert await content(runtime.sidekick(second), "/mnt/elsewhere/deep/kept") == b"for the next"

    async def test_sandboxes_with_the_same_tree_see_each_others_files(self, runtime: Runtime, tree: str) -> None:
        one, other = await made(runtime, with_trees(mount(tree))), await made(runtime, with_trees(mount(tree)))
        await runtime.sidekick(one).write_file("/workspace/a", chunks(b"from one"))
        assert await content(runtime.sidekick(other), "/workspace/a") == b"from one"
        await runtime.sidekick(other).remove("/workspace/a")
        with pytest.raises(NotFound):
            await content(runtime.sidekick(one), "/workspace/a")

    async def test_a_tree_is_in_no_sandbox_that_did_not_ask(self, runtime: Runtime, tree: str) -> None:
        await made(runtime, with_trees(mount(tree)))
        stranger = await made(runtime)
        assert await runtime.tree_mounts(stranger) == []
        with pytest.raises(NotFound):
            await runtime.sidekick(stranger).stat("/workspace")

    async def test_read_only_is_read_only(self, runtime: Runtime, tree: str) -> None:
        writer = await made(runtime, with_trees(mount(tree)))
        reader = await made(runtime, with_trees(mount(tree, read_only=True)))
        await runtime.sidekick(writer).write_file("/workspace/a", chunks(b"1"))
        with pytest.raises(AtollError):
            await runtime.sidekick(reader).write_file("/workspace/a", chunks(b"2"))
        with pytest.raises(AtollError):
            await runtime.sidekick(reader).remove("/workspace/a")
        assert await content(runtime.sidekick(reader), "/workspace/a") == b"1"

    async def test_trees_within_trees(self, runtime: Runtime, tree: str, other_tree: str) -> None:
        spec = with_trees(mount(other_tree, "/workspace/lib/dep", read_only=True), mount(tree))
        filler = await made(runtime, with_trees(mount(other_tree)))
        await runtime.sidekick(filler).write_file("/workspace/a", chunks(b"dep"))
        inside = runtime.sidekick(await made(runtime, spec))
        assert await content(inside, "/workspace/lib/dep/a") == b"dep"
        await inside.write_file("/workspace/lib/own", chunks(b"own"))

    @pytest.mark.parametrize(
        "path", ["workspace", "/", "/proc/x", "/dev", "/usr/lib/x", "/etc", "/home", "/workspace/../etc", "/a\0b", ""]
    )
    async def test_a_path_that_is_the_systems_is_refused(self, runtime: Runtime, tree: str, path: str) -> None:
        with pytest.raises(InvalidInput, match=r"workspaces\.path"):
            await runtime.make(new_sandbox_id(), with_trees(mount(tree, path)))
        assert await runtime.list() == []

    async def test_two_trees_at_one_path_are_refused(self, runtime: Runtime, tree: str, other_tree: str) -> None:
        with pytest.raises(InvalidInput, match=r"workspaces\.path"):
            await runtime.make(new_sandbox_id(), with_trees(mount(tree), mount(other_tree, "//workspace/")))

    async def test_a_tree_that_does_not_exist_is_not_found(self, runtime: Runtime, tree: str) -> None:
        sandbox_id = new_sandbox_id()
        with pytest.raises(NotFound):
            await runtime.make(sandbox_id, with_trees(mount(tree), mount("missing", "/mnt/x")))
        assert await runtime.list() == []
        with pytest.raises(NotFound):
            await runtime.keeper("missing")
        await runtime.remove_tree(tree)

    async def test_a_mounted_tree_is_not_removed(self, runtime: Runtime, tree: str) -> None:
        sandbox_id = await made(runtime, with_trees(mount(tree)))
        await runtime.sidekick(sandbox_id).write_file("/workspace/a", chunks(b"kept"))
        with pytest.raises(Conflict):
            await runtime.remove_tree(tree)
        assert await content(runtime.sidekick(sandbox_id), "/workspace/a") == b"kept"
        await runtime.destroy(sandbox_id)
        await runtime.remove_tree(tree)
        assert await runtime.list_trees() == []

    async def test_the_keeper_and_the_sandbox_see_the_same(self, runtime: Runtime, tree: str) -> None:
        keeper = await runtime.keeper(tree)
        await keeper.apply(_steps(Write(Entry(b"a", EntryKind.FILE, size=5)), Data(b"apply")))
        inside = runtime.sidekick(await made(runtime, with_trees(mount(tree))))
        assert await content(inside, "/workspace/a") == b"apply"
        await inside.write_file("/workspace/b", chunks(b"inside"))
        found = {seen.path: seen.size async for piece in keeper.scan() for seen in piece}
        assert (found[b"a"], found[b"b"]) == (5, 6)

    async def test_keepers_are_one_a_tree_and_no_sandboxes(self, runtime: Runtime, tree: str, other_tree: str) -> None:
        keepers = await asyncio.gather(*(runtime.keeper(name) for name in [tree] * 4 + [other_tree] * 4))
        usages = await asyncio.gather(*(keeper.usage() for keeper in keepers))
        assert all(inodes >= 1 for _, inodes in usages)
        assert await runtime.list() == []
        await runtime.remove_tree(tree)
        with pytest.raises(NotFound):
            await keepers[0].usage()

    async def test_home_lies_in_the_first_workspace(self, runtime: Runtime, tree: str, other_tree: str) -> None:
        self.need("shell", "proc")
        able(runtime, Capability.TREES)
        script = 'echo x > "$HOME/f"; echo "$HOME $PYTHONUSERBASE $NPM_CONFIG_PREFIX ${PATH%%:*}"; pwd'
        spec = with_trees(mount(tree), mount(other_tree, "/mnt/other"), work_dir="/workspace")
        inside = runtime.sidekick(await made(runtime, spec))
        home = "/workspace/.home"
        told = (await sh(inside, script)).stdout.decode().split()
        assert told == [home, f"{home}/.local", f"{home}/.local", f"{home}/.local/bin", "/workspace"]
        assert await content(inside, f"{home}/f") == b"x\n"
        own = runtime.sidekick(await made(runtime, with_trees(mount(tree), env={"HOME": "/tmp"})))
        assert (await sh(own, "echo $HOME")).stdout == b"/tmp\n"
        reader = runtime.sidekick(await made(runtime, with_trees(mount(other_tree, read_only=True))))
        assert (await sh(reader, "echo $HOME")).stdout == b"/home/user\n"

    async def test_a_restarted_server_finds_the_mounts(self, runtime: Runtime, machine: Machine, tree: str) -> None:
        sandbox_id = await made(runtime, with_trees(mount(tree), mount(tree, "/mnt/again", read_only=True)))
        before = await runtime.tree_mounts(sandbox_id)
        assert {one.path: (one.tree_id, one.workspace, one.read_only) for one in before} == {
            "/workspace": (tree, f"ws_{tree}", False),
            "/mnt/again": (tree, f"ws_{tree}", True),
        }
        await runtime.close()
        async with _started(machine) as again:
            assert await again.tree_mounts(sandbox_id) == before
            with pytest.raises(Conflict):
                await again.remove_tree(tree)
            with pytest.raises(NotFound):
                await again.tree_mounts(new_sandbox_id())
        await runtime.start()

    async def test_a_swap_changes_what_is_mounted_at_once(self, runtime: Runtime, tree: str, other_tree: str) -> None:
        able(runtime, Capability.SWAP_TREES)
        for name, text in ((tree, b"old"), (other_tree, b"new")):
            keeper = await runtime.keeper(name)
            await keeper.apply(_steps(Write(Entry(b"which", EntryKind.FILE, size=3)), Data(text)))
        sandbox_id = await made(runtime, with_trees(mount(tree)))
        inside = runtime.sidekick(sandbox_id)
        assert await content(inside, "/workspace/which") == b"old"
        await runtime.swap_tree(sandbox_id, "/workspace", other_tree, read_only=False)
        await runtime.swap_tree(sandbox_id, "/workspace", other_tree, read_only=False)
        assert await content(inside, "/workspace/which") == b"new"
        await inside.write_file("/workspace/more", chunks(b"writable"))
        told = await runtime.tree_mounts(sandbox_id)
        assert [(one.path, one.tree_id, one.read_only) for one in told] == [("/workspace", other_tree, False)]
        await runtime.remove_tree(tree)
        with pytest.raises(Conflict):
            await runtime.remove_tree(other_tree)
        await runtime.swap_tree(sandbox_id, "/workspace", other_tree, read_only=True)
        with pytest.raises(AtollError):
            await inside.write_file("/workspace/more", chunks(b"no more"))

    async def test_a_swap_of_what_is_not_there(self, runtime: Runtime, tree: str) -> None:
        able(runtime, Capability.SWAP_TREES)
        sandbox_id = await made(runtime, with_trees(mount(tree)))
        for name, path, wanted in (
            (new_sandbox_id(), "/workspace", tree),
            (sandbox_id, "/mnt/x", tree),
            (sandbox_id, "/workspace", "missing"),
        ):
            with pytest.raises(NotFound):
                await runtime.swap_tree(name, path, wanted, read_only=False)
        assert [one.tree_id for one in await runtime.tree_mounts(sandbox_id)] == [tree]

    async def test_open_files_stay_those_of_the_old_tree(self, runtime: Runtime, tree: str, other_tree: str) -> None:
        able(runtime, Capability.SWAP_TREES)
        self.need("shell", "proc")
        sandbox_id = await made(runtime, with_trees(mount(tree)))
        inside = runtime.sidekick(sandbox_id)
        script = "cd /workspace; exec 3>log; echo open; while read line; do echo $line >&3; cat log; done"
        stream = await inside.start(ProcessSpec(("sh", "-c", script), stdin=True))
        await read_until(stream, b"open\n")
        await runtime.swap_tree(sandbox_id, "/workspace", other_tree, read_only=False)
        await stream.write_stdin(b"still written\n")
        await read_until(stream, b"still written\n")
        with pytest.raises(NotFound):
            await content(inside, "/workspace/log")
        assert await runtime.tree_in_use(tree)
        # its keeper reads what is written meanwhile, and that changes nothing
        assert "log" in await _names(runtime, tree)
        assert await runtime.tree_in_use(tree)
        await inside.stop(stream.id, 0)
        await stream.close()
        await _let_go(runtime, tree)

    async def test_a_tree_is_in_use_while_it_is_mounted(self, runtime: Runtime, tree: str) -> None:
        assert not await runtime.tree_in_use("missing")
        await runtime.keeper(tree)
        await _let_go(runtime, tree)
        sandbox_id = await made(runtime, with_trees(mount(tree)))
        assert await runtime.tree_in_use(tree)
        await runtime.destroy(sandbox_id)
        await _let_go(runtime, tree)
        assert "" in await _names(runtime, tree)

    async def test_a_program_keeps_the_tree_that_it_works_in(
        self, runtime: Runtime, tree: str, other_tree: str
    ) -> None:
        able(runtime, Capability.SWAP_TREES)
        for ends_with in ("process", "sandbox"):
            sandbox_id = await made(runtime, with_trees(mount(tree)))
            inside = runtime.sidekick(sandbox_id)
            stream = await inside.start(ProcessSpec(("cat",), cwd="/workspace", stdin=True))
            await stream.write_stdin(b"here\n")
            await read_until(stream, b"here\n")
            await runtime.swap_tree(sandbox_id, "/workspace", other_tree, read_only=False)
            assert await runtime.tree_in_use(tree)
            if ends_with == "process":
                await inside.stop(stream.id, 0)
                await _let_go(runtime, tree)
            await stream.close()
            await runtime.destroy(sandbox_id)
            await _let_go(runtime, tree)

    async def test_a_tree_holds_no_more_than_its_quota(self, runtime: Runtime, tree: str) -> None:
        able(runtime, Capability.LIMITS)
        self.need("shell", "proc")
        inside = runtime.sidekick(await made(runtime, with_trees(mount(tree))))
        script = "head -c 12582912 /dev/zero > /workspace/fits && head -c 33554432 /dev/zero > /workspace/big"
        told = await sh(inside, script)
        assert (told.exit.code, b"No space left" in told.stderr) == (1, True), told
        assert (await inside.stat("/workspace/fits")).size == 12 * 2**20
        await inside.remove("/workspace/big")
        many = await sh(inside, "cd /workspace; i=0; while true > f$i; do i=$((i+1)); done 2>/dev/null; echo $i")
        assert 200 <= int(many.stdout) <= 300

    async def test_trees_need_the_capability(self, runtime: Runtime) -> None:
        if Capability.TREES in runtime.capabilities:
            pytest.skip("this runtime has working trees")
        with pytest.raises(Unsupported):
            await runtime.make_tree("tree_one", SMALL)
        with pytest.raises(Unsupported):
            await runtime.make(new_sandbox_id(), with_trees(mount("tree_one")))
        assert await runtime.list() == []


async def _names(runtime: Runtime, tree_id: str) -> set[str]:
    keeper = await runtime.keeper(tree_id)
    return {os.fsdecode(seen.path) async for piece in keeper.scan() for seen in piece}


async def _let_go(runtime: Runtime, tree_id: str) -> None:
    """It is in use for a moment longer, at most."""

    async def free() -> bool:
        return not await runtime.tree_in_use(tree_id)

    await until(free)


async def _steps(*steps: Step) -> AsyncIterator[Step]:
    for step in steps:
        yield step


@asynccontextmanager
async def _started(machine: Machine) -> AsyncGenerator[Runtime]:
    runtime = machine()
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.close()
