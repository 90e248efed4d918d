"""Cgroups on a host that has only version 2, in folders that stand for its file system: which files are used for what.

The real one, on a kernel that mounts nothing else, takes the same files; this machine may have version 1.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.runtimes.local import cgroups
from atoll.runtimes.local.cgroups import Cgroups, Counters

OF_A_GROUP = (
    "cgroup.procs", "cgroup.kill", "cgroup.freeze", "cgroup.subtree_control", "cpu.max", "cpu.stat", "memory.max",
    "memory.swap.max", "memory.peak", "memory.events", "pids.max",
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    (tmp_path / "cgroup.subtree_control").touch()
    return tmp_path


@pytest.fixture
def groups(root: Path) -> Cgroups:
    groups = Cgroups("atoll-x")
    planted(root / "atoll-x")
    groups.prepare()
    return groups


def planted(folder: Path) -> Path:
    """What the kernel puts into each new group."""
    folder.mkdir(exist_ok=True)
    for name in OF_A_GROUP:
        (folder / name).touch()
    return folder


def test_every_limit_is_handed_down_and_none_is_missing(root: Path, groups: Cgroups) -> None:
    assert groups.limits == {"cpu", "memory", "pids"}
    # one controller a write: the kernel would take several, or none of them
    assert (root / "cgroup.subtree_control").read_text().startswith("+")
    assert (root / "atoll-x" / "cgroup.subtree_control").read_text().startswith("+")


def test_a_sandbox_is_born_into_its_group_and_joins_no_other(root: Path, groups: Cgroups) -> None:
    assert groups.make("one") == []
    assert groups.birthplace("one") == str(root / "atoll-x" / "one")
    assert groups.list() == {"one"}
    assert groups.remove("one")
    assert groups.list() == set()


def test_limits_go_to_the_files_of_version_2(root: Path, groups: Cgroups) -> None:
    groups.make("one")
    folder = planted(root / "atoll-x" / "one")
    groups.limit("one", 1500, 64 * 2**20, 77)
    told = {name: (folder / name).read_text() for name in ("cpu.max", "memory.max", "memory.swap.max", "pids.max")}
    assert told == {"cpu.max": "150000 100000", "memory.max": "67108864", "memory.swap.max": "0", "pids.max": "77"}


def test_kill_freeze_and_members_are_those_of_version_2(root: Path, groups: Cgroups) -> None:
    groups.make("one")
    folder = planted(root / "atoll-x" / "one")
    (folder / "cgroup.procs").write_text("5\n7\n")
    groups.freeze("one", frozen=True)
    assert (folder / "cgroup.freeze").read_text() == "1"
    groups.freeze("one", frozen=False)
    assert (folder / "cgroup.freeze").read_text().startswith("0")
    assert groups.kill("one")
    assert (folder / "cgroup.kill").read_text() == "1"
    assert groups.members("one") == [5, 7]


def test_usage_and_kills_for_memory_are_read_as_version_2_writes_them(root: Path, groups: Cgroups) -> None:
    groups.make("one")
    folder = planted(root / "atoll-x" / "one")
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n")
    (folder / "memory.peak").write_text("4096\n")
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n")
    counters = Counters(groups.counters("one"))
    assert counters.usage() == {"cpu_s": 2.5, "memory_peak_bytes": 4096}
    assert counters.oom_kills() == 1
    counters.close()


def test_controllers_that_cannot_be_handed_down_are_no_limits(root: Path) -> None:
    """As in a container whose own group still has processes in it."""
    (root / "cgroup.subtree_control").unlink()
    assert Cgroups("atoll-x").limits == set()
