"""A program that was installed is in the sandbox of whoever does tasks with it, for all to run and nobody to change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.agents.base import Package
from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import SandboxSpec
from atoll.runtimes.local.runtime import LocalRuntime
from atoll.services.agents.installed import Wanted, measure
from atoll.services.agents.installs import AgentInstalls

CHANGES = (
    "echo more >> /opt/atoll/agents/tested/bin/tested-program",
    "rm -f /opt/atoll/agents/tested/bin/tested-program",
    "mv /opt/atoll/agents/tested/bin/tested-program /tmp/",
    "chmod 777 /opt/atoll/agents/tested/bin",
    "rm -rf /opt/atoll",
    "mv /opt/atoll /opt/other",
    "mkdir -p /opt/atoll/agents/tested/bin/new",
)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="the full isolation tier needs root")
async def test_nobody_inside_changes_the_program_and_nobody_outside_sees_a_change(tmp_path: Path) -> None:
    own = tmp_path / "own" / "bin"
    own.mkdir(parents=True)
    (own / "tested-program").write_text("#!/bin/sh\necho it runs as $(id -u)\n")
    (own / "tested-program").chmod(0o700)
    package = Package("pip", "none", "1", folder="none", program="bin/tested-program")
    installs = AgentInstalls(tmp_path / "agents", {"tested": Wanted(package, (), own.parent)})
    made = await installs.install("tested")
    runtime = LocalRuntime(tmp_path / "data")
    await runtime.start()
    try:
        spec = SandboxSpec(agent="tested", layers=(installs.layer("tested"),))
        one, other = new_sandbox_id(), new_sandbox_id()
        await runtime.make(one, spec)
        await runtime.make(other, spec)
        for change in CHANGES:
            await runtime.sidekick(one).run(ProcessSpec(("sh", "-c", change)))
            inside = await runtime.sidekick(one).run(ProcessSpec(("tested-program",)))
            assert inside.stdout == b"it runs as 1000\n", change
        outside = await runtime.sidekick(other).run(ProcessSpec(("sh", "-c", "ls -R /opt/atoll; tested-program")))
        assert outside.stdout.count(b"tested-program") == 1 and outside.stdout.endswith(b"it runs as 1000\n")
        assert measure(made.folder) == (made.bytes, made.files) and installs.installed("tested") == made
        await runtime.make(plain := new_sandbox_id(), SandboxSpec())
        path = await runtime.sidekick(plain).run(ProcessSpec(("sh", "-c", "echo $PATH; ls /opt")))
        assert b"agents" not in path.stdout and b"atoll" not in path.stdout
    finally:
        await runtime.shutdown()
