from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from atoll import Agent, AsyncAgent, CloudRuntime, LocalRuntime, RunResult, run, run_streamed
from atoll.sdk import (
    AsyncTasks,
    BudgetExceeded,
    Conflict,
    InsufficientCredit,
    InvalidInput,
    NoModelKey,
    NotFound,
    RunEvent,
    SpendingLimitExceeded,
    SyncFailed,
    TaskCancelled,
    TaskFailed,
    TaskInfo,
    Tasks,
    TaskTimedOut,
    Workspace,
    _async_io,
)
from atoll.sdk.agent_requests import workspace_id
from atoll.sdk.config import resolve
from tests.sdk.fake_tasks import BILLING, USAGE, FakeTasks
from tests.sdk.fake_workspaces import FakeWorkspaces
from tests.sdk.fake_workspaces import Workspace as Stored
from tests.sdk.local_process import Refused
from tests.sdk.stand_in import KEY, StandIn

DRY = {"state": "failed", "reason": "insufficient_credit"}


@pytest.fixture
def tasks(server: StandIn, fake: FakeWorkspaces) -> FakeTasks:
    return server.routes.tasks


def in_both_worlds(**how: Any) -> list[Callable[[str], RunResult]]:
    """`run` of an Agent, and of an AsyncAgent."""
    return [
        lambda task: run(Agent(**how), task),
        lambda task: asyncio.run(run(AsyncAgent(**how), task)),
    ]


@pytest.mark.parametrize("world", [0, 1])
def test_a_task_on_a_folder_comes_back_with_its_files(tasks: FakeTasks, folder: Path, world: int) -> None:
    (folder / "README").write_text("mine\n")
    result = in_both_worlds(workspace=folder, instructions="Be brief.")[world]("Create hello.py")
    assert result.final_output == "Created hello.py"
    assert (folder / "hello.py").read_text() == "print('hello')\n"
    assert result.ok
    assert result.usage.total_tokens == 6656
    assert result.usage.total_cost == Decimal("0.10308")
    assert result.billing is not None
    assert (result.billing.balance_after, result.billing.total_spent) == (Decimal("9.89692"), Decimal("0.10308"))
    assert result.session_id == "thread_" + "0" * 23 + "1"
    assert result.workspace_id == workspace_id(folder)
    kinds = [event.type for event in result.events]
    assert kinds == ["sync", "task.started", "message.delta", "command", "file_change", "message", "sync", "task.ended"]
    request = tasks.requests[0]
    assert request["task"] == "Create hello.py"
    assert request["instructions"] == "Be brief."
    assert request["workspaceId"] == workspace_id(folder)
    assert "sessionId" not in request


def test_the_workspace_of_a_folder_has_testbases_name(tmp_path: Path) -> None:
    # 16 hex digits of SHA-256 over the absolute path, as its own client has it
    assert workspace_id("/home/ann/My Project!").startswith("my-project-")
    assert workspace_id("/srv/demo") == "demo-" + sha256(b"/srv/demo").hexdigest()[:16]
    assert workspace_id("/srv/demo") == workspace_id("/srv/x/../demo")
    assert workspace_id("/").startswith("folder-")
    assert len(workspace_id("/" + "a" * 200)) <= 128


def test_a_second_run_continues_the_session_and_moves_only_what_changed(tasks: FakeTasks, folder: Path) -> None:
    for number in range(20):
        (folder / f"{number}").write_bytes(bytes([number]) * 10_000)
    agent = Agent(workspace=folder)
    first = run(agent, "one")
    assert first.before is not None
    assert len(first.before.sent) == 20
    tasks.work = lambda workspace: iter([("message", {"text": "nothing"})])
    second = run(agent, "two")
    assert tasks.requests[1]["sessionId"] == first.session_id == second.session_id == agent.session_id
    assert second.before is not None
    assert second.after is not None
    assert not second.before.changed
    assert not second.after.changed
    assert second.before.bytes_sent == 0
    (folder / "3").write_text("changed\n")
    third = run(agent, "three")
    assert third.before is not None
    assert [path.path for path in third.before.sent] == ["3"]


