"""Tasks in real sandboxes, on real working trees: what fakes cannot tell."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.domain.sandbox import NetworkMode
from atoll.domain.task import TaskEnd, TaskState
from atoll.runtimes.local.runtime import LocalRuntime
from atoll.services.limits import Limits
from atoll.services.tasks.requests import TaskLimits
from tests.services.conftest import ALICE
from tests.services.tasks.desk import Desk
from tests.services.workspaces.workshop import LIMITS, Workshop

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the full isolation tier needs root"),
]


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Desk]:
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
    desk = Desk(shop, TaskLimits(agent="command", network=NetworkMode.NONE, stop_s=1.0))
    await desk.start()
    try:
        yield desk
    finally:
        await desk.close()
        await shop.close()
        await runtime.shutdown()


async def test_a_task_in_a_repository_of_its_workspace(real: Desk) -> None:
    script = "cat; pwd; echo $HOME; git config user.name; git config user.email; echo made > made; echo no >&2"
    task = await real.done("sh", "-c", script, prompt="words\n")
    assert task.output.splitlines() == [
        "words", "/workspace", "/workspace/.home", "Testbase Agent", "agent@testbase.ai"
    ]  # fmt: skip
    assert (await real.shop.files("w"))[b"made"] == b"made\n"
    again = await real.done("sh", "-c", "git log --oneline 2>&1 | head -1; cat made", session=task.thread)
    assert again.output.endswith("made\n")


async def test_an_agent_that_does_not_listen_is_killed_with_all_it_started(real: Desk) -> None:
    script = "trap '' TERM; (trap '' TERM; sleep 1000) & echo saved > kept; echo up; while :; do sleep 1; done"
    task = await real.submit("sh", "-c", script)
    async for event in real.tasks.events(ALICE, task.id):
        if event.type == "output":
            break
    ended = await real.tasks.cancel(ALICE, task.id)
    assert (ended.state, ended.end, ended.output) == (TaskState.CANCELLED, TaskEnd.CANCELLED, "up\n")
    assert (await real.shop.files("w"))[b"kept"] == b"saved\n"
    assert await real.shop.records.count_live() == 0


async def test_an_agent_that_floods_its_output_keeps_nobody_waiting_and_ends(real: Desk) -> None:
    script = "yes the same words again and again and again & sleep 1; kill $!; echo; echo kept > kept"
    flooding = await real.submit("sh", "-c", script, workspace="flood")
    async for event in real.tasks.events(ALICE, flooding.id):
        if event.type == "output":
            break
    beside = await real.done("echo", "beside")
    assert beside.output == "beside\n"
    ended = await real.tasks.wait(ALICE, flooding.id)
    assert (ended.state, ended.end) == (TaskState.SUCCEEDED, TaskEnd.DONE)
    told = await real.told(flooding)
    assert len(told) <= real.limits.events_max and told[-1] == "task.ended" and told.count("warning") == 1


async def test_an_agent_that_takes_all_memory_or_forks_without_end_is_a_task_that_failed(real: Desk) -> None:
    script = "echo kept > kept; exec python3 -c 'print(len(b\"x\" * 2**31))'"
    eats = await real.done("sh", "-c", script, workspace="eats", timeout_s=30)
    assert (eats.state, eats.end) == (TaskState.FAILED, TaskEnd.AGENT_FAILED)
    assert (await real.shop.files("eats"))[b"kept"] == b"kept\n"
    script = "for n in $(seq 2000); do sleep 1000 & done; sleep 1000"
    forks = await real.done("sh", "-c", script, workspace="forks", timeout_s=2)
    assert forks.state is TaskState.FAILED and forks.end in (TaskEnd.TIMEOUT, TaskEnd.AGENT_FAILED)
    assert await real.shop.records.count_live() == 0
