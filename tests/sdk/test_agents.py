"""Agents do tasks: what a run gives back, the conversation it continues, whose key it uses, what is listed."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from atoll import Agent, CloudRuntime, LocalRuntime, run
from atoll.sdk import (
    InvalidInput,
    NoModelKey,
    NotFound,
    Tasks,
)
from atoll.sdk.agent_requests import workspace_id
from atoll.sdk.config import resolve
from tests.sdk.fake_tasks import FakeTasks
from tests.sdk.stand_in import KEY, StandIn
from tests.sdk.worlds import in_both_worlds


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


def test_a_local_runtime_without_a_models_key_says_what_to_set(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    runtime = LocalRuntime(data=tmp_path / "local")
    with pytest.raises(NoModelKey, match="set OPENAI_API_KEY"):
        run(Agent(runtime=runtime, workspace=folder), "x")
    assert not (tmp_path / "local").exists()
