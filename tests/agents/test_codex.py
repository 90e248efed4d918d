"""Codex itself, as it is released, in a sandbox: it edits files there, goes on with a conversation, calls tools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.agents.codex import Codex
from atoll.domain.price import TokenUse
from atoll.domain.task import McpServer
from tests.agents.sandboxed import HOME, REAL_PROGRAM, Computer, asked, computer
from tests.agents.tool_server import SERVER

pytestmark = REAL_PROGRAM


@pytest.fixture
async def codex(tmp_path: Path) -> AsyncIterator[Computer]:
    async with computer(tmp_path / "data", Codex()) as made:
        yield made


async def test_it_edits_files_and_goes_on_with_its_conversation(codex: Computer) -> None:
    script = "run: echo made > made.txt; id -u\nsay: it is done\nusage: input=100 output=10 cached=5"
    first = await codex.run(asked(script, instructions='Be\x7f "b"'))
    assert first.outcome.ok, first.outcome
    assert first.outcome.output == "it is done"
    assert await codex.sh("cat made.txt") == "made\n"
    [_, command] = first.of("command")
    assert command["exit_code"] == 0 and command["output"] == "1000\n"
    assert first.of("message") == [{"text": "it is done"}]
    assert 'Be\x7f \\"b\\"' in codex.model.log[0].body.decode()
    before = first.outcome.tokens
    assert before is not None and before.output >= 10

    second = await codex.run(asked("say: again\nusage: input=7 output=3"), first.outcome.agent_thread)
    assert second.outcome.ok, second.outcome
    assert second.outcome.tokens == TokenUse(7, 3)
    assert second.outcome.agent_thread.split("#")[0] == first.outcome.agent_thread.split("#")[0]
    assert "it is done" in codex.model.log[-1].body.decode()


async def test_it_calls_tool_servers_of_the_request(codex: Computer) -> None:
    await codex.sh(f"cat > server.py <<'END'\n{SERVER}\nEND")
    await codex.sh("setsid python3 server.py ' by http' 8123 > http.log 2>&1 < /dev/null & sleep 1")
    servers = (
        McpServer("notes", ("python3", "/workspace/server.py", ' "quoted" $HOME')),
        McpServer("more", url="http://127.0.0.1:8123/mcp"),
    )
    script = 'call: mcp__notes__note {"text": "hello"}\ncall: mcp__more__note {"text": ", and"}\nsay: told'
    ran = await codex.run(asked(script, mcp_servers=servers))
    assert ran.outcome.ok, ran.outcome
    assert await codex.sh("cat notes.txt") == 'hello "quoted" $HOME, and by http', await codex.sh("cat http.log")
    assert [(call["server"], call["tool"], call["status"]) for call in ran.of("tool_call")] == [
        ("notes", "note", "in_progress"),
        ("notes", "note", "completed"),
        ("more", "note", "in_progress"),
        ("more", "note", "completed"),
    ]


async def test_a_model_that_fails_and_one_that_is_not_there_end_the_run_with_their_message(codex: Computer) -> None:
    refused = await codex.run(asked("error: 400 not like this"))
    assert not refused.outcome.ok and refused.code == 1
    assert "not like this" in refused.outcome.error
    unknown = await codex.run(asked("say: x"), "01a200a6-0000-7423-9252-dd3e32d32cfb")
    assert not unknown.outcome.ok
    assert "01a200a6-0000-7423-9252-dd3e32d32cfb" in unknown.outcome.error


async def test_the_program_is_there_for_everybody_and_for_nobody_to_change(codex: Computer) -> None:
    layer = "/opt/atoll/agents/codex"
    assert (await codex.sh("codex --version")).startswith("codex-cli ")
    for attempt in (f"echo > {layer}/bin/codex", f"rm -f {layer}/bin/codex", f"chmod 777 {layer}/bin/codex"):
        assert "ermission denied" in await codex.sh(attempt) or "not permitted" in await codex.sh(attempt)
    assert (await codex.sh(f"{layer}/bin/codex --version")).startswith("codex-cli ")


async def test_what_it_keeps_of_a_conversation_is_small_and_outside_of_tmp(codex: Computer) -> None:
    ran = await codex.run(asked("say: hi"))
    assert ran.outcome.ok, ran.outcome
    assert int((await codex.sh(f"du -s --apparent-size -B1 {HOME}")).split()[0]) < 2**20
    await codex.sh("rm -rf /tmp/.atoll-codex")
    assert (await codex.run(asked("say: hi"), ran.outcome.agent_thread)).outcome.ok


async def test_secrets_of_a_task_s_environment_are_in_no_file_that_it_leaves(codex: Computer) -> None:
    codex.env["TOKEN_OF_MINE"] = "c4n4ry"
    ran = await codex.run(asked('run: test "$TOKEN_OF_MINE" = c4n4ry && echo it-is-there\nsay: done'))
    assert ran.outcome.ok, ran.outcome
    assert ran.of("command")[-1]["output"] == "it-is-there\n"
    assert await codex.sh("grep -rl --exclude='*.jsonl' c4n4ry /workspace; echo none") == "none\n"
