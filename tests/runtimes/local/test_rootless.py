"""The rootless tier: what an ordinary user's sandboxes can do, and that the doctor says what they cannot be held to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SRC = Path(__file__).parents[3] / "src"
NOBODY = 65_534
INTERPRETERS = (
    sys.executable,
    f"/usr/bin/python3.{sys.version_info.minor}",
    f"/usr/local/bin/python3.{sys.version_info.minor}",
)
PROGRAM = """
import asyncio, dataclasses, json, pathlib, sys
from atoll.domain.process import ProcessSpec
from atoll.domain.errors import AtollError
from atoll.domain.sandbox import SandboxSpec
from atoll.domain.workspace import Quota, WorkspaceMount
from atoll.runtimes.local.runtime import LocalRuntime

async def look():
    runtime = LocalRuntime(pathlib.Path(sys.argv[1]), spares=1)
    await runtime.start()
    try:
        report = await runtime.doctor()
        await runtime.make("sess_000000000001", SandboxSpec())
        sidekick = runtime.sidekick("sess_000000000001")
        script = "id -un; pwd; cat /etc/shadow /root/*; echo x > /home/user/f && cat /home/user/f"
        told = await sidekick.run(ProcessSpec(("sh", "-c", script)))
        for tree in ("outer", "inner"):
            await runtime.make_tree(tree, Quota())
        mounts = WorkspaceMount("a", tree_id="outer"), WorkspaceMount("b", "/workspace/in", True, "inner")
        await runtime.make("sess_000000000002", SandboxSpec(workspaces=mounts))
        script = "cd ~; mkdir -p d/e; echo kept > d/e/f; chmod 0 d; cd /workspace; ln -s /tmp bad; echo x > in/f"
        done = await runtime.sidekick("sess_000000000002").run(ProcessSpec(("sh", "-c", script)))
        keeper = await runtime.keeper("outer")
        paths = [seen.path.decode() async for piece in keeper.scan() for seen in piece]
        refused = []
        hostile = SandboxSpec(workspaces=(mounts[0], dataclasses.replace(mounts[1], path="/workspace/bad/x")))
        for call in (
            lambda: runtime.remove_tree("outer"),
            lambda: runtime.swap_tree("sess_000000000002", "/workspace", "inner", read_only=False),
            lambda: runtime.make("sess_000000000003", hostile),
        ):
            try:
                await call()
            except AtollError as error:
                refused.append(error.code)
        mounted = [one.tree_id for one in await runtime.tree_mounts("sess_000000000002")]
        await runtime.destroy("sess_000000000002")
        await runtime.remove_tree("outer")
        trees = {"read_only": b"Read-only" in done.stderr, "paths": sorted(paths), "refused": refused,
                 "mounted": mounted, "left": sorted(p.name for p in pathlib.Path(sys.argv[1], "trees").iterdir())}
        print(json.dumps({
            "tier": report.tier,
            "isolated": report.isolated,
            "passed": report.passed,
            "checks": {check.name: [check.ok, check.fix] for check in report.checks},
            "not_enforced": [check.name for check in report.checks if not check.enforced],
            "details": [check.detail for check in report.checks],
            "capabilities": sorted(runtime.capabilities),
            "trees": trees,
            "said": told.stdout.decode().split(),
        }))
    finally:
        await runtime.shutdown()

asyncio.run(look())
"""


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Any]]:
    """What the program above saw, as an ordinary user."""
    user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": f"{SRC}:{sysconfig.get_paths()['purelib']}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for python in INTERPRETERS:
            words = [python, "-c", PROGRAM, f"{folder}/data"]
            try:
                subprocess.run(
                    [python, "-c", "import atoll, structlog"], env=environment, check=True, cwd=folder, **user
                )
            except (OSError, subprocess.CalledProcessError):
                continue
            done = subprocess.run(
                words, env=environment, capture_output=True, text=True, timeout=50, cwd=folder, **user
            )
            if "user namespaces" in done.stderr or "Operation not permitted" in done.stderr:
                pytest.skip("this host gives ordinary users no user namespaces")
            assert done.returncode == 0, done.stderr
            yield json.loads(done.stdout)
            return
    pytest.skip("no Python here that an ordinary user can run and that finds this package")


def test_it_runs_programs_as_its_own_user_and_shows_nothing_of_the_hosts(seen: dict[str, Any]) -> None:
    assert seen["said"] == ["user", "/", "x"]


def test_it_keeps_every_rule_that_isolates(seen: dict[str, Any]) -> None:
    assert (seen["tier"], seen["isolated"], seen["capabilities"]) == ("rootless", True, ["gates", "trees"])


def test_the_doctor_says_what_it_cannot_hold_them_to_and_how_to_mend_that(seen: dict[str, Any]) -> None:
    missing = {name: fix for name, (ok, fix) in seen["checks"].items() if not ok}
    assert missing.keys() == {
        "identity", "cpu_bounded", "memory_bounded", "pids_bounded", "outgoing_network", "listed_network",
        "workspaces_bounded",
    }  # fmt: skip
    assert all(fix.startswith("run as root") for fix in missing.values()), missing
    assert not any("atoll doctor" in detail for detail in seen["details"])


def test_what_this_tier_does_not_enforce_is_no_failed_proof(seen: dict[str, Any]) -> None:
    assert set(seen["not_enforced"]) == {name for name, (ok, _) in seen["checks"].items() if not ok}
    assert seen["passed"]


def test_workspaces_are_plain_folders_seen_by_sandboxes_and_keepers(seen: dict[str, Any]) -> None:
    trees = seen["trees"]
    home = [".home", ".home/d", ".home/d/e", ".home/d/e/f"]
    assert trees["paths"] == ["", *home, "bad", "in"]
    assert trees["read_only"] and trees["mounted"] == ["outer", "inner"] and trees["left"] == ["inner"]
    assert trees["refused"] == ["conflict", "not_supported", "bad_request"]