def test_any_session_is_continued_by_its_id_and_an_unknown_one_is_an_error(tasks: FakeTasks, folder: Path) -> None:
    first = run(Agent(workspace=folder), "one")
    again = run(Agent(workspace=folder), "two", session_id=first.session_id)
    assert again.session_id == first.session_id
    agent = Agent(workspace=folder, session_id=first.session_id)
    assert run(agent, "two", session_id="").session_id not in (None, first.session_id)
    with pytest.raises(NotFound, match="Session not found: thread_unknown"):
        run(Agent(workspace=folder, session_id="thread_unknown"), "three")


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


def test_events_are_told_as_they_come(tasks: FakeTasks, folder: Path) -> None:
    stream = run_streamed(Agent(workspace=folder), "Create hello.py")
    with pytest.raises(Conflict, match="has not ended"):
        assert stream.result
    kinds: list[str] = []
    for event in stream:
        kinds.append(event.type)
        if event.type == "task.started":
            assert not (folder / "hello.py").exists()
            assert stream.task_id
    assert kinds[-2:] == ["sync", "task.ended"]
    assert stream.result.final_output == stream.final_output == "Created hello.py"
    assert stream.usage.input_tokens == 6548
    with pytest.raises(InvalidInput, match="once"):
        list(stream)


def test_an_async_agent_streams_too(tasks: FakeTasks, folder: Path) -> None:
    async def follow() -> tuple[list[RunEvent], RunResult]:
        stream = run_streamed(AsyncAgent(workspace=folder), "Create hello.py")
        return [event async for event in stream], stream.result

    events, result = asyncio.run(follow())
    assert [event.seq for event in events] == [0, 1, 2, 3, 4, 5, 0, 6]
    assert tuple(events) == result.events


@pytest.mark.parametrize("world", [0, 1])
def test_a_connection_that_breaks_loses_and_doubles_nothing(tasks: FakeTasks, folder: Path, world: int) -> None:
    tasks.cut_after = [1, 2, 0]
    result = in_both_worlds(workspace=folder)[world]("x")
    assert [event.seq for event in result.events if event.seq] == [1, 2, 3, 4, 5, 6]
    assert tasks.resumed == [None, "1", "3", "3"]
    assert len(tasks.requests) == 1


def test_a_server_that_starts_again_is_waited_for(server: StandIn, tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True
    stream = run_streamed(Agent(workspace=folder), "x")
    events: list[RunEvent] = []
    for event in stream:
        events.append(event)
        if event.type == "task.started":
            server.stop()
            tasks.held = False
            server.start()
    assert [event.seq for event in events if event.seq] == [1, 2, 3, 4, 5, 6]
    assert stream.result.ok


def test_a_server_that_has_too_many_followers_is_asked_again(tasks: FakeTasks, folder: Path) -> None:
    tasks.busy = 1
    result = run(Agent(workspace=folder), "x")
    assert [event.seq for event in result.events if event.seq] == [1, 2, 3, 4, 5, 6]


def test_an_end_that_says_little_is_asked_about(tasks: FakeTasks, folder: Path) -> None:
    tasks.tells_all = False
    result = run(Agent(workspace=folder), "x")
    assert result.final_output == "Created hello.py"
    assert result.usage.total_cost == Decimal("0.10308")


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ({"state": "failed", "reason": "agent_failed", "error": "it gave up"}, TaskFailed),
        ({"state": "failed", "reason": "timeout"}, TaskTimedOut),
        ({"state": "cancelled", "reason": "cancelled"}, TaskCancelled),
        (DRY, InsufficientCredit),
        ({"state": "failed", "reason": "insufficient_credit", "code": "budget_exceeded"}, BudgetExceeded),
        (
            {"state": "failed", "reason": "insufficient_credit", "code": "spending_limit_exceeded"},
            SpendingLimitExceeded,
        ),
    ],
)
def test_a_task_that_ends_badly_raises_with_its_output_and_its_work_saved(
    tasks: FakeTasks, folder: Path, end: dict[str, Any], error: type[Any]
) -> None:
    tasks.end = {**end, "usage": USAGE, "billing": BILLING}
    with pytest.raises(error) as caught:
        run(Agent(workspace=folder), "x")
    assert type(caught.value) is error
    assert caught.value.output == "Created hello.py"
    assert caught.value.result.session_id.startswith("thread_")
    assert (folder / "hello.py").exists()
    if "error" in end:
        assert caught.value.message == end["error"]


