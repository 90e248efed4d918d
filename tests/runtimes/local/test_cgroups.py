"""Cgroups: groups of one node and its sandboxes; limits that the kernel enforces, kill, freeze, counters, removal."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.runtimes.local.cgroups import ROOT, Cgroups, Counters

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: needs root")]

MB = 2**20


@pytest.fixture
def groups() -> Iterator[Cgroups]:
    groups = Cgroups(f"atoll-test-{os.getpid()}")
    groups.prepare()
    yield groups
    for name in groups.list():
        groups.kill(name)
        for pid in groups.members(name):
            os.kill(pid, signal.SIGKILL)
        until(lambda name=name: groups.remove(name))
    groups.clear()
    assert not list(Path(ROOT).glob(f"*/{groups.name}"))


def until(condition: object, within_s: float = 5) -> None:
    deadline = time.monotonic() + within_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def start(groups: Cgroups, name: str, *argv: str) -> subprocess.Popen[bytes]:
    """A program that is in the groups before it is executed."""
    files = [*groups.make(name)]
    place = groups.birthplace(name)
    if place is not None:
        files.append(f"{place}/cgroup.procs")

    def join() -> None:
        for path in files:
            Path(path).write_text("0")

    return subprocess.Popen(argv, preexec_fn=join)


def need(groups: Cgroups, limit: str) -> None:
    if limit not in groups.limits:
        pytest.skip(f"this host has no {limit} controller for us")


def test_groups_are_made_listed_and_removed(groups: Cgroups) -> None:
    groups.make("1-2-3")
    groups.make("4-5-6")
    assert groups.list() == {"1-2-3", "4-5-6"}
    with pytest.raises(FileExistsError):
        groups.make("1-2-3")
    assert groups.remove("4-5-6")
    assert groups.remove("4-5-6")  # a second call is no error


def test_kill_ends_all_that_is_in_it_and_nothing_else(groups: Cgroups) -> None:
    inside = start(groups, "one", "sh", "-c", "setsid sleep 60 & sleep 60 & wait")
    beside = start(groups, "two", "sleep", "60")
    until(lambda: len(groups.members("one")) == 3)
    assert not groups.remove("one")
    if not groups.kill("one"):
        pytest.skip("this kernel has no cgroup.kill")
    assert inside.wait(5) == -signal.SIGKILL
    until(lambda: groups.members("one") == [])
    until(lambda: groups.remove("one"))
    assert beside.poll() is None
    beside.kill()
    beside.wait()


def test_memory_is_bounded_and_the_kill_is_counted(groups: Cgroups) -> None:
    need(groups, "memory")
    hog = start(groups, "one", "python3", "-c", "import time; time.sleep(0.3); x = bytearray(200 << 20)")
    groups.limit("one", 1000, 64 * MB, 64)
    counters = Counters(groups.counters("one"))
    assert hog.wait(20) == -signal.SIGKILL
    assert counters.oom_kills() == 1
    assert 0 < counters.usage()["memory_peak_bytes"] <= 64 * MB
    counters.close()
    assert counters.usage() == {"cpu_s": 0.0, "memory_peak_bytes": 0}


def test_processes_are_bounded(groups: Cgroups) -> None:
    need(groups, "pids")
    script = "sleep 0.2; i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done"
    bomb = start(groups, "one", "sh", "-c", f"{script} 2>/dev/null")
    groups.limit("one", 1000, 256 * MB, 10)
    until(lambda: bomb.poll() is not None)
    assert bomb.returncode != 0
    assert len(groups.members("one")) <= 10


def test_processor_time_is_bounded_and_counted(groups: Cgroups) -> None:
    need(groups, "cpu")
    spin = start(groups, "one", "sh", "-c", "while :; do :; done")
    groups.limit("one", 250, 256 * MB, 64)
    counters = Counters(groups.counters("one"))
    before, started = counters.usage()["cpu_s"], time.monotonic()
    time.sleep(1.5)
    share = (counters.usage()["cpu_s"] - before) / (time.monotonic() - started)
    assert 0.02 < share < 0.32
    spin.kill()
    spin.wait()
    counters.close()


def test_what_is_frozen_stands_still_until_it_is_thawed(groups: Cgroups) -> None:
    spin = start(groups, "one", "sh", "-c", "while :; do :; done")
    for _ in range(2):
        groups.freeze("one", frozen=True)
    time.sleep(0.1)
    stood = _ticks(spin.pid)
    time.sleep(0.2)
    assert _ticks(spin.pid) == stood
    groups.freeze("one", frozen=False)
    until(lambda: _ticks(spin.pid) > stood)
    groups.freeze("one", frozen=True)
    groups.kill("one")
    spin.kill()
    groups.freeze("one", frozen=False)
    assert spin.wait(5) == -signal.SIGKILL


def _ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_others_groups_are_neither_listed_nor_cleared(groups: Cgroups) -> None:
    foreign = Cgroups(f"atoll-foreign-{os.getpid()}")
    foreign.prepare()
    try:
        foreign.make("one")
        assert groups.list() == set()
        groups.clear()
        assert foreign.list() == {"one"}
    finally:
        foreign.remove("one")
        foreign.clear()
        groups.prepare()
