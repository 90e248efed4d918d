"""The MCP server as its users run it: `atoll mcp` under the official client, Claude Code and Codex.

The agents are real and their model is the stand-in: what it says is written in the prompt. They are configured with
what `atoll mcp --print-config` prints.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from atoll.agents.base import Agent, Place, Start
from atoll.agents.claude_code import ClaudeCode
from atoll.agents.codex import SCRATCH, Codex
from atoll.mcp.configuration import configuration
from atoll.testing.model_stand_in import ModelStandIn
from tests.agents.sandboxed import asked, installed
from tests.surfaces.conftest import ALICE, House, house, keys, open_house

__all__ = ["house", "keys", "open_house"]

RUN_S = 60.0
SCRIPT = """call: mcp__atoll__create_sandbox {"name": "mine"}
call: mcp__atoll__write_file {"sandbox": "mine", "path": "/tmp/a", "content": "made by an agent"}
call: mcp__atoll__run_command {"sandbox": "mine", "command": "echo $((6 * 7)); cat /tmp/a"}
say: the command said {result}"""
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def program(tmp_path: Path) -> str:
    """`atoll` of this checkout."""
    path = tmp_path / "atoll"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m atoll.cli.main "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def env(house: House, tmp_path: Path) -> dict[str, str]:
    """Of agents and of what they start: nothing of this machine's own accounts."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    return kept | {"HOME": str(tmp_path), "ATOLL_URL": house.url, "ATOLL_API_KEY": ALICE}


async def test_the_official_client_uses_the_tools_over_stdio(program: str, env: dict[str, str]) -> None:
    async with (
        stdio_client(StdioServerParameters(command=program, args=["mcp"], env=env)) as (read, write),
        ClientSession(read, write) as session,
    ):
        assert (await session.initialize()).server_info.name == "atoll"
        made = await session.call_tool("create_sandbox", {})
        assert made.structured_content is not None
        given: dict[str, Any] = {"sandbox": made.structured_content["id"], "command": "echo hi"}
        ran = await session.call_tool("run_command", given)
        assert ran.structured_content is not None and ran.structured_content["stdout"] == "hi\n"


async def test_without_a_key_it_says_so_and_ends(program: str, env: dict[str, str], tmp_path: Path) -> None:
    code, out, err = await ran([program, "mcp"], {**env, "ATOLL_API_KEY": ""}, tmp_path)
    assert code == 2 and out == "" and "ATOLL_API_KEY" in err


class Agents:
    """Runs a real agent on the script, told of the server as its users tell it."""

    def __init__(self, home: Path, env: Mapping[str, str], model: ModelStandIn, program: str) -> None:
        self._home, self._env, self.model, self._program = home, env, model, program

    async def run(self, agent: Agent) -> str:
        """What it said to its standard output."""
        folder = self._home / "work"
        folder.mkdir()
        layer = installed(agent) / "opt" / "atoll" / "agents" / agent.name
        place = Place(str(folder), str(self._home), str(layer), self.model.url, "stand-in")
        start = agent.start(asked(SCRIPT), place, "")
        argv = self._told(agent, start)
        code, out, err = await ran(argv, {**self._env, **start.env}, folder, start.stdin)
        assert code == 0, (out[-2_000:], err[-2_000:])
        return out

    def _told(self, agent: Agent, start: Start) -> list[str]:
        """Its command line, once its configuration lies where it looks for it."""
        url = self._env["ATOLL_URL"]
        for name, content in start.files.items():
            path = self._home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.replace(SCRATCH.encode(), str(self._home / "scratch").encode()))
        if agent.name == "codex":
            with open(self._home / "codex" / "config.toml", "a") as file:
                file.write(configuration("codex", command=self._program, env={"ATOLL_URL": url}, needs_key=True))
            return list(start.argv)
        file = self._home / "mcp.json"
        file.write_text(configuration("json", command=self._program, env={"ATOLL_URL": url}, needs_key=True))
        return [*start.argv, f"--mcp-config={file}"]


@pytest.fixture
async def agents(tmp_path: Path, env: dict[str, str], program: str) -> AsyncIterator[Agents]:
    async with ModelStandIn() as model:
        yield Agents(tmp_path, env, model, program)


@pytest.mark.parametrize("agent", [Codex(), ClaudeCode()], ids=["codex", "claude_code"])
async def test_an_agent_calls_the_tools_and_uses_their_answers(agent: Agent, agents: Agents, house: House) -> None:
    said = await agents.run(agent)
    assert "the command said" in said
    bodies = [asked.body.decode() for asked in agents.model.log]
    assert any("made by an agent" in body and "exit_code" in body for body in bodies), "no answer of a tool came back"
    [sandbox] = [one for one in await house.records.list_sandboxes() if one.name == "mine"]
    wrote = await house.call("GET", f"/v1/sessions/{sandbox.id}/files?path=/tmp/a")
    assert wrote.content == b"made by an agent"
    assert not any(ALICE in body for body in bodies), "the key reached the model"


async def ran(argv: list[str], env: Mapping[str, str], cwd: Path, stdin: bytes = b"") -> tuple[int, str, str]:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *argv, env=dict(env), cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    try:
        async with asyncio.timeout(RUN_S):
            out, err = await child.communicate(stdin)
    except TimeoutError:
        os.killpg(child.pid, 9)
        await child.wait()
        raise
    return child.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")