def test_what_is_refused_for_money_says_how_much_there_is(tasks: FakeTasks, folder: Path) -> None:
    tasks.refuse = (
        402,
        {
            "error": "Insufficient Credits",
            "message": "Your credit balance is insufficient. Please add credits to continue.",
            "details": {"currentBalance": 0.00001, "totalSpent": 5},
        },
    )
    with pytest.raises(InsufficientCredit, match="add credits") as poor:
        run(Agent(workspace=folder), "x")
    assert (poor.value.current_balance, poor.value.total_spent) == (Decimal("0.00001"), 5)
    assert poor.value.balance == 10
    assert poor.value.result is None
    assert len(tasks.requests) == 1
    tasks.refuse = (
        429,
        {
            "error": "Spending Limit Exceeded",
            "message": "Daily spending limit exceeded ($10)",
            "details": {"dailyUsage": 10.5, "dailyLimit": 10, "monthlyUsage": 20, "monthlyLimit": None},
        },
    )
    with pytest.raises(SpendingLimitExceeded, match="Daily") as limited:
        run(Agent(workspace=folder), "x")
    assert limited.value.details["dailyUsage"] == Decimal("10.5")
    assert limited.value.monthly_limit is None
    assert len(tasks.requests) == 2


def test_what_is_wrong_with_a_request_is_named(tasks: FakeTasks, folder: Path) -> None:
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: Agent(agent_type="llm"), "agent_type"),
        (lambda: Agent(workspace=""), "workspace"),
        (lambda: Agent(workspace=3), "workspace"),  # type: ignore[arg-type]
        (lambda: Agent(workspace=folder / "nope"), "workspace"),
        (lambda: Agent(network="all"), "network"),
        (lambda: Agent(agent="codex", command="make"), "command"),
        (lambda: Agent(mcp_servers=["x"]), "mcp_servers"),  # type: ignore[list-item]
        (lambda: Agent(command=3), "command"),  # type: ignore[arg-type]
        (lambda: CloudRuntime(timeout=0), "timeout"),
        (lambda: run(Agent(workspace=folder), " "), "task"),
        (lambda: run(Agent(workspace=folder), "x", budget=-1), "budget"),
        (lambda: run(Agent(workspace=folder), "x", budget=0.0000001), "budget"),
        (lambda: run(Agent(workspace=folder), "x", timeout=-1), "timeout"),
    ]
    for call, field in wrong:
        with pytest.raises(InvalidInput) as caught:
            call()
        assert caught.value.field == field
    tasks.refuse = 400, {"error": "Validation failed", "errors": [{"field": "mcpServers", "message": "mcpServers: no"}]}
    with pytest.raises(InvalidInput, match="mcp_servers: no"):
        run(Agent(workspace=folder), "x")
    said = {"field": "mcpServers.0.name", "message": "String should match pattern '^[a-z]$'"}
    tasks.refuse = 400, {"error": "Validation failed", "errors": [said]}
    with pytest.raises(InvalidInput, match=r"^mcp_servers\.0\.name: String should match") as named:
        run(Agent(workspace=folder), "x")
    assert named.value.field == "mcp_servers.0.name"
    assert not (folder / "nope").exists()
    (folder / "file").write_text("")
    with pytest.raises(InvalidInput, match="not a folder"):
        Agent(workspace=folder / "file")


def test_everything_that_is_asked_for_travels(tasks: FakeTasks, folder: Path) -> None:
    servers = [{"name": "a", "command": "tool", "args": ["x"]}, {"name": "b", "url": "http://127.0.0.1:1"}]
    agent = Agent(
        "computer",
        CloudRuntime(timeout=90),
        folder,
        "Be brief.",
        agent="claude_code",
        model="m",
        mcp_servers=servers,
    )
    run(agent, "x", budget=0.5)
    run(Agent(workspace=folder, command="echo hi"), "x", timeout=1.5)
    first, second = tasks.requests
    assert first["mcpServers"] == [
        {"type": "stdio", "name": "a", "command": "tool", "args": ["x"]},
        {"type": "http", "name": "b", "url": "http://127.0.0.1:1"},
    ]
    assert (first["agent"], first["model"], first["budget"], first["timeout"]) == ("claude_code", "m", 0.5, 90)
    assert first["wait"] is False
    assert (second["agent"], second["command"], second["timeout"]) == ("command", ["sh", "-c", "echo hi"], 1.5)


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


