"""The service over the local runtime: real trees, real mounts, processes that hold files open."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import Sandbox
from atoll.runtimes.local.runtime import LocalRuntime
from atoll.services.limits import Limits
from tests.principals import introduce
from tests.services.conftest import ALICE, until

from .workshop import LIMITS, Workshop

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the full isolation tier needs root"),
]


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Workshop]:
    runtime = LocalRuntime(tmp_path)
    await runtime.start()
    shop = Workshop(
        tmp_path,
        runtime_kind=lambda _: runtime,  # type: ignore[arg-type]
        limits=replace(LIMITS, call_s=30.0),
        sandbox_limits=Limits(),
    )
    await shop.blobs.start()
    await shop.start()
    try:
        yield shop
    finally:
        await shop.close()
        await runtime.shutdown()


async def sh(shop: Workshop, sandbox: Sandbox, script: str) -> str:
    result = await shop.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("sh", "-c", script)))
    assert result.exit.code == 0, result.stderr
    return result.stdout.decode()


async def test_a_life_of_a_workspace(real: Workshop) -> None:
    await real.create(quota_bytes=64 * 2**20, quota_inodes=4_000)
    first = await real.mount("w")
    second = await real.mount("w")
    await sh(real, first, "cd /workspace; echo one > a; mkdir d; ln a d/h; ln -s a l; truncate -s 3M sparse")
    assert (
        await sh(real, second, "cat /workspace/d/h; readlink /workspace/l; stat -c %b /workspace/sparse")
        == "one\na\n0\n"
    )
    kept = await real.take()
    assert {b"a", b"d/h", b"sparse"} <= (await real.files("w")).keys()
    assert await sh(real, second, "echo two > /workspace/a; touch /workspace/new; sleep 60 3< /workspace/a & echo $!")
    await real.workspaces.restoring.restore(ALICE, "w", str(kept.number))
    for sandbox in (first, second):
        assert await sh(real, sandbox, "cd /workspace; cat a d/h; test ! -e new; stat -c %h a") == "one\none\n2\n"
    await real.workspaces.restoring.undo(ALICE, "w")
    assert await sh(real, first, "cd /workspace; cat a; ls -A") == "two\n.home\na\nd\nl\nnew\nsparse\n"
    head = (await real.workspaces.sync.head(ALICE, "w")).revision
    await real.push("w", head.id, {b"pushed": b"from outside"})
    assert await sh(real, second, "cat /workspace/pushed; stat -c %u:%g /workspace/pushed") == "from outside1000:1000\n"
    await real.workspaces.forks.fork(ALICE, "w", "f")
    await sh(real, second, "echo late > /workspace/late")
    await real.sandboxes.kill(ALICE, first.id)
    await real.restart()
    await real.sandboxes.kill(ALICE, second.id)
    await until(lambda: _unmarked(real), within_s=20)
    assert (await real.files("w"))[b"late"] == b"late\n"
    await real.parts.upkeep.reconcile()
    assert len(await real.runtime.list_trees()) == 1
    third = await real.mount("f")
    assert await sh(real, third, "cd /workspace; cat a pushed; ls -A") == (
        "two\nfrom outside.home\na\nd\nl\nnew\npushed\nsparse\n"
    )
    await real.workspaces.delete(ALICE, "w")
    await real.sandboxes.kill(ALICE, third.id)
    await real.workspaces.delete(ALICE, "f")
    assert await real.runtime.list_trees() == []


async def test_what_a_program_writes_after_a_restore_is_kept_when_its_sandbox_rests(real: Workshop) -> None:
    await real.create(quota_bytes=64 * 2**20, quota_inodes=4_000)
    sandbox = await real.mount("w")
    await sh(real, sandbox, "echo one > /workspace/a")
    kept = await real.take()
    await sh(
        real,
        sandbox,
        "cd /workspace; echo two > a; (exec 3>> a;"
        " while [ ! -e /tmp/go ]; do sleep 0.02; done; echo three >&3; echo x > new; touch /tmp/done; sleep 60)"
        " > /dev/null 2>&1 & until [ -e /proc/$!/fd/3 ]; do sleep 0.02; done",
    )
    await real.workspaces.restoring.restore(ALICE, "w", str(kept.number))
    assert len(await real.runtime.list_trees()) == 2
    await sh(real, sandbox, "touch /tmp/go; until [ -e /tmp/done ]; do sleep 0.02; done; cat /workspace/a")
    await real.sandboxes.suspend(ALICE, sandbox.id)
    await until(lambda: _old_trees_are_gone(real), within_s=20)
    states = [await real.files("w", one.revision.id) for one in await real.log()]
    assert {b"a": b"two\nthree\n", b"new": b"x\n"} in states
    assert states[0] == {b"a": b"one\n"}
    await introduce(real.records, ALICE)  # nobody wakes what is of nobody
    await real.sandboxes.resume(ALICE, sandbox.id)
    assert await sh(real, sandbox, "cat /workspace/a; ls -A /workspace") == "one\n.home\na\n"
    await real.sandboxes.kill(ALICE, sandbox.id)
    await real.workspaces.delete(ALICE, "w")
    assert await real.runtime.list_trees() == []


async def _old_trees_are_gone(shop: Workshop) -> bool:
    return len(await shop.runtime.list_trees()) == 1


async def _unmarked(shop: Workshop) -> bool:
    found = await shop.records.find_workspace(ALICE.id, "w")
    assert found is not None and found.tree_id is not None
    return not shop.parts.trees.is_marked(found.tree_id)


def tiny_wheel() -> bytes:
    """A package with a module and a command of its own."""
    info = "tiny-1.0.dist-info"
    files = {
        "tiny.py": 'def main():\n    print("tiny works")\n',
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
        f"{info}/RECORD": "",
    }
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return written.getvalue()


async def has(shop: Workshop, sandbox: Sandbox, script: str) -> bool:
    return (await shop.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("sh", "-c", script)))).exit.code == 0


TOOL = """mkdir tool
echo '{"name": "tool", "version": "1.0.0", "bin": {"tool": "tool.js"}}' > tool/package.json
printf '#!/usr/bin/env node\nconsole.log("tool works")\n' > tool/tool.js
chmod +x tool/tool.js
"""


async def test_what_pip_and_npm_install_stays_in_the_workspace(real: Workshop) -> None:
    """Plainly asked: neither a system that manages its own Python (PEP 668) nor a prefix below /usr is in the way."""
    wheel = "tiny-1.0-py3-none-any.whl"
    made = await real.create()
    await real.push("w", made.head.revision.id, {wheel.encode(): tiny_wheel()})
    first = await real.mount("w")
    if not await has(real, first, "python3 -c 'import pip'"):
        pytest.skip("the host's own python3 has no pip")
    npm = await has(real, first, "command -v node && command -v npm")
    await sh(real, first, f"cd /workspace; python3 -m pip install --no-index {wheel}")
    if npm:
        await sh(real, first, f"cd /workspace; {TOOL} npm install -g ./tool")
    await real.sandboxes.kill(ALICE, first.id)
    second = await real.mount("w")
    assert await sh(real, second, "tiny") == "tiny works\n"
    assert "/workspace/.home/.local/lib/" in await sh(real, second, "python3 -c 'import tiny; print(tiny.__file__)'")
    assert not npm or await sh(real, second, "cd /; tool") == "tool works\n"
    await real.take()
    kept = {one.path for one in await real.entries("w")}
    assert {b".home/.local/bin/tiny", b".home/.local/bin/tool" if npm else b"tiny-1.0-py3-none-any.whl"} <= kept
