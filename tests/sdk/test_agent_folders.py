"""The files of an agent's task: what travels between a folder and its workspace, and what does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from atoll import Agent, AsyncAgent, CloudRuntime, RunResult, run
from atoll.sdk import (
    SyncFailed,
    Workspace,
)
from atoll.sdk.agent_requests import workspace_id
from tests.sdk.fake_tasks import FakeTasks
from tests.sdk.fake_workspaces import FakeWorkspaces
from tests.sdk.fake_workspaces import Workspace as Stored
from tests.sdk.local_process import Refused


def test_the_workspace_of_a_folder_has_testbases_name(tmp_path: Path) -> None:
    # 16 hex digits of SHA-256 over the absolute path, as its own client has it
    assert workspace_id("/home/ann/My Project!").startswith("my-project-")
    assert workspace_id("/srv/demo") == "demo-" + sha256(b"/srv/demo").hexdigest()[:16]
    assert workspace_id("/srv/demo") == workspace_id("/srv/x/../demo")
    assert workspace_id("/").startswith("folder-")
    assert len(workspace_id("/" + "a" * 200)) <= 128


def test_what_both_changed_is_kept_twice_and_told(tasks: FakeTasks, folder: Path) -> None:
    (folder / "file").write_text("one\n")
    agent = Agent(workspace=folder)

    def work(workspace: Stored) -> Iterator[tuple[str, dict[str, Any]]]:
        workspace.write("file", b"the agent's\n")
        (folder / "file").write_text("mine\n")
        yield "message", {"text": "changed"}

    tasks.work = work
    result = run(agent, "change file")
    assert result.after is not None
    assert [conflict.path for conflict in result.after.conflicts] == ["file"]
    texts = {path.read_text() for path in folder.iterdir()}
    assert texts == {"mine\n", "the agent's\n"}
    told = [event for event in result.events if event.type == "sync"][-1].data
    assert told["conflicts"][0]["path"] == "file"


def test_files_that_do_not_come_back_are_told_of_and_come_with_the_next_run(
    tasks: FakeTasks, fake: FakeWorkspaces, folder: Path
) -> None:
    agent = Agent(workspace=folder)

    def refused(what: str) -> None:
        if tasks.all:
            raise Refused(403, "FORBIDDEN", "not now")

    fake.before = refused
    with pytest.raises(SyncFailed, match="not now") as caught:
        run(agent, "x")
    assert caught.value.output == "Created hello.py"
    assert not (folder / "hello.py").exists()
    fake.before = lambda what: None
    run(agent, "y")
    assert (folder / "hello.py").exists()


def test_what_the_agent_deleted_is_deleted_and_what_is_ignored_never_travels(tasks: FakeTasks, folder: Path) -> None:
    (folder / ".gitignore").write_text("secret.env\n")
    (folder / "secret.env").write_text("KEY=1\n")
    (folder / "old").write_text("old\n")

    def work(workspace: Stored) -> Iterator[tuple[str, dict[str, Any]]]:
        assert b"secret.env" not in workspace.head.tree
        workspace.remove("old")
        yield "message", {"text": "removed"}

    tasks.work = work
    run(Agent(workspace=folder), "remove old")
    assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "secret.env"]


def test_the_repository_that_the_server_makes_stays_there_and_ones_own_travels(
    tasks: FakeTasks, tmp_path: Path
) -> None:
    def work(workspace: Stored) -> Iterator[tuple[str, dict[str, Any]]]:
        if b".git/HEAD" not in workspace.head.tree:
            workspace.write(".git/HEAD", b"ref: refs/heads/main\n")
        yield "message", {"text": "done"}

    tasks.work = work
    plain, own = tmp_path / "plain", tmp_path / "own"
    plain.mkdir()
    (own / ".git").mkdir(parents=True)
    (own / ".git" / "HEAD").write_text("ref: refs/heads/mine\n")
    run(Agent(workspace=plain), "x")
    run(Agent(workspace=own), "x")
    assert not (plain / ".git").exists()
    stored = next(one for one in tasks._workspaces.all.values() if one.name == workspace_id(own))
    assert stored.contents(".git/HEAD") == b"ref: refs/heads/mine\n"


def test_without_sync_the_servers_copy_is_worked_on(tasks: FakeTasks, fake: FakeWorkspaces, folder: Path) -> None:
    fake.make("mine")
    (folder / "here").write_text("stays\n")
    for workspace in ("ws:mine", Workspace.get("mine")):
        assert run(Agent(workspace=workspace), "x").before is None
    skipping = CloudRuntime(skip_sync=True)
    assert run(Agent(runtime=skipping, workspace="mine"), "x").workspace_id == "mine"
    assert run(Agent(runtime=skipping, workspace=folder), "x").workspace_id == workspace_id(folder)
    unnamed = Agent()
    assert run(unnamed, "x").workspace_id.startswith("cloud-")
    assert run(unnamed, "x").workspace_id == run(unnamed, "x").workspace_id
    assert [path.name for path in folder.iterdir()] == ["here"]


def test_several_agents_on_one_folder_wait_for_each_others_syncs(tasks: FakeTasks, folder: Path) -> None:
    made = iter(range(9))

    def work(workspace: Stored) -> Iterator[tuple[str, dict[str, Any]]]:
        workspace.write(f"file{next(made)}", b"x")
        yield "message", {"text": "made"}

    tasks.work = work

    async def together() -> list[RunResult]:
        return await asyncio.gather(*(run(AsyncAgent(workspace=folder), "x") for _ in range(4)))

    assert len({result.session_id for result in asyncio.run(together())}) == 4
    assert sorted(path.name for path in folder.iterdir()) == ["file0", "file1", "file2", "file3"]
