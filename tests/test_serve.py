"""A server process: ready when it says so, drained when it is told to end, and quiet about everything else."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PROGRAM = """
import asyncio, json, sys
from atoll.serve import serve
from atoll.settings import Settings

def ready(ready):
    print(json.dumps({"url": ready.url, "key": ready.owner_key.text, "beside": dict(ready.beside)}), flush=True)

asyncio.run(serve(Settings.model_validate(json.loads(sys.argv[1])), ready))
"""


@dataclass
class Server:
    process: asyncio.subprocess.Process
    url: str
    key: str
    beside: dict[str, str]

    async def call(self, method: str, path: str, **more: Any) -> httpx2.Response:
        async with httpx2.AsyncClient(timeout=20) as http:
            headers = {"authorization": f"Bearer {self.key}"}
            return await http.request(method, self.url + path, headers=headers, **more)

    async def session(self, *command: str) -> str:
        body = {"image": "host", "network": "none", "command": list(command)}
        return (await self.call("POST", "/v1/sessions", json=body)).json()["id"]

    async def end(self, number: int = signal.SIGTERM) -> tuple[int, float, str]:
        """(exit code, seconds it took, all that it wrote to standard error)."""
        started = asyncio.get_running_loop().time()
        self.process.send_signal(number)
        out, err = await asyncio.wait_for(self.process.communicate(), 20)
        assert out == b""
        code = self.process.returncode
        assert code is not None
        return code, asyncio.get_running_loop().time() - started, err.decode()


@asynccontextmanager
async def served(data: Path, *, listen: dict[str, Any] | None = None, **server: Any) -> AsyncIterator[Server]:
    tree = {"data": str(data), "runtime": "fake", "server": {"port": 0, "drain_s": 5} | server, "listen": listen or {}}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, json.dumps(tree), stdout=-1, stderr=-1
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        assert line, (await process.communicate())[1].decode()
        yield Server(process, **json.loads(line))
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_ends_at_once_and_well(tmp_path: Path, number: int) -> None:
    async with served(tmp_path) as server:
        assert (await server.call("GET", "/health/ready")).status_code == 200
        code, took_s, log = await server.end(number)
    assert code == 0
    assert took_s < 3
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events[0] == "ready" and "draining" in events


async def test_c08_open_requests_finish_and_terminals_are_told_to_come_back(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        session = await server.session("sleep", "600")
        path = f"/v1/sessions/{session}"
        running = asyncio.create_task(
            server.call("POST", path + "/exec", json={"command": ["sh", "-c", "sleep 1; echo done"]})
        )
        headers = {"authorization": f"Bearer {server.key}"}
        url = "ws" + server.url.removeprefix("http") + path + "/exec?cmd=sh&tty=true"
        async with connect(url, additional_headers=headers, proxy=None) as terminal:
            await asyncio.sleep(0.2)
            ending = asyncio.create_task(server.end())
            with pytest.raises(ConnectionClosed):
                while True:
                    await terminal.recv()
            assert (terminal.close_code, terminal.close_reason) == (1012, "service restart")
        assert (await running).json()["stdout"] == "done\n"
        code, took_s, _ = await ending
    assert code == 0
    assert took_s < 5


async def test_c08_a_request_that_will_not_end_does_not_hold_the_server(tmp_path: Path) -> None:
    async with served(tmp_path, drain_s=0.5) as server:
        session = await server.session("sleep", "600")
        running = asyncio.create_task(
            server.call("POST", f"/v1/sessions/{session}/exec", json={"command": ["sleep", "600"]})
        )
        await asyncio.sleep(0.3)
        code, took_s, log = await server.end()
        answer = await running
    assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
    assert code == 0
    assert took_s < 6
    assert "Traceback" not in log and "ASGI" not in log


async def test_new_connections_are_refused_while_it_drains(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        session = await server.session("sleep", "600")
        running = asyncio.create_task(
            server.call("POST", f"/v1/sessions/{session}/exec", json={"command": ["sleep", "1"]})
        )
        await asyncio.sleep(0.3)
        ending = asyncio.create_task(server.end())
        await asyncio.sleep(0.4)
        with pytest.raises(httpx2.ConnectError):
            await server.call("GET", "/health")
        assert (await running).status_code == 200
        await ending


async def test_o6_neither_the_key_nor_an_environment_is_in_the_log(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        session = await server.session("sleep", "600")
        headers = {"authorization": f"Bearer {server.key}"}
        url = "ws" + server.url.removeprefix("http") + f"/v1/sessions/{session}/exec?cmd=env&env=PASSWORD=hunter2"
        async with connect(url, additional_headers=headers, proxy=None) as stream:
            seen = b"".join([message async for message in stream if isinstance(message, bytes)])
        assert b"PASSWORD=hunter2" in seen
        await server.call("POST", f"/v1/sessions/{session}/exec", json={"command": ["env"], "env": {"P": "hunter2"}})
        await server.call("GET", f"/v1/sessions?status={server.key}")
        _, _, log = await server.end()
    assert server.key not in log
    assert "hunter2" not in log
    requests = [json.loads(line) for line in log.splitlines() if '"request"' in line]
    assert len(requests) == 4
    assert {line["route"] for line in requests} == {"/v1/sessions", "/v1/sessions/{id}/exec"}
    assert [line.get("sandbox_id") for line in requests] == [session, session, session, None]


async def test_listeners_drain_together_and_say_where_they_are(tmp_path: Path) -> None:
    """A stream of events and one of a terminal, each at a listener of its own, hold nobody."""
    names = ("compute", "execbox", "testbase")
    async with served(tmp_path, listen=dict.fromkeys(names, 0), drain_s=10) as server:
        session = await server.session("sleep", "600")
        beside = server.beside
        assert set(beside) == set(names)
        headers = {"authorization": f"Bearer {server.key}"}
        url = "ws" + beside["execbox"].removeprefix("http") + f"/v1/sessions/{session}/exec?cmd=sh&tty=true"
        async with (
            httpx2.AsyncClient(timeout=20, headers=headers) as http,
            http.stream("GET", beside["compute"] + "/api/events/stream") as events,
            connect(url, additional_headers=headers, proxy=None) as terminal,
        ):
            assert events.status_code == 200
            running = asyncio.create_task(
                http.post(beside["execbox"] + f"/v1/sessions/{session}/exec", json={"command": ["sleep", "0.5"]})
            )
            await asyncio.sleep(0.2)
            ending = asyncio.create_task(server.end())
            with pytest.raises(ConnectionClosed):
                while True:
                    await terminal.recv()
            assert terminal.close_code == 1012
            assert (await running).json()["exitCode"] == 0
            async for _ in events.aiter_lines():  # until it ends
                pass
        code, took_s, log = await ending
    assert code == 0 and took_s < 10, "what never ends would be waited for"
    assert "Traceback" not in log


async def test_a_listeners_port_that_is_taken_names_its_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM,
            json.dumps({"data": str(tmp_path), "runtime": "fake", "server": {"port": 0}, "listen": {"agent": port}}),
            stdout=-1, stderr=-1,
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(process.communicate(), 40)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert (out, process.returncode) == (b"", 1)
    assert f"cannot listen on 127.0.0.1:{port}: another program does" in err.decode()
    assert "ATOLL_LISTEN__AGENT" in err.decode()
    assert not (tmp_path / "atoll.db").exists(), "it starts no part of it"
