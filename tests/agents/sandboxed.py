"""A run of a real agent in a real sandbox, with the stand-in model behind its gate: what the tests of agents share."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from atoll.agents.base import Agent, Outcome, Place, Said
from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import Resources, SandboxSpec
from atoll.domain.task import TaskSpec
from atoll.domain.workspace import Quota, WorkspaceMount
from atoll.runtimes.local.runtime import LocalRuntime
from atoll.services.agents.installed import inside
from atoll.sidekick.client import GateStream, SidekickClient
from atoll.sidekick.gates import MODEL_PORT
from atoll.testing.model_stand_in import ModelStandIn

STORE = Path(os.environ.get("ATOLL_TEST_AGENTS") or Path(__file__).parents[2] / "build" / "agents")
HOME = "/workspace/.home/.atoll/threads/thread_000000000000000000000001"
RUN_S = 50.0
MODEL_URL = f"http://127.0.0.1:{MODEL_PORT}"
REAL_PROGRAM = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes with workspaces on this ground need root"),
    pytest.mark.timeout(120),
]


def asked(prompt: str, **fields: object) -> TaskSpec:
    return TaskSpec(prompt, "ws_1", **fields)  # type: ignore[arg-type]


@dataclass(slots=True)
class Ran:
    """How a run went, and what it said on the way."""

    outcome: Outcome
    said: list[Said]
    code: int

    def of(self, kind: str) -> list[dict[str, object]]:
        return [dict(one.data) for one in self.said if one.type == kind]


@dataclass(slots=True)
class Computer:
    """One sandbox with a workspace, and the model that its programs reach."""

    inside: SidekickClient
    model: ModelStandIn
    agent: Agent
    env: dict[str, str] = field(default_factory=dict[str, str])

    async def run(self, spec: TaskSpec, agent_thread: str = "") -> Ran:
        layer = inside(self.agent.name) if self.agent.package else ""
        place = Place("/workspace", HOME, layer, MODEL_URL, "stand-in")
        start = self.agent.start(spec, place, agent_thread)
        await self.inside.make_dir(HOME)
        for path, content in start.files.items():
            await self.inside.write_file(f"{HOME}/{path}", _once(content))
        command = ProcessSpec(start.argv, {**self.env, **start.env}, "/workspace", stdin=bool(start.stdin))
        async with asyncio.timeout(RUN_S):
            result = await self.inside.run(command, stdin=start.stdin)
        reader = self.agent.reader(agent_thread)
        reader.stderr(result.stderr)
        said = [one for line in result.stdout.splitlines() for one in reader.line(line)]
        return Ran(reader.end(result.exit), said, result.exit.code)

    async def sh(self, script: str) -> str:
        async with asyncio.timeout(RUN_S):
            result = await self.inside.run(ProcessSpec(("sh", "-c", script), cwd="/workspace"))
        return (result.stdout + result.stderr).decode()


def installed(agent: Agent) -> Path:
    """The layer of the agent's program; skips where CI could not install it."""
    if agent.package is None:
        raise AssertionError(f"{agent.name} has no program")
    folder = STORE / f"{agent.name}-{agent.package.version}" / "layer"
    if not folder.is_dir():
        pytest.skip(f"{agent.name} is not installed in {STORE}: .ci/run does that where the registries answer")
    return folder


@asynccontextmanager
async def computer(data: Path, agent: Agent, memory_bytes: int = 2**31) -> AsyncIterator[Computer]:
    layers = (str(installed(agent)),) if agent.package else ()
    runtime = LocalRuntime(data)
    await runtime.start()
    try:
        tree, sandbox = f"tree_{os.urandom(12).hex()}", new_sandbox_id()
        await runtime.make_tree(tree, Quota(2**30, 100_000))
        mount = WorkspaceMount(workspace="ws_1", tree_id=tree)
        resources = replace(Resources(), memory_bytes=memory_bytes, pids=512)
        spec = SandboxSpec(layers=layers, workspaces=(mount,), resources=resources, agent=agent.name, task="task_1")
        await runtime.make(sandbox, spec)
        async with ModelStandIn() as model:
            gate = asyncio.create_task(_serve(runtime, sandbox, model), name="gate")
            try:
                yield Computer(runtime.sidekick(sandbox), model, agent)
            finally:
                gate.cancel()
                await asyncio.gather(gate, return_exceptions=True)
    finally:
        await runtime.shutdown()
        shutil.rmtree(data, ignore_errors=True)


async def _serve(runtime: LocalRuntime, sandbox: str, model: ModelStandIn) -> None:
    """What programs send to the gate goes to the model, as the model gateway would send it on."""
    async with asyncio.TaskGroup() as group:
        while True:
            stream = await runtime.accept(sandbox)
            group.create_task(_pass(stream, model))


async def _pass(stream: GateStream, model: ModelStandIn) -> None:
    port = int(model.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(stream.reader, writer))
            group.create_task(_pump(reader, stream.writer))
    except* OSError:
        pass
    finally:
        writer.close()
        stream.writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
