"""The OpenAI Agents SDK on a real server: its own CloudflareSandboxClient, unmodified, and our client for it.

The agents that run here are the SDK's own, with the stand-in model: what it says is written in the prompt.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from agents.models.openai_responses import OpenAIResponsesModel
from agents.sandbox import Manifest, SandboxAgent, SandboxRunConfig
from agents.sandbox.entries import File
from agents.sandbox.errors import (
    ConfigurationError,
    ExecTimeoutError,
    ExposedPortUnavailableError,
    InvalidManifestPathError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec
from openai import AsyncOpenAI

from agents import RunConfig, Runner
from atoll.sdk import AsyncSandbox, AsyncWorkspace
from atoll.sdk.openai_agents import AtollSandboxClient, AtollSandboxClientOptions, AtollSandboxSessionState
from atoll.sdk.openai_agents.snapshots import MAGIC
from atoll.testing.model_stand_in import ModelStandIn
from tests.clients.installed import python_client
from tests.e2e.machine import assert_nothing_left
from tests.e2e.server import Server, environment

TOUR = Path(__file__).parent / "openai_agents" / "tour.py"
TOUR_S = 90
MANIFEST = Manifest(entries={"README.md": File(content=b"hello")}, environment={"value": {"COLOUR": "blue"}})
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the full isolation tier needs root"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    server = Server(tmp_path_factory.mktemp("agents") / "data")
    server.start()
    yield server
    server.down()
    assert_nothing_left(server.machine)


@pytest.fixture
def client(server: Server) -> AtollSandboxClient:
    return AtollSandboxClient(url=server.url, api_key=server.key)


def test_the_sdks_own_client_does_all_that_it_can_do(server: Server) -> None:
    python = python_client("openai-agents")
    env = environment({"WORKER_URL": server.url, "CLOUDFLARE_SANDBOX_API_KEY": server.key})
    ran = subprocess.run(
        [str(python), str(TOUR)], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOUR_S
    )
    assert ran.stdout.strip(), ran.stderr[-2_000:]
    told: dict[str, str | None] = json.loads(ran.stdout.strip().splitlines()[-1])
    assert len(told) == 11
    assert not {step: error for step, error in told.items() if error}, ran.stderr[-2_000:]


def test_f08_what_an_archive_may_not_do_it_does_not_do(server: Server) -> None:
    """Unpacked inside as the sandbox's user: nothing outside /workspace comes to be, and nothing on this machine."""
    outside = f"/tmp/f08-{os.getpid()}"
    hostile: list[tuple[str, dict[str, Any]]] = [
        (f"../../../../../..{outside}", {}),
        (outside, {}),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "/tmp"}),
        (f"link/{Path(outside).name}", {}),
        ("hard", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
        ("device", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 1}),
        ("setuid", {"mode": 0o4755}),
        ("fine", {}),
    ]
    with server.client() as http:
        sandbox = "/v1/sandbox/" + http.post("/v1/sandbox", json={"network": "none"}).json()["id"]
        for name, more in hostile:
            http.post(f"{sandbox}/hydrate", content=_tar(name, **more))
        argv = ["sh", "-c", "ls -A /workspace; find / -xdev -uid 0 -perm -4000 -newer /proc/1 2>/dev/null; id -u"]
        told = http.post(f"{sandbox}/exec", json={"argv": argv}).text
        pieces = re.findall("event: stdout\ndata: (.*)", told)
        listed = b"".join(map(base64.b64decode, pieces)).decode().split()
        http.delete(sandbox)
    assert "fine" in listed and listed[-1] == "1000" and not any(name.startswith("/") for name in listed), listed
    assert "device" not in listed
    assert not Path(outside).exists()


def _tar(name: str, **more: Any) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size, member.mode = 0 if "type" in more else 3, 0o644
        for field, value in more.items():
            setattr(member, field, value)
        tar.addfile(member, io.BytesIO(b"bad"))
    return packed.getvalue()


@pytest.mark.parametrize("workspace", [None, "agents"], ids=["a_folder", "a_workspace"])
async def test_a_session_runs_commands_keeps_files_and_comes_back(
    server: Server, client: AtollSandboxClient, tmp_path: Path, workspace: str | None
) -> None:
    options = AtollSandboxClientOptions(workspace=workspace)
    spec = LocalSnapshotSpec(base_path=tmp_path)
    session = await client.create(manifest=MANIFEST, snapshot=spec, options=options)
    await session.start()
    await _used(session)
    await session.stop()
    kept = json.loads(json.dumps(client.serialize_session_state(session.state)))
    assert "sk_" not in json.dumps(kept)
    [archive] = [file.read_bytes() for file in tmp_path.iterdir()]  # noqa: ASYNC240
    assert archive.startswith(MAGIC) == (workspace is not None)

    if workspace is None:  # once is enough: the sandbox outlives its server
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    again = await client.resume(client.deserialize_session_state(kept))
    assert isinstance(again.state, AtollSandboxSessionState) and again.state.sandbox_id == kept["sandbox_id"]
    async with again:
        assert (await again.read(Path("a/b.txt"))).read() == b"kept"
    await client.delete(again)
    assert not await again.running()

    # The sandbox is gone: another one, with what was kept.
    other = await client.resume(client.deserialize_session_state(kept))
    async with other:
        assert isinstance(other.state, AtollSandboxSessionState) and other.state.sandbox_id != kept["sandbox_id"]
        assert (await other.read(Path("a/b.txt"))).read() == b"kept"
    await client.delete(other)


