"""What an agent asks of the server: everything that is said travels, and what is wrong with it is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from atoll import Agent, CloudRuntime, run
from atoll.sdk import (
    InvalidInput,
)
from tests.sdk.fake_tasks import FakeTasks


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
