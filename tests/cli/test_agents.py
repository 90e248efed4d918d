from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Atoll
from tests.sdk.fake_tasks import BILLING, FakeTasks
from tests.sdk.fake_workspaces import Workspace as Stored
from tests.sdk.stand_in import StandIn


@pytest.fixture
def tasks(server: StandIn, atoll: Atoll, tmp_path: Path) -> FakeTasks:
    atoll.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    return server.routes.tasks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    (made / "README").write_text("mine\n")
    return made


def test_run_shows_what_is_done_and_says_the_output(atoll: Atoll, tasks: FakeTasks, folder: Path) -> None:
    done = atoll("agent", "run", "Create hello.py", "--workspace", str(folder), "--agent", "codex", "--budget", "0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Created hello.py\n"
    assert done.stderr.splitlines() == [
        "-> README",
        "$ touch hello.py",
        "+ hello.py",
        "<- hello.py",
        f"6,656 tokens, $0.10308; $9.89692 left; session {next(iter(tasks.all.values())).session}",
    ]
    assert (folder / "hello.py").exists()
    request = tasks.requests[0]
    assert (request["agent"], request["budget"], request["task"]) == ("codex", 0.5, "Create hello.py")


def test_run_as_json_is_one_object(atoll: Atoll, tasks: FakeTasks, folder: Path) -> None:
    done = atoll("agent", "run", "-", "-W", str(folder), "--json", "--timeout", "5m", stdin="Create hello.py")
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["output"] == "Created hello.py"
    assert said["usage"]["total_cost"] == 0.10308
    assert said["billing"] == {"balance_after": 9.89692, "total_spent": 0.10308}
    assert (said["sent"], said["received"], said["state"]) == (["README"], ["hello.py"], "succeeded")
    assert tasks.requests[0]["timeout"] == 300
    assert tasks.requests[0]["task"] == "Create hello.py"


def test_run_continues_a_session_and_takes_a_command(atoll: Atoll, tasks: FakeTasks) -> None:
    said = json.loads(atoll("agent", "run", "one", "--json", "--", "make", "-k", "all").stdout)
    again = json.loads(atoll("agent", "run", "two", "--json", "--session", said["session_id"]).stdout)
    assert again["session_id"] == said["session_id"]
    assert tasks.requests[0]["command"] == ["make", "-k", "all"]
    assert tasks.requests[0]["agent"] == "command"
    unknown = atoll("agent", "run", "two", "--session", "thread_none")
    assert (unknown.returncode, unknown.stderr) == (1, "atoll: Session not found: thread_none\n")


def test_a_task_in_several_words_is_told_to_be_quoted(atoll: Atoll, tasks: FakeTasks) -> None:
    done = atoll("agent", "run", "fix", "the", "bug")
    assert done.returncode == 2
    assert "put it in quotes" in done.stderr
    wrong = atoll("agent", "run", "x", "--budget", "cheap")
    assert (wrong.returncode, wrong.stderr) == (2, "atoll: --budget must be a number of dollars\n")
    for option, word in (("--network", "foo"), ("--workspace", "./nope")):
        wrong = atoll("agent", "run", "x", option, word)
        assert (wrong.returncode, option in wrong.stderr, word in wrong.stderr) == (2, True, True), wrong.stderr
    wrong = atoll("agent", "run", "x", "--agent", "codex", "--", "make")
    assert wrong.stderr == "atoll: COMMAND must be absent for codex: only the agent `command` takes one\n"
    assert not tasks.requests


def test_a_task_that_fails_says_why_and_what_it_said(atoll: Atoll, tasks: FakeTasks, folder: Path) -> None:
    tasks.end = {"state": "failed", "reason": "insufficient_credit", "error": "it is spent", "billing": BILLING}
    done = atoll("agent", "run", "x", "-W", str(folder))
    assert (done.returncode, done.stdout) == (1, "Created hello.py\n")
    assert done.stderr.endswith("atoll: it is spent\n")
    assert (folder / "hello.py").exists()
    tasks.refuse = 402, {"error": "Insufficient Credits", "message": "Please add credits."}
    done = atoll("agent", "run", "x", "-W", str(folder))
    assert (done.returncode, done.stderr) == (1, "atoll: Please add credits.\n")


def test_an_agents_words_do_not_steer_the_terminal(atoll: Atoll, tasks: FakeTasks) -> None:
    def work(workspace: Stored) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "message", {"text": "\x1b[2Jfirst [bold]"}
        yield "command", {"command": "x\x1b]0;y\x07", "exit_code": 1, "output": "\x9b31m", "status": "failed"}
        yield "message", {"text": "last"}

    tasks.work = work
    done = atoll("agent", "run", "x")
    assert done.stderr.splitlines()[:3] == ["[2Jfirst [bold]", "$ x]0;y", "  exited with 1: 31m"]
    assert done.stdout == "last\n"


def test_ctrl_c_ends_the_task_and_brings_back_what_was_done(atoll: Atoll, tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True
    terminal = atoll.on_terminal("agent", "run", "x", "-W", str(folder), size=(150, 24))
    terminal.expect("working")
    terminal.type("\x03")
    terminal.expect("cancelling")
    terminal.expect("1 path came back")
    assert terminal.wait() == 130
    assert tasks.cancelled == list(tasks.all)
    assert (folder / "partial.txt").read_text() == "so far\n"


def test_a_task_whose_output_nobody_reads_is_ended(atoll: Atoll, tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True
    process = atoll.start("agent", "run", "x", "-W", str(folder))
    assert process.stderr is not None
    assert process.stderr.readline() == b"-> README\n"
    process.stderr.close()

    def work(workspace: Stored) -> Iterator[tuple[str, dict[str, Any]]]:
        for number in range(1_000):
            yield "command", {"command": f"echo {number}", "output": "", "exit_code": 0, "status": "completed"}

    tasks.work, tasks.held = work, False
    assert process.wait(20) != 0
    assert tasks.cancelled == list(tasks.all)


def test_ctrl_c_twice_leaves_at_once(atoll: Atoll, tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True
    process = atoll.start("agent", "run", "x", "-W", str(folder))
    until = time.monotonic() + 20
    while not tasks.resumed:
        assert time.monotonic() < until
        time.sleep(0.01)
    tasks.cancel_hangs = True
    os.kill(process.pid, signal.SIGINT)
    while not tasks.cancelled:
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(20) == 130


def test_tasks_and_sessions(atoll: Atoll, tasks: FakeTasks) -> None:
    said = json.loads(atoll("agent", "run", "Create hello.py", "--json").stdout)
    task, session = said["task_id"], said["session_id"]
    listed = atoll("tasks", "list").stdout
    assert task in listed
    assert "$0.10308" in listed
    shown = atoll("tasks", "show", task).stdout
    assert "used       6,656 tokens, $0.10308" in shown
    assert shown.endswith("\nCreated hello.py\n")
    assert atoll("tasks", "events", task).stdout.splitlines() == [
        "$ touch hello.py",
        "+ hello.py",
        "Created hello.py",
        "succeeded: done",
    ]
    lines = atoll("tasks", "events", task, "--json", "--after", "5").stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["task.ended"]
    assert atoll("tasks", "cancel", task).stdout == f"{task} succeeded\n"
    assert session in atoll("sessions", "list").stdout
    assert atoll("sessions", "delete", session).stdout == f"{session} deleted\n"
    assert atoll("sessions", "delete", session).stderr == f"atoll: Session not found: {session}\n"
    assert atoll("tasks", "show", "task_none").returncode == 1


def test_local_without_a_models_key_says_what_to_set(alone: Callable[..., Atoll], tmp_path: Path) -> None:
    atoll = alone(XDG_DATA_HOME=str(tmp_path), HOME=str(tmp_path))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        atoll.environment.pop(name, None)
    done = atoll("agent", "run", "x", "--local")
    assert done.returncode == 1
    assert "set OPENAI_API_KEY" in done.stderr
