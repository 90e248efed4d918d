"""Working trees of the fake runtime: kept by real keepers, seen by fake sandboxes, gone with their host."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict, Forbidden, NotFound
from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import SandboxSpec
from atoll.domain.workspace import Quota, WorkspaceMount
from atoll.testing.fake_runtime import FakeHost, FakeRuntime


async def test_a_process_in_a_sandbox_changes_the_tree_that_its_keeper_sees() -> None:
    runtime = FakeRuntime(FakeHost())
    await runtime.make_tree("t1", Quota())
    sandbox_id = new_sandbox_id()
    await runtime.make(sandbox_id, SandboxSpec(workspaces=(WorkspaceMount("w", tree_id="t1"),), work_dir="/workspace"))
    inside = runtime.sidekick(sandbox_id)
    await inside.run(ProcessSpec(("sh", "-c", "mkdir d; echo hello > d/f")))
    assert [entry.name for entry in await inside.list_dir("/workspace/d")] == ["f"]
    keeper = await runtime.keeper("t1")
    assert sorted([seen.path async for piece in keeper.scan() for seen in piece]) == [b"", b"d", b"d/f"]
    assert (runtime.host.trees.folder("t1") / "d" / "f").read_text() == "hello\n"
    with pytest.raises(Conflict):
        await runtime.remove_tree("t1")
    await runtime.make_tree("t2", Quota())
    await runtime.swap_tree(sandbox_id, "/workspace", "t2", read_only=True)
    assert await inside.list_dir("/workspace") == []
    with pytest.raises(Forbidden):
        await inside.make_dir("/workspace/d")
    assert await runtime.tree_mounts(sandbox_id) == [WorkspaceMount("w", "/workspace", True, "t2")]
    await runtime.remove_tree("t1")
    await runtime.remove_tree("t1")
    assert await runtime.list_trees() == ["t2"]
    await runtime.shutdown()
    assert await runtime.list_trees() == []


async def test_what_does_not_exist_is_told(tmp_path: Path) -> None:
    runtime = FakeRuntime(FakeHost())
    await runtime.make_tree("t", Quota())
    with pytest.raises(Conflict):
        await runtime.make_tree("t", Quota())
    sandbox_id = new_sandbox_id()
    with pytest.raises(NotFound):
        await runtime.make(sandbox_id, SandboxSpec(workspaces=(WorkspaceMount("w", tree_id="none"),)))
    assert await runtime.find(sandbox_id) is None
    await runtime.make(sandbox_id, SandboxSpec())
    for call in (
        runtime.keeper("none"),
        runtime.swap_tree(sandbox_id, "/workspace", "t", read_only=False),
        runtime.swap_tree("none", "/workspace", "t", read_only=False),
        runtime.tree_mounts("none"),
    ):
        with pytest.raises(NotFound):
            await call
    await runtime.shutdown()


async def test_a_host_that_nobody_has_any_more_leaves_nothing() -> None:
    runtime = FakeRuntime(FakeHost())
    await runtime.make_tree("t", Quota())
    await (await runtime.keeper("t")).ping()
    folder = runtime.host.trees.folder("t")
    del runtime
    gc.collect()
    assert not folder.exists()