def test_a_caller_that_is_cancelled_ends_the_task(tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True

    async def give_up() -> None:
        work = asyncio.create_task(run(AsyncAgent(workspace=folder), "x"))
        while not tasks.all:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(give_up())
    assert tasks.cancelled == list(tasks.all)


def test_ctrl_c_in_run_ends_the_task(tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True

    def press() -> None:
        until = time.monotonic() + 10
        while not tasks.resumed and time.monotonic() < until:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        run(Agent(workspace=folder), "x")
    presser.join(10)
    assert tasks.cancelled == list(tasks.all)


def test_leaving_a_stream_before_its_end_cancels_the_task(tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True
    with pytest.raises(KeyboardInterrupt), run_streamed(Agent(workspace=folder), "x") as stream:
        for event in stream:
            if event.type == "task.started":
                raise KeyboardInterrupt
    assert tasks.cancelled == list(tasks.all)


def test_a_stream_that_is_left_gives_its_connection_back_before_it_cancels(
    tasks: FakeTasks, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.held = True
    used: list[int] = []
    cancel = AsyncTasks.cancel

    async def cancelling(self: AsyncTasks, task: str) -> TaskInfo:
        [(lanes, _)] = _async_io._kept.values()
        used.append(sum(len(lane.users) for lane in lanes))
        return await cancel(self, task)

    async def leave() -> None:
        async with run_streamed(AsyncAgent(workspace=folder), "x") as stream:
            async for event in stream:
                if event.type == "task.started":
                    break

    monkeypatch.setattr(AsyncTasks, "cancel", cancelling)
    asyncio.run(leave())
    assert used == [0]


def test_a_cancelled_run_brings_back_what_was_done(tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True
    stream = run_streamed(Agent(workspace=folder), "x")
    canceller: threading.Thread | None = None
    for event in stream:
        if event.type == "task.started":
            canceller = threading.Thread(target=stream.cancel)
            canceller.start()
    assert canceller is not None
    canceller.join(10)
    assert stream.outcome.state == "cancelled"
    assert (folder / "partial.txt").read_text() == "so far\n"
    with pytest.raises(TaskCancelled):
        assert stream.result


def test_no_key_is_in_what_is_shown(
    tasks: FakeTasks, folder: Path, server: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    runtime = CloudRuntime(KEY, server.url, debug=True)
    agent = Agent(runtime=runtime, workspace=folder, instructions="the secret instruction")
    result = run(agent, "the secret task")
    shown = "".join(map(repr, (runtime, agent, result, result.billing, Tasks(), resolve())))
    out, err = capfd.readouterr()
    assert "task_" in err
    assert out == ""
    for secret in (KEY, "secret instruction", "secret task"):
        assert secret not in shown + err


def test_the_key_is_atolls_else_testbases(tasks: FakeTasks, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATOLL_API_KEY")
    monkeypatch.setenv("TESTBASE_API_KEY", KEY)
    assert run(Agent(workspace=folder), "x").ok
    monkeypatch.setenv("TESTBASE_API_KEY", " ")
    with pytest.raises(InvalidInput, match="TESTBASE_API_KEY"):
        run(Agent(workspace=folder), "x")


def test_tasks_and_sessions_are_listed_and_ended(tasks: FakeTasks, folder: Path) -> None:
    result = run(Agent(workspace=folder), "x")
    mine = Tasks()
    assert [task.id for task in mine.list()] == [result.task_id]
    assert mine.get(result.task_id).output == "Created hello.py"
    assert [event.type for event in mine.events(result.task_id, after=4)] == ["message", "task.ended"]
    assert [session.id for session in mine.sessions()] == [result.session_id]
    mine.delete_session(str(result.session_id))
    with pytest.raises(NotFound):
        mine.delete_session(str(result.session_id))
    with pytest.raises(NotFound):
        mine.get("task_none")


def test_a_local_runtime_without_a_models_key_says_what_to_set(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    runtime = LocalRuntime(data=tmp_path / "local")
    with pytest.raises(NoModelKey, match="set OPENAI_API_KEY"):
        run(Agent(runtime=runtime, workspace=folder), "x")
    assert not (tmp_path / "local").exists()
