"""A workspace's snapshots beside restic and `tar | zstd -3` on the same files; forks; memory under a large file."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from atoll import Sandbox, Workspace
from bench import trees
from bench.figures import Report
from bench.peers import installed
from bench.running import MemoryWatch, milliseconds
from bench.trees import Shape

CHANGED = ",".join(str(number * 37) for number in range(10))
MIB = 2**20
TIMEOUT_S = 600


def snapshots(report: Report, shape: Shape, rounds: int) -> None:
    """The first, the next after ten changes, a restore and a fork; each peer once on the same machine."""
    changed = ",".join(str(int(number) % shape.files) for number in CHANGED.split(","))
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as scratch:
        _tar(report, shape, Path(scratch))
        _restic(report, shape, Path(scratch), changed)
    workspace = Workspace.create(f"bench-{uuid4().hex[:8]}", automatic=False)
    try:
        with Sandbox.create(network="none", workspace=workspace) as sandbox:
            sandbox.run(trees.command("/workspace", shape), check=True, timeout=TIMEOUT_S)
            _ours(report, shape, workspace, sandbox, changed, rounds)
    finally:
        workspace.delete()


def _ours(report: Report, shape: Shape, workspace: Workspace, sandbox: Sandbox, changed: str, rounds: int) -> None:
    began = time.perf_counter()
    first = workspace.snapshot(keep=True)
    first_s = time.perf_counter() - began
    report.value("snapshot.first", f"first snapshot, {shape}", first_s, "s", against="tar", goal="<= 4x tar|zstd")
    if "restic.first" in report.rows:
        report.value(
            "snapshot.first.ratio", "... beside restic's first", first_s, "s", against="restic.first", goal="< 1x"
        )
    later: list[float] = []
    for number in range(max(3, rounds)):
        again = ",".join(str((int(one) + number) % shape.files) for one in changed.split(","))
        sandbox.run(trees.command("/workspace", shape, again), check=True, timeout=TIMEOUT_S)
        later.append(milliseconds(workspace.snapshot))
    report.times("snapshot.next", "... the next, 10 files changed", later, goal="<= 200 ms")
    if "restic.next" in report.rows:
        ratio = statistics.median(later) / 1e3
        report.value(
            "snapshot.next.ratio", "... beside restic's next", ratio, "s", against="restic.next", goal="<= 0.33x"
        )
    began = time.perf_counter()
    workspace.restore(first.id)
    restored_s = time.perf_counter() - began
    report.value("restore", "... restore of the first", restored_s, "s", against="untar", goal="<= 3x zstd -d|tar x")
    forks: list[Workspace] = []
    try:
        times = [milliseconds(lambda: forks.append(workspace.fork(f"bench-{uuid4().hex[:8]}"))) for _ in range(10)]
    finally:
        for fork in forks:
            fork.delete()
    report.times("fork", "... fork", times, goal="<= 50 ms")


def _tar(report: Report, shape: Shape, scratch: Path) -> None:
    if not installed("zstd"):
        report.missing("tar", f"tar | zstd -3, {shape}", "zstd is not installed")
        return
    source, packed, back = scratch / "tree", scratch / "tree.tar.zst", scratch / "back"
    source.mkdir()
    back.mkdir()
    trees.make(source, shape)
    report.value("tar", f"tar | zstd -3, {shape}", _shell(f"tar -C {source} -c . | zstd -q -3 -o {packed}"), "s")
    report.value("untar", "... zstd -d | tar x", _shell(f"zstd -q -dc {packed} | tar -C {back} -x"), "s")


def _restic(report: Report, shape: Shape, scratch: Path, changed: str) -> None:
    if not installed("restic"):
        report.missing("restic.first", f"restic backup, {shape}", "not installed")
        return
    source, store = scratch / "restic-tree", scratch / "store"
    source.mkdir()
    trees.make(source, shape)
    options = f"--no-cache -q -r {store}"
    _shell(f"restic {options} init")
    report.value("restic.first", f"restic backup, {shape}", _shell(f"restic {options} backup {source}"), "s")
    trees.make(source, shape, only=changed)
    report.value("restic.next", "... the next, 10 files changed", _shell(f"restic {options} backup {source}"), "s")


def _shell(line: str) -> float:
    began = time.perf_counter()
    environment = {**os.environ, "RESTIC_PASSWORD": "bench"}
    subprocess.run(["sh", "-c", line], check=True, timeout=TIMEOUT_S, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def large_file(report: Report, server_pid: int, size_bytes: int) -> None:
    """What the server's memory does while a large file goes into a revision and out again."""
    workspace = Workspace.create(f"bench-{uuid4().hex[:8]}", automatic=False)
    try:
        with Sandbox.create(network="none", workspace=workspace) as sandbox:
            count = size_bytes // MIB
            line = f"head -c {count}M /dev/urandom > /workspace/large"
            sandbox.run(["sh", "-c", line], check=True, timeout=TIMEOUT_S)
            with MemoryWatch(server_pid) as watch:
                first = workspace.snapshot()
                sandbox.run(["rm", "/workspace/large"], check=True)
                workspace.restore(first.id)
    finally:
        workspace.delete()
    label = f"snapshot and restore of a {size_bytes // MIB} MiB file: server memory"
    report.value("large.server_growth", label, watch.growth_bytes / MIB, "MiB", goal="<= 64 MiB")
