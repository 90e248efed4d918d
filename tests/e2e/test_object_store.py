"""Seed 000's flow with nothing of ours on the client side: gsutil up, POST /execute, gsutil down, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e.conftest import assert_no_faults, tidy
from tests.e2e.machine import assert_nothing_left
from tests.e2e.server import Server, free_port
from tests.objects.elsewhere import Elsewhere
from tests.objects.program import gsutil, settle

__all__ = ["gsutil"]
pytestmark = pytest.mark.timeout(240)
WORKSPACE = "my-project-0123456789abcdef"
# What stands in for an agent: it works on what was uploaded, and keeps notes where agents do.
AGENT = """
cat > task.txt
sed s/world/agent/ app.py > new && mv new app.py
rm old.py
mkdir -p "$ATOLL_THREAD_HOME" && echo noted >> "$ATOLL_THREAD_HOME/notes"
wc -l < "$ATOLL_THREAD_HOME/notes"
"""


DOOR = free_port()


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    server = Server(tmp_path / "data", f"[objects]\nenabled = true\nport = {DOOR}\n[rates]\nenabled = false\n")
    server.start()
    yield server
    tidy(server)
    assert_no_faults(server)
    server.down()
    assert_nothing_left(server.machine)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def _lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    there, back = await asyncio.open_connection("127.0.0.1", DOOR)
    await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def test_gsutil_up_execute_gsutil_down(server: Server, gsutil: Path, tmp_path: Path) -> None:
    made = server.http.post("/api/access-keys").json()
    env = settle(tmp_path / "client", made["id"], made["secret"])
    try:
        net = await asyncio.to_thread(Elsewhere.make, [("127.0.0.1", 80)])
    except OSError as error:
        pytest.skip(f"no network of one's own here: {error}")
    here = tmp_path / "my-project"
    here.mkdir()
    (here / "app.py").write_text("print('hello world')\n")
    (here / "old.py").write_text("old\n")
    remote = f"gs://testbase-workspaces/{WORKSPACE}/"

    async def execute(task: str, **more: str) -> dict[str, str]:
        body = {"task": task, "workspaceId": WORKSPACE, "agent": "command", "command": ["sh", "-ec", AGENT]} | more
        answer = await asyncio.to_thread(lambda: server.http.post("/execute", json=body, timeout=60))
        assert answer.status_code == 200, answer.text
        return answer.json()

    try:
        async with await asyncio.start_server(_lead, sock=net.listeners[0]):
            await net.run(gsutil, "-m", "rsync", "-r", "-d", "-c", f"{here}/", remote, env=env)
            first = await execute("greet the agent")
            await net.run(gsutil, "-m", "rsync", "-r", "-d", "-c", remote, f"{here}/", env=env)
            assert (here / "app.py").read_text() == "print('hello agent')\n"
            assert (here / "task.txt").read_text() == "greet the agent"
            assert not (here / "old.py").exists() and not (here / ".home").exists()

            # once more, from a folder that knows nothing of the agent's memory
            (here / "old.py").write_text("old\n")
            (here / "task.txt").unlink()
            await net.run(gsutil, "-m", "rsync", "-r", "-d", "-c", f"{here}/", remote, env=env)
            second = await execute("again", sessionId=first["sessionId"])
            assert (first["output"].strip(), second["output"].strip()) == ("1", "2")
    finally:
        net.close()
