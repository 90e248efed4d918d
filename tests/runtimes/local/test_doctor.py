"""Doctor: what holds on this host holds for it, and what is broken on purpose does not pass."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from atoll.domain import errors
from atoll.runtimes.base import Check, Report
from atoll.runtimes.local import doctor
from atoll.runtimes.local.doctor import examine, unavailable
from atoll.runtimes.local.runtime import LocalRuntime
from tests.ground import ROOT_ONLY
from tests.oracles import LeakOracle
from tests.security.attack import CONTROL


class TestOnThisHost:
    pytestmark = ROOT_ONLY

    @pytest_asyncio.fixture(loop_scope="session")
    async def runtime(self, tmp_path: Path) -> AsyncIterator[LocalRuntime]:
        runtime = LocalRuntime(tmp_path / "data", spares=0)
        await runtime.start()
        yield runtime
        await runtime.shutdown()

    async def test_every_rule_that_isolates_holds_and_nothing_is_left(
        self, runtime: LocalRuntime, tmp_path: Path
    ) -> None:
        report = await examine(runtime)
        assert report.tier == "root"
        assert report.isolated, [check for check in report.checks if not check.ok]
        names = {check.name for check in report.checks}
        assert {
            "capabilities",
            "seccomp",
            "proc_sys",
            "kernel_information",
            "mount",
            "user_namespaces",
            "identity",
        } <= names
        listed = next(check for check in report.checks if check.name == "listed_network")
        assert listed.ok, listed.detail
        assert await runtime.list() == []
        leaks = LeakOracle(tmp_path / "data")
        assert (leaks.processes(), leaks.cgroups(), leaks.loops()) == ([], [], [])

    async def test_a_list_whose_connections_do_not_come_to_the_server_is_none(
        self, runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(doctor, "LIST_S", 1.0)
        monkeypatch.setattr(doctor, "LEAVE", "pass")
        found = await doctor._list(runtime)
        assert (found.name, found.ok, bool(found.fix)) == ("listed_network", False, True)
        assert await runtime.list() == []


async def test_the_probe_sees_a_launcher_that_keeps_no_rules() -> None:
    if os.geteuid() != 0:
        pytest.skip("the control launcher needs root")
    program = f'LIMITS = {{"disk_bytes": {8 << 20}, "inodes": 512}}\n{doctor.PROGRAM}'
    words = [*CONTROL, sys.executable, "-I", "-"]
    done = await asyncio.to_thread(subprocess.run, words, input=program.encode(), capture_output=True, check=True)
    found = json.loads(done.stdout)
    failed = {name for name, (ok, _) in found.items() if not ok}
    assert {
        "capabilities", "no_new_privs", "seccomp", "proc_sys", "kernel_information", "mount", "user_namespaces",
        "foreign_processes", "disk_bounded", "inodes_bounded",
    } <= failed  # fmt: skip  # raw and packet sockets: a host's root may itself have none


def test_a_host_that_can_do_nothing_is_told_with_a_remedy() -> None:
    report = unavailable(errors.Unavailable("clone: Operation not permitted"))
    assert report.tier == "unavailable"
    assert not report.isolated
    (check,) = report.checks
    assert isinstance(check, Check)
    assert "Operation not permitted" in check.detail
    assert check.fix


def test_a_failed_bound_is_not_called_isolated_and_a_missing_ability_fails_alone() -> None:
    held = Check("seccomp", True, "on")
    bound, ability = Check("memory_bounded", False, "exit 0"), Check("outgoing_network", False, "no", isolates=False)
    by_design = Check("cpu_bounded", False, "nothing limits it", enforced=False)
    told = {
        name: (report.isolated, report.passed)
        for name, report in {
            "all": Report("root", (held,)),
            "bound": Report("root", (held, bound)),
            "ability": Report("root", (held, ability)),
            "by design": Report("rootless", (held, by_design)),
        }.items()
    }
    assert told == {
        "all": (True, True),
        "bound": (False, False),
        "ability": (True, False),
        "by design": (True, True),
    }


async def test_in_the_root_tier_a_bound_that_does_not_hold_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("the root tier needs root")
    runtime = LocalRuntime(tmp_path / "data", spares=0)
    await runtime.start()
    monkeypatch.setattr(doctor, "LIMITS", replace(doctor.LIMITS, memory_bytes=512 * 2**20))  # more than the hog takes
    try:
        report = await examine(runtime)
    finally:
        await runtime.shutdown()
    assert {check.name for check in report.checks if check.failed} == {"memory_bounded"}
    assert (report.isolated, report.passed) == (False, False)
