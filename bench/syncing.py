"""A folder to a workspace and back, beside rsync between two local folders, for the sizes that the seeds name."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from atoll import Workspace
from bench import trees
from bench.figures import Report
from bench.peers import installed
from bench.running import milliseconds
from bench.trees import Shape


def sync(report: Report, sizes: Sequence[Shape], rounds: int) -> None:
    """First push and pull, rsync there and back, a push after one change and one after none."""
    for shape in sizes:
        with tempfile.TemporaryDirectory(prefix="atoll-bench-") as scratch:
            _one_size(report, shape, Path(scratch), rounds)


def _one_size(report: Report, shape: Shape, scratch: Path, rounds: int) -> None:
    source = scratch / "source"
    source.mkdir()
    trees.make(source, shape)
    name, label = f"sync.{shape.files}", str(shape)
    peer, ours = [], []
    for number in range(rounds):
        if installed("rsync"):
            peer.append(_rsync(source, scratch / f"rsync{number}"))
        ours.append(_there_and_back(source, scratch / f"back{number}"))
    if peer:
        report.value(f"rsync.{shape.files}", f"rsync -a there and back, {label}", statistics.median(peer), "s")
    else:
        report.missing(f"rsync.{shape.files}", f"rsync -a there and back, {label}", "not installed")
    median = statistics.median(ours)
    report.value(name, "... first push and pull", median, "s", against=f"rsync.{shape.files}", goal="<= 3x")
    _pushes(report, shape, source, rounds)


def _rsync(source: Path, scratch: Path) -> float:
    began = time.perf_counter()
    subprocess.run(["rsync", "-a", f"{source}/", f"{scratch}.there/"], check=True, timeout=300)
    subprocess.run(["rsync", "-a", f"{scratch}.there/", f"{scratch}.back/"], check=True, timeout=300)
    return time.perf_counter() - began


def _there_and_back(source: Path, back: Path) -> float:
    workspace = Workspace.create(f"bench-{uuid4().hex[:8]}")
    try:
        began = time.perf_counter()
        workspace.push(source)
        workspace.pull(back)
        return time.perf_counter() - began
    finally:
        workspace.delete()


def _pushes(report: Report, shape: Shape, source: Path, rounds: int) -> None:
    """What a push costs when there is little or nothing to do."""
    workspace = Workspace.create(f"bench-{uuid4().hex[:8]}")
    try:
        workspace.push(source)
        one, none = [], []
        for number in range(max(3, rounds)):
            trees.make(source, shape, only=str(number))
            one.append(milliseconds(lambda: workspace.push(source)))
            none.append(milliseconds(lambda: workspace.push(source)))
    finally:
        workspace.delete()
    goal = {500: "<= 80 ms", trees.LARGE.files: "<= 300 ms"}.get(shape.files, "")
    report.times(f"push.one.{shape.files}", "... push with one file changed", one, goal=goal)
    goal = "<= 40 ms" if shape.files == 500 else ""
    report.times(f"push.none.{shape.files}", "... push with nothing changed", none, goal=goal)
