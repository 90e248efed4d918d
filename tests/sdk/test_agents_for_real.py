"""Agents of the SDK against the server of `atoll up`, and with a private one; models are the stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from atoll import Agent, AsyncAgent, CloudRuntime, LocalRuntime, RunResult, run, run_streamed
from atoll.agents.codex import Codex
from atoll.sdk import InsufficientCredit, NotFound, RunEvent, TaskCancelled, TaskFailed, TaskTimedOut, Workspace
from atoll.sdk._io import close_connections
from atoll.sdk.agent_requests import workspace_id
from tests.agents.sandboxed import STORE
from tests.e2e.machine import Machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.timeout(180),
]

ATOLL = (sys.executable, "-m", "atoll.cli.main")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its data folder, which ATOLL_DATA names."""
    data = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ATOLL_")]:
            patch.delenv(name)
        patch.setenv("ATOLL_DATA", str(data))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("ATOLL_AGENTS__STORE", str(STORE))
        with stand_in_model() as url:
            patch.setenv("OPENAI_BASE_URL", f"{url}/v1")
            up(data, 0)
            yield data
            close_connections()
            subprocess.run([*ATOLL, "down", "--data", str(data)], check=True, capture_output=True, timeout=60)


@contextmanager
def stand_in_model() -> Iterator[str]:
    argv = [sys.executable, "-m", "atoll.testing.model_stand_in"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as model:
        try:
            assert model.stdout is not None
            yield model.stdout.readline().split(" at ")[1].split()[0]
        finally:
            model.kill()


def up(data: Path, port: int) -> dict[str, object]:
    argv = [*ATOLL, "up", "--detach", "--port", str(port), "--data", str(data), "--json"]
    return dict(json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    (made / "README").write_text("mine\n")
    return made


def test_both_kinds_of_agents_work_on_a_folder(real: Path, folder: Path) -> None:
    words = "cat; cat README; echo made > made"
    waited = run(Agent(workspace=folder, command=words), "do it ")
    awaited = asyncio.run(run(AsyncAgent(workspace=folder, command=words, session_id=waited.session_id), "again "))
    assert (waited.final_output, awaited.final_output) == ("do it mine\n", "again mine\n")
    assert waited.session_id == awaited.session_id
    assert (folder / "made").read_text() == "made\n"
    assert sorted(path.name for path in folder.iterdir()) == ["README", "made"]
    assert waited.usage.total_tokens == 0
    assert waited.billing is None  # the owner's key
    assert awaited.before is not None
    assert awaited.before.bytes_sent == 0
    with pytest.raises(NotFound):
        run(Agent(workspace=folder, command=words, session_id="thread_" + "0" * 24), "x")


def test_ends_that_are_none_too_good_have_their_output_and_their_work(real: Path, folder: Path) -> None:
    with pytest.raises(TaskFailed) as failed:
        run(Agent(workspace=folder, command="echo said; echo work > work; exit 3"), "x")
    assert failed.value.output == "said\n"
    assert (folder / "work").exists()
    with pytest.raises(TaskTimedOut) as late:
        run(Agent(workspace=folder, command="echo said; echo late > late; sleep 60"), "x", timeout=1)
    assert late.value.output == "said\n"
    assert (folder / "late").exists()
    stream = run_streamed(Agent(workspace=folder, command="echo begun > begun; echo begun; sleep 60"), "x")
    for event in stream:
        if event.type == "output":
            threading.Thread(target=stream.cancel).start()
    with pytest.raises(TaskCancelled):
        assert stream.result
    assert (folder / "begun").exists()


def test_the_servers_copy_is_worked_on_without_a_sync(real: Path, folder: Path) -> None:
    skipping = CloudRuntime(skip_sync=True)
    result = run(Agent(runtime=skipping, workspace=folder, command="echo there > there"), "x")
    assert not (folder / "there").exists()
    assert Workspace.get(workspace_id(folder)).read("there") == b"there\n"
    assert result.before is None


def test_a_server_that_is_killed_in_the_middle_loses_and_doubles_nothing(real: Path, folder: Path) -> None:
    numbers = "for n in 1 2 3 4 5 6; do echo $n; echo $n >> done; sleep 0.3; done"
    stream = run_streamed(Agent(workspace=folder, command=numbers), "x")
    events: list[RunEvent] = []
    for event in stream:
        events.append(event)
        if event.text == "2\n":
            note = json.loads((real / "server.json").read_text())
            os.kill(note["pid"], signal.SIGKILL)
            up(real, int(str(note["url"]).rpartition(":")[2]))
    assert [event.text for event in events if event.type == "output"] == [f"{n}\n" for n in range(1, 7)]
    told = [event.seq for event in events if event.seq]
    assert told == list(range(1, len(told) + 1))
    assert stream.result.ok
    assert (folder / "done").read_text() == "1\n2\n3\n4\n5\n6\n"


@pytest.fixture
def key(real: Path) -> str:
    """A standard key with not quite two dollars."""
    made = json.loads(atoll("keys", "create", "--name", "ann", "--json"))
    atoll("billing", "credit", made["id"], "1.999")
    return str(made["key"])


def atoll(*words: str) -> str:
    return subprocess.run([*ATOLL, *words], check=True, capture_output=True, text=True, timeout=60).stdout


def test_codex_works_on_a_folder_remembers_and_costs_to_the_millionth(folder: Path, key: str) -> None:
    package = Codex.package
    assert package is not None
    if not (STORE / f"codex-{package.version}").is_dir():
        pytest.skip(f"codex is not installed in {STORE}: .ci/run does that where the registries answer")
    agent = Agent("computer", CloudRuntime(key), folder, "Be brief.", agent="codex", model="stand-in")
    first = run(agent, "Copy it.\nusage: input=6548 output=108\nrun: cp README copy\nsay: I copied it.")
    assert first.final_output == "I copied it."
    assert (folder / "copy").read_text() == "mine\n"
    assert [event.data["command"] for event in first.events if event.type == "command"]
    assert first.usage.total_cost == 2 * Decimal("0.10308")  # the call of the tool, and what became of it
    assert first.billing is not None
    assert first.billing.balance_after == Decimal("1.999") - first.usage.total_cost
    second = run(agent, "usage: input=1000 output=0\nsay: Still here.")
    assert second.session_id == first.session_id
    assert second.usage.input_tokens == 1000  # not the conversation's running total
    with pytest.raises(InsufficientCredit) as dry:
        run(agent, "usage: input=120000 output=0\nrun: cp README last\nsay: Never said.")
    assert dry.value.result is not None
    assert (folder / "last").exists() == any(event.type == "command" for event in dry.value.result.events)
    with pytest.raises(InsufficientCredit) as refused:
        run(Agent(runtime=CloudRuntime(key), workspace=folder, command="true"), "x")
    assert refused.value.result is None
    assert refused.value.current_balance == 0


def test_a_local_runtime_needs_no_server_and_leaves_none(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("ATOLL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody-elses/database")
    monkeypatch.setenv("ATOLL_URL", "http://127.0.0.1:1")
    runtime = LocalRuntime(data=tmp_path / "local")
    agent = Agent(runtime=runtime, workspace=folder, command="cat; cat README; echo made > made")

    def first() -> RunResult:
        return run(agent, "do it ")

    try:
        assert first().final_output == "do it mine\n"
        assert (folder / "made").exists()
        assert run(agent, "again ").final_output == "again mine\n"
        machine = Machine(tmp_path / "local")
        assert machine.processes()
    finally:
        runtime.close()
        close_connections()
    assert machine.traces() == []
    runtime.close()  # a second time does nothing
    assert run(agent, "and again ").session_id == agent.session_id  # what was there is kept
    runtime.close()
