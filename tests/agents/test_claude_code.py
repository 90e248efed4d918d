"""Claude Code itself, as it is released, in a sandbox: it edits files, goes on with a conversation, calls tools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.agents.claude_code import ClaudeCode
from atoll.domain.task import McpServer
from tests.agents.sandboxed import REAL_PROGRAM, Computer, asked, computer
from tests.agents.tool_server import SERVER

pytestmark = REAL_PROGRAM


@pytest.fixture
async def claude(tmp_path: Path) -> AsyncIterator[Computer]:
    async with computer(tmp_path / "data", ClaudeCode()) as made:
        yield made


async def test_it_edits_files_and_goes_on_with_its_conversation(claude: Computer) -> None:
    script = "run: echo made > made.txt; id -u\nsay: it is done\nusage: input=100 output=10 cached=5"
    first = await claude.run(asked(script, instructions='Be "brief"'))
    assert first.outcome.ok, first.outcome
    assert first.outcome.output == "it is done"
    assert await claude.sh("cat made.txt") == "made\n"
    commands = first.of("command")
    assert [command["status"] for command in commands] == ["in_progress", "completed"]
    assert commands[-1]["output"] == "1000"
    assert first.of("message") == [{"text": "it is done"}]
    assert "".join(str(one["text"]) for one in first.of("message.delta")) == "it is done"
    assert any('Be \\"brief\\"' in asked.body.decode() for asked in claude.model.log)
    assert first.outcome.tokens is not None and first.outcome.tokens.output >= 10

    second = await claude.run(asked("say: again\nusage: input=7 output=3"), first.outcome.agent_thread)
    assert second.outcome.ok, second.outcome
    assert second.outcome.tokens is not None and second.outcome.tokens.output == 3
    assert any("it is done" in asked.body.decode() for asked in claude.model.log[-2:])


async def test_it_calls_tool_servers_of_the_request(claude: Computer) -> None:
    await claude.sh(f"cat > server.py <<'END'\n{SERVER}\nEND")
    await claude.sh("setsid python3 server.py ' by http' 8123 > http.log 2>&1 < /dev/null & sleep 1")
    servers = (
        McpServer("notes", ("python3", "/workspace/server.py", ' "quoted" $HOME')),
        McpServer("more", url="http://127.0.0.1:8123/mcp"),
    )
    script = 'call: mcp__notes__note {"text": "hello"}\ncall: mcp__more__note {"text": ", and"}\nsay: told'
    ran = await claude.run(asked(script, mcp_servers=servers))
    assert ran.outcome.ok, ran.outcome
    assert await claude.sh("cat notes.txt") == 'hello "quoted" $HOME, and by http', await claude.sh("cat http.log")
    assert [(call["server"], call["tool"], call["status"]) for call in ran.of("tool_call")] == [
        ("notes", "note", "in_progress"),
        ("notes", "note", "completed"),
        ("more", "note", "in_progress"),
        ("more", "note", "completed"),
    ]


async def test_a_model_that_refuses_ends_the_run_with_its_message(claude: Computer) -> None:
    refused = await claude.run(asked("error: 400 not like this"))
    assert not refused.outcome.ok
    assert "not like this" in refused.outcome.error
    unknown = await claude.run(asked("say: x"), "01a200a6-0000-4423-9252-dd3e32d32cfb")
    assert not unknown.outcome.ok
    assert "01a200a6-0000-4423-9252-dd3e32d32cfb" in unknown.outcome.error
