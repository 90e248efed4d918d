"""Claude Code does tasks on a server: its model is the stand-in, all else is real. For Codex: test_execute.py."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from atoll.agents.claude_code import ClaudeCode
from atoll.testing.model_stand_in import ModelStandIn
from tests.agents.sandboxed import STORE, installed
from tests.e2e.server import Server

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def model() -> Generator[ModelStandIn]:
    """The stand-in, beside the test: commands wait in this thread."""
    ready, made, end = threading.Event(), list[ModelStandIn](), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with ModelStandIn(key="the-real-key") as stand_in:
            made.append(stand_in)
            ready.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    yield made[0]
    loop.call_soon_threadsafe(end.set)
    thread.join(20)
    loop.close()


def test_claude_code_edits_files_of_a_folder_and_goes_on_after_a_restart(
    new_server: Callable[..., Server], tmp_path: Path, model: ModelStandIn
) -> None:
    agent = ClaudeCode()
    installed(agent)
    environ = {
        "ATOLL_AGENTS__STORE": str(STORE),
        "OPENAI_BASE_URL": f"{model.url}/v1",
        "OPENAI_API_KEY": "the-real-key",
        "ANTHROPIC_BASE_URL": model.url,
        "ANTHROPIC_API_KEY": "the-real-key",
    }
    server = new_server()
    server.env = environ
    server.start()
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "given.txt").write_text("given\n")
    words = ("--agent", agent.name, "--model", "stand-in", "--workspace", str(folder), "--json")
    script = "run: cat given.txt > made.txt; env\nsay: it is done\nusage: input=6548 output=108"
    first = json.loads(server.cli("agent", "run", script, *words).stdout)
    assert first["output"] == "it is done", first
    assert (folder / "made.txt").read_text() == "given\n"
    assert "the-real-key" not in json.dumps(first)

    server.kill()
    server.start()
    second = json.loads(server.cli("agent", "run", "say: again", *words, "--session", first["session_id"]).stdout)
    assert second["output"] == "again", second
    asked = [one.body.decode() for one in model.log if "say: again" in one.body.decode()]
    assert asked and "it is done" in asked[-1]
    assert not any("the-real-key" in one.body.decode() for one in model.log)