async def _used(session: SandboxSession) -> None:
    assert await session.running()
    ran = await session.exec("echo $COLOUR; pwd; echo err >&2; exit 3")
    assert (ran.stdout, ran.stderr, ran.exit_code) == (b"blue\n/workspace\n", b"err\n", 3)
    with pytest.raises(ExecTimeoutError):
        await session.exec("sleep 30", timeout=0.3)
    assert (await session.read(Path("README.md"))).read() == b"hello"
    await session.write(Path("a/b.txt"), io.BytesIO(b"kept"))
    archive = await session.persist_workspace()
    await session.write(Path("a/b.txt"), io.BytesIO(b"changed"))
    await session.hydrate_workspace(archive)
    assert (await session.read(Path("a/b.txt"))).read() == b"kept"
    with pytest.raises(WorkspaceReadNotFoundError):
        await session.read(Path("none"))
    with pytest.raises(InvalidManifestPathError):
        await session.read(Path("/etc/passwd"))
    started = await session.pty_exec_start("read x; echo got:$x; exit 5", tty=True, yield_time_s=0.3)
    assert started.process_id is not None and started.exit_code is None
    ended = await session.pty_write_stdin(session_id=started.process_id, chars="typed\n", yield_time_s=5.0)
    assert b"got:typed" in ended.output and (ended.process_id, ended.exit_code) == (None, 5)


async def test_a_snapshot_of_a_workspace_fills_a_session_without_one(client: AtollSandboxClient) -> None:
    first = await client.create(options=AtollSandboxClientOptions(workspace="source"))
    async with first:
        await first.write(Path("a.txt"), io.BytesIO(b"from the workspace"))
        kept = (await first.persist_workspace()).read()
    await client.delete(first)
    second = await client.create()
    async with second:
        await second.hydrate_workspace(io.BytesIO(kept))
        assert (await second.read(Path("a.txt"))).read() == b"from the workspace"
    await client.delete(second)


async def test_an_exposed_port_is_reached(client: AtollSandboxClient) -> None:
    session = await client.create(options=AtollSandboxClientOptions(exposed_ports=(8000,)))
    async with session:
        served = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, h.ThreadingHTTPServer, port=8000)"
        await session.pty_exec_start("python3", "-c", served, shell=False, yield_time_s=0.3)
        endpoint = await session.resolve_exposed_port(8000)
        read = f"import urllib.request as w; w.urlopen('{endpoint.url_for('http')}', timeout=20).read()"
        read = f"import time; time.sleep(0.3); {read}"
        await asyncio.to_thread(subprocess.run, ["python3", "-c", read], check=True, timeout=30)
        with pytest.raises(ExposedPortUnavailableError):
            await session.resolve_exposed_port(8001)
    await client.delete(session)


async def test_an_agent_runs_commands_and_edits_files(server: Server, client: AtollSandboxClient) -> None:
    script = (
        "run: echo first > made.txt; id -u\n"
        "run: sed -i s/first/second/ made.txt; cat made.txt\n"
        "say: the file says {result}"
    )
    async with _model() as (stand_in, model):
        agent = SandboxAgent(name="agent", model=model, instructions="Do as the script says.")
        options = AtollSandboxClientOptions(workspace="edited")
        config = RunConfig(sandbox=SandboxRunConfig(client=client, options=options), tracing_disabled=True)
        ran = await Runner.run(agent, script, run_config=config)
    assert "second" in str(ran.final_output)
    last: dict[str, Any] = json.loads(stand_in.log[-1].body)
    assert "1000" in str(last["input"])
    workspace = await AsyncWorkspace.get("edited", url=server.url, api_key=server.key)
    await workspace.commit()
    assert await workspace.read("made.txt") == b"second\n"
    assert not [one for one in await AsyncSandbox.list(url=server.url, api_key=server.key) if one.live]


async def test_what_is_misconfigured_is_told_as_such(server: Server) -> None:
    wrong = AtollSandboxClient(url=server.url, api_key="sk_" + "0" * 64)
    with pytest.raises(ConfigurationError, match="API key"):
        await wrong.create()
    with pytest.raises(ConfigurationError, match="/workspace"):
        await AtollSandboxClient(url=server.url, api_key=server.key).create(manifest=Manifest(root="/srv"))


class _model:
    """The stand-in, and the SDK's model that speaks to it."""

    def __init__(self) -> None:
        self._stand_in = ModelStandIn()

    async def __aenter__(self) -> tuple[ModelStandIn, OpenAIResponsesModel]:
        await self._stand_in.__aenter__()
        self._client = AsyncOpenAI(base_url=f"{self._stand_in.url}/v1", api_key="none-needed-here")
        return self._stand_in, OpenAIResponsesModel(model="stand-in", openai_client=self._client)

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()
        await self._stand_in.__aexit__(*error)  # type: ignore[arg-type]
