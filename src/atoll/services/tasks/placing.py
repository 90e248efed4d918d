"""Placing: the sandbox of one task and the agent in it: found again after a restart, or made; `running` calls it.

The sandbox is found by the task that it names, the agent by the process that the task names. So each step may be cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import NamedTuple, cast

import structlog

from atoll.agents.base import Agent, Place, Said, Start
from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound, StaleVersion, Unavailable, Unsupported
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import LIVE, NetworkMode, Sandbox, SandboxSpec
from atoll.domain.task import Task, TaskState
from atoll.domain.workspace import MOUNT_POINT, WorkspaceMount
from atoll.services.tasks.access import TaskAccess
from atoll.services.tasks.record import Record, Taken
from atoll.sidekick.client import ProcessStream

_log = structlog.get_logger()

THREADS = f"{MOUNT_POINT}/.home/.atoll/threads"
GIT_USER, GIT_EMAIL = "Testbase Agent", "agent@testbase.ai"
AGAIN_S = 0.5
MARGIN_S = 60.0  # that a sandbox lives longer than its task may: the server's clock is the one that counts
SANDBOXES_MAX = 10_000
SWEPT_MAX = 1_000  # folders of threads, in one task


class Lost(Conflict):
    """The sandbox of the task ended under it."""


class Left(NamedTuple):
    """What an earlier server left of a task; None: nothing, or not that far."""

    sandbox: Sandbox | None = None
    stream: ProcessStream | None = None


class Placing:
    """Of one task that this server runs."""

    def __init__(self, access: TaskAccess, record: Record, principal: Principal) -> None:
        self._access = access
        self._record = record
        self._principal = principal

    @property
    def _task(self) -> Task:
        return self._record.task

    async def left(self) -> Left:
        """Lost when the agent had begun, and is not there any more."""
        task, processes = self._task, self._access.sandboxes.processes
        sandbox = next(iter(await self._live()), None)
        if sandbox is None:
            if task.process is not None:
                raise Lost("the sandbox of the task was lost")
            return Left()
        if task.process is not None:
            try:
                return Left(sandbox, await processes.attach(self._principal, sandbox.id, task.process))
            except (NotFound, Conflict) as error:
                raise Lost(f"the agent of the task was lost: {error.message}") from error
        # Nobody knows whether an agent that no record names got all of its prompt: it begins anew.
        with suppress(NotFound, Conflict):
            for info in await processes.list(self._principal, sandbox.id):
                if info.exit is None:
                    await processes.stop(self._principal, sandbox.id, info.id, grace_s=0)
            return Left(sandbox)
        return Left()

    async def made(self, agent: Agent) -> Sandbox:
        """A fresh one, with the workspace, the agent's program and the gate to its model."""
        task, access = self._task, self._access
        limit_s = access.timeout_s(task) + access.limits.stop_s + MARGIN_S
        if access.limits.sandbox_timeout_s_max is not None:
            limit_s = min(limit_s, access.limits.sandbox_timeout_s_max)
        spec = SandboxSpec(
            work_dir=MOUNT_POINT,
            resources=replace(access.limits.resources, timeout_s=limit_s),
            network=self._network(),
            workspaces=(WorkspaceMount(task.spec.workspace, MOUNT_POINT),),
            task=task.id,
            agent=agent.name if agent.package is not None else "",
        )
        return await access.sandboxes.create(self._principal, spec)

    async def started(self, sandbox: Sandbox, agent: Agent, agent_thread: str, layer: str) -> ProcessStream:
        """The agent, begun; the record names it once it has all of its prompt."""
        task, access = self._task, self._access
        crash.point("tasks.run.made")
        access.background.spawn(self._sweep(sandbox.id), f"sweep {task.id}")
        home = f"{THREADS}/{task.thread}"
        place = Place(MOUNT_POINT, home, layer, access.model_url, task.spec.model)
        start = agent.start(task.spec, place, agent_thread)
        await self._prepare(sandbox.id, home, start)
        limit_s = max(1.0, access.left_s(task)) + access.limits.stop_s + MARGIN_S / 2
        spec = ProcessSpec(start.argv, dict(start.env), MOUNT_POINT, stdin=bool(start.stdin), timeout_s=limit_s)
        stream = await access.sandboxes.processes.start(self._principal, sandbox.id, spec)
        crash.point("tasks.run.started")
        if start.stdin:
            access.background.spawn(self._feed(stream, start.stdin, sandbox.id), f"prompt {task.id}")
        else:
            await self._record.change(sandbox=sandbox.id, process=stream.id)
        return stream

    async def stop(self, sandbox_id: str, process_id: str) -> None:
        """TERM to the agent and all that it started, then KILL. Its sandbox is destroyed behind it in any case."""
        try:
            grace_s = self._access.limits.stop_s
            await self._access.sandboxes.processes.stop(self._principal, sandbox_id, process_id, grace_s=grace_s)
        except AtollError as error:
            _log.info("task.stop_cut", task=self._task.id, error=error.message)

    async def destroyed(self) -> None:
        """Nothing of it is left."""
        task, access = self._task, self._access
        known = [task.sandbox] if task.sandbox else [one.id for one in await self._live()]
        for sandbox_id in known:
            with suppress(NotFound, Conflict):
                await access.sandboxes.stop(self._principal, sandbox_id, grace_s=0)

    async def _live(self) -> list[Sandbox]:
        task, records = self._task, self._access.records
        live = await records.list_sandboxes(owner=task.owner, states=LIVE, limit=SANDBOXES_MAX)
        return [one for one in live if one.spec.task == task.id]

    def _network(self) -> NetworkMode:
        """As asked for, else as the settings say where the host can."""
        if self._task.spec.network:
            return NetworkMode(self._task.spec.network)
        wanted = self._access.limits.network
        try:
            self._access.runtime.check_network(wanted)
        except Unsupported:
            return NetworkMode.NONE
        return wanted

    async def _feed(self, stream: ProcessStream, stdin: bytes, sandbox_id: str) -> None:
        try:
            await stream.write_stdin(stdin)
            await stream.close_stdin()
        except (NotFound, Conflict):
            return  # it has ended
        # An agent that no record names is begun anew by the next server.
        while self._task.state is TaskState.RUNNING:
            try:
                await self._record.change(sandbox=sandbox_id, process=stream.id)
            except Taken:
                return
            except (StaleVersion, Unavailable) as error:
                _log.warning("task.unnamed", task=self._task.id, error=error.message)
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def _prepare(self, sandbox_id: str, home: str, start: Start) -> None:
        """A repository, as Testbase makes one, and the files of the agent; what is there already stays as it is."""
        files = self._access.sandboxes.files
        try:
            await files.stat(self._principal, sandbox_id, f"{MOUNT_POINT}/.git")
        except NotFound:
            await self._init(sandbox_id)
        for path, content in start.files.items():
            if not await self._has(sandbox_id, f"{home}/{path}", content):
                await files.write(self._principal, sandbox_id, f"{home}/{path}", _whole(content), mode=0o600)

    async def _init(self, sandbox_id: str) -> None:
        processes, limit_s = self._access.sandboxes.processes, self._access.limits.call_s
        for words in (("init", "-q"), ("config", "user.name", GIT_USER), ("config", "user.email", GIT_EMAIL)):
            spec = ProcessSpec(("git", *words), cwd=MOUNT_POINT, timeout_s=limit_s)
            result = await processes.run(self._principal, sandbox_id, spec, max_output_bytes=4_096)
            if result.exit.code != 0:  # there is no git in this image, say: agents work without
                _log.info("task.no_repository", task=self._task.id, code=result.exit.code)
                return

    async def _has(self, sandbox_id: str, path: str, content: bytes) -> bool:
        """Whether a file is so already: written again it would be a change of the workspace."""
        files = self._access.sandboxes.files
        try:
            if (await files.stat(self._principal, sandbox_id, path)).size != len(content):
                return False
            _, chunks = await files.read(self._principal, sandbox_id, path)
        except (NotFound, Conflict, InvalidInput):
            return False
        found = bytearray()
        async with aclosing(cast("AsyncGenerator[bytes]", chunks)) as pieces:
            async for piece in pieces:
                found += piece
                if len(found) > len(content):  # it grows while it is read
                    return False
        return bytes(found) == content

    async def _sweep(self, sandbox_id: str) -> None:
        """What agents remember of deleted threads goes with the next task."""
        files, records = self._access.sandboxes.files, self._access.records
        with suppress(AtollError):
            for entry in (await files.list(self._principal, sandbox_id, THREADS))[:SWEPT_MAX]:
                thread = await records.get_thread(entry.name)
                if thread is not None and thread.deleted_at is not None and thread.id != self._task.thread:
                    await files.remove(self._principal, sandbox_id, f"{THREADS}/{entry.name}", recursive=True)

    async def progress(self, message: str) -> None:
        """How far the installation of its agent is."""
        await self._record.change(said=[Said("warning", {"message": message})])


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
