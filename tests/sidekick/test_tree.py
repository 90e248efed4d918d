"""The tree of a program: who belongs to it, also when parents have gone, and who only took a number."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll.sidekick.tree import signal_tree

Start = Callable[[str], int]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a shell script in a session of its own; everything that it noted in $PIDS is ended after the test."""
    noted = tmp_path / "pids"
    started: list[subprocess.Popen[bytes]] = []

    def run(script: str) -> int:
        process = subprocess.Popen(["sh", "-c", script], env={**os.environ, "PIDS": str(noted)}, start_new_session=True)
        started.append(process)
        return process.pid

    yield run
    for process in started:
        process.kill()
        process.wait()
    for word in noted.read_text().split() if noted.exists() else ():
        try:
            os.kill(int(word), signal.SIGKILL)
        except ProcessLookupError:
            pass


def noted(tmp_path: Path, count: int) -> list[int]:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        words = (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else []
        if len(words) == count:
            return [int(word) for word in words]
        time.sleep(0.01)
    raise AssertionError("the script did not note all of its processes")


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended(pids: list[int]) -> bool:
    deadline = time.monotonic() + 5
    while any(map(runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(runs, pids))


def test_children_and_detached_grandchildren_belong_to_it(start: Start, tmp_path: Path) -> None:
    leader = start(
        "sleep 60 & echo $! >> $PIDS; setsid sh -c 'echo $$ >> $PIDS; sleep 60 & echo $! >> $PIDS; wait' & wait"
    )
    pids = noted(tmp_path, 3)
    reached = signal_tree(leader, signal.SIGKILL)
    assert {leader, *pids} <= set(reached)
    assert ended(pids)


def test_an_orphan_in_its_session_belongs_to_it(start: Start, tmp_path: Path) -> None:
    leader = start("(sleep 60 & echo $! >> $PIDS); sleep 60")
    pids = noted(tmp_path, 1)
    signal_tree(leader, signal.SIGKILL)
    assert ended(pids)


def test_whom_term_reached_is_found_again_when_everybody_between_has_ended(start: Start, tmp_path: Path) -> None:
    stubborn = 'trap "" TERM; echo $$ >> $PIDS; while :; do sleep 0.1; done'
    leader = start(f"setsid sh -c '{stubborn}' & sleep 60")
    pids = noted(tmp_path, 1)
    family = signal_tree(leader, signal.SIGTERM)
    assert pids[0] in family
    os.waitpid(leader, 0)
    assert runs(pids[0])
    assert pids[0] not in signal_tree(leader, 0)
    signal_tree(leader, signal.SIGKILL, family)
    assert ended(pids)


def test_a_number_that_another_process_has_by_now_is_left_alone(start: Start) -> None:
    innocent = start("sleep 60")
    stale = {innocent: 1}  # the one that was meant started at the first tick of the machine
    signal_tree(1 << 21, signal.SIGKILL, stale)
    time.sleep(0.05)
    assert runs(innocent)


def test_a_family_that_grows_while_it_is_killed_is_killed(start: Start, tmp_path: Path) -> None:
    leader = start("while :; do sleep 0.01 & done")
    time.sleep(0.2)
    signal_tree(leader, signal.SIGKILL)
    assert ended([leader])
    assert not [
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == leader and runs(pid)
    ]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
