"""Running: one task's life in this server, from its turn to its end; the queue starts it, also after a restart.

Each step leaves in the records what the next server needs to go on: the sandbox is found by the task that it names,
the agent by its process, and its output is read on from `read_offset`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import structlog

from atoll.agents.base import Agent, Outcome, Place, Said, Start
from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, Internal, InvalidInput, NotFound, Unavailable, Unsupported
from atoll.domain.ledger import InsufficientCredit, Payer, SpendingLimitExceeded
from atoll.domain.price import TokenUse
from atoll.domain.principal import Principal
from atoll.domain.process import Exit, ProcessSpec
from atoll.domain.refusals import refusal_value
from atoll.domain.sandbox import LIVE, NetworkMode, Sandbox, SandboxSpec
from atoll.domain.task import Task, TaskEnd, TaskState
from atoll.domain.workspace import MOUNT_POINT, Reason, WorkspaceMount
from atoll.services.deadline import deadline
from atoll.services.tasks.access import TaskAccess
from atoll.services.tasks.money import payer_of, task_total
from atoll.services.tasks.record import Record, Taken
from atoll.services.tasks.transcript import Transcript
from atoll.sidekick.client import ProcessStream

_log = structlog.get_logger()

THREADS = f"{MOUNT_POINT}/.home/.atoll/threads"
GIT_USER, GIT_EMAIL = "Testbase Agent", "agent@testbase.ai"
MARGIN_S = 60.0  # that a sandbox lives longer than its task may: the server's clock is the one that counts
SAID_MAX = 1_000  # events that wait to be stored before the output is read on
SANDBOXES_MAX = 10_000
SWEPT_MAX = 1_000  # folders of threads, in one task
AGAIN_S = 1.0
SETTLED_LOOK_S = 0.02

STATES = {TaskEnd.DONE: TaskState.SUCCEEDED, TaskEnd.CANCELLED: TaskState.CANCELLED}


NOTHING: Mapping[str, Any] = {}


class Stop(NamedTuple):
    """Why a task is ended from outside."""

    end: TaskEnd
    error: str = ""
    refused: Mapping[str, Any] = NOTHING  # by the ledger: `refusal_value`


class Run:
    """One task that this server has claimed. `run` returns when it has ended, or is another server's."""

    def __init__(self, access: TaskAccess, task: Task) -> None:
        self._access = access
        self.record = Record(access, task)
        self._stop: Stop | None = None
        self._stopping = asyncio.Event()
        self._said: list[Said] = []
        self._workspace_owner: str | None = None
        self._news, self._flushed = asyncio.Event(), asyncio.Event()
        self._adopted = task.state is not TaskState.QUEUED  # an earlier server, or an earlier life of this one, had it
        self._offset = task.read_offset
        if task.cancel_asked:
            self.stop(Stop(TaskEnd.CANCELLED))

    @property
    def task(self) -> Task:
        return self.record.task

    def stop(self, why: Stop) -> None:
        """End it: the agent gets TERM, then KILL, and what it did is saved. The first reason counts."""
        if self._stop is None:
            self._stop = why
            self._stopping.set()

    def used(self, tokens: TokenUse, cost: int) -> None:
        """The model gateway has settled a call of it."""
        self._said += self.record.used(tokens, cost)
        self._news.set()

    async def payer(self) -> Payer:
        """Who pays for its model calls, with the budgets of now."""
        records, task = self._access.records, self.task
        if self._workspace_owner is None:
            workspace = await records.get_workspace(task.spec.workspace)
            self._workspace_owner = None if workspace is None else workspace.owner
        return await payer_of(records, task, workspace_owner=self._workspace_owner)

    async def run(self) -> None:
        access = self._access
        access.feed.open(self.task.id)
        try:
            if self._adopted:
                await self.record.load()
            try:
                if self.task.state is not TaskState.ENDING:
                    await self._work()
                await self._finish()
            except Taken:
                raise
            except AtollError as error:
                await self._fault(error)
            except Exception as error:
                _log.exception("task.broken", task=self.task.id)
                await self._fault(Internal(f"the task could not be run: {type(error).__name__}"))
        except Taken:
            _log.info("task.taken", task=self.task.id)
        finally:
            access.feed.close(self.task.id)

    # from its turn to the end of the agent

    async def _work(self) -> None:
        """To ENDING, with how it went."""
        task = self.task
        if task.state is TaskState.QUEUED:
            if self._stop is not None:
                await self._ended(TaskState.CANCELLED, self._stop.end, self._stop.error)
                return
            await self._access.stands(task.credential, task.owner)
            task = await self.record.change(TaskState.RUNNING, said=[Said("task.started", {"agent": task.spec.agent})])
            waited_s = ((task.started_at or task.created_at) - task.created_at).total_seconds()
            self._access.metrics.tasks.begun(waited_s)
            crash.point("tasks.run.recorded")
        agent = self._access.agents.get(task.spec.agent)
        if agent is None:
            raise Unsupported(f"this server has no agent {task.spec.agent!r} any more")
        principal = await self._access.acting(task)
        thread = await self._access.records.get_thread(task.thread)
        agent_thread = "" if thread is None else thread.agent_thread
        transcript = Transcript(agent.reader(agent_thread), task.read_offset, self._access.limits.line_bytes_max)
        try:
            exit_ = await self._followed(principal, agent, agent_thread, transcript)
        except Lost as lost:
            late = self._left_s() <= 0
            self.stop(Stop(TaskEnd.TIMEOUT, self._too_long()) if late else Stop(TaskEnd.LOST, lost.message))
            exit_ = None
        outcome = transcript.end(exit_)
        end, error = self._why(outcome, exit_)
        limits = self._access.limits
        said, self._said = self._said, []
        await self.record.change(
            TaskState.ENDING,
            said=said,
            end=end,
            output=outcome.output[-limits.output_chars_max :],
            error=error[: limits.error_chars_max],
            refused=NOTHING if self._stop is None else self._stop.refused,
            read_offset=transcript.offset,
        )
        crash.point("tasks.run.agent_ended")
        await self._remember(outcome.agent_thread or transcript.agent_thread)

    async def _followed(
        self, principal: Principal, agent: Agent, agent_thread: str, transcript: Transcript
    ) -> Exit | None:
        access = self._access
        sandbox, stream = await self._found(principal)
        if self._stop is not None and stream is None:
            return None
        layer = "" if agent.package is None else await self._access.layers.layer(agent.name, self._progress)
        if sandbox is None:
            sandbox = await self._made(principal, agent)
        if stream is None and self._stop is not None:
            return None
        if stream is None:
            access.background.spawn(self._sweep(principal, sandbox.id), f"sweep {self.task.id}")
            stream = await self._started(principal, sandbox, agent, agent_thread, layer)
        try:
            return await self._followed_to_its_end(principal, sandbox.id, stream, transcript)
        except (NotFound, Conflict) as error:
            if isinstance(error, Taken):
                raise
            raise Lost(f"the sandbox of the task has ended: {error.message}") from error
        finally:
            with suppress(AtollError):
                await stream.close()

    async def _followed_to_its_end(
        self, principal: Principal, sandbox_id: str, stream: ProcessStream, transcript: Transcript
    ) -> Exit | None:
        limits = self._access.limits
        reading = asyncio.create_task(self._read(stream, transcript), name=f"read {self.task.id}")
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            left_s = max(0.0, self._left_s())
            await asyncio.wait((reading, stopping), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                self.stop(Stop(TaskEnd.TIMEOUT, self._too_long()))
                processes = self._access.sandboxes.processes
                with suppress(NotFound):
                    await processes.stop(principal, sandbox_id, stream.id, grace_s=limits.stop_s)
                await asyncio.wait((reading,), timeout=limits.drain_s)
            if reading.done():
                await reading
            return stream.exit
        finally:
            for one in (reading, stopping):
                one.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)

    async def _read(self, stream: ProcessStream, transcript: Transcript) -> None:
        """Its output into events, which are stored as fast as the store is; behind it the output waits."""
        writing = asyncio.create_task(self._write(), name=f"store {self.task.id}")
        try:
            async for kind, data in stream:
                self._tell(transcript.feed(kind, data, stream.offset), transcript)
                while len(self._said) > SAID_MAX and not writing.done():
                    self._flushed.clear()
                    await asyncio.wait(
                        (asyncio.ensure_future(self._flushed.wait()), writing), return_when=asyncio.FIRST_COMPLETED
                    )
                if writing.done():
                    await writing
            self._tell(transcript.rest(stream.offset), transcript)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def _tell(self, said: list[Said], transcript: Transcript) -> None:
        if said:
            self._said += said
            self._offset = transcript.offset
            self._news.set()

    async def _write(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            said, self._said = self._said, []
            writing = asyncio.ensure_future(self.record.change(said=said, read_offset=self._offset))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                with suppress(AtollError):
                    await writing
                    said = []
                self._said = said + self._said
                raise
            except Unavailable:  # the output waits where it is until the records are there again
                self._said = said + self._said
                self._news.set()
                await asyncio.sleep(AGAIN_S)
            self._flushed.set()

    # the sandbox and the agent in it

    async def _found(self, principal: Principal) -> tuple[Sandbox | None, ProcessStream | None]:
        """What an earlier server left: the sandbox of this task, and its agent."""
        task, access = self.task, self._access
        if not self._adopted:
            return None, None
        live = await access.records.list_sandboxes(owner=task.owner, states=LIVE, limit=SANDBOXES_MAX)
        sandbox = next((one for one in live if one.spec.task == task.id), None)
        if sandbox is None:
            if task.process is not None:
                raise Lost("the sandbox of the task was lost")
            return None, None
        if task.process is not None:
            try:
                return sandbox, await access.sandboxes.processes.attach(principal, sandbox.id, task.process)
            except (NotFound, Conflict) as error:
                raise Lost(f"the agent of the task was lost: {error.message}") from error
        # Nobody knows whether an agent that no record names got all of its prompt: it begins anew.
        with suppress(NotFound, Conflict):
            for info in await access.sandboxes.processes.list(principal, sandbox.id):
                if info.exit is None:
                    await access.sandboxes.processes.stop(principal, sandbox.id, info.id, grace_s=0)
            return sandbox, None
        return None, None

    async def _made(self, principal: Principal, agent: Agent) -> Sandbox:
        task, access = self.task, self._access
        limit_s = self._timeout_s() + access.limits.stop_s + MARGIN_S
        if access.limits.sandbox_timeout_s_max is not None:
            limit_s = min(limit_s, access.limits.sandbox_timeout_s_max)
        resources = replace(access.limits.resources, timeout_s=limit_s)
        spec = SandboxSpec(
            work_dir=MOUNT_POINT,
            resources=resources,
            network=self._network(),
            workspaces=(WorkspaceMount(task.spec.workspace, MOUNT_POINT),),
            task=task.id,
            agent=agent.name if agent.package is not None else "",
        )
        return await access.sandboxes.create(principal, spec)

    def _network(self) -> NetworkMode:
        """As asked for, else as the settings say where the host can."""
        if self.task.spec.network:
            return NetworkMode(self.task.spec.network)
        wanted = self._access.limits.network
        try:
            self._access.runtime.check_network(wanted)
        except Unsupported:
            return NetworkMode.NONE
        return wanted

    async def _started(
        self, principal: Principal, sandbox: Sandbox, agent: Agent, agent_thread: str, layer: str
    ) -> ProcessStream:
        task, access = self.task, self._access
        crash.point("tasks.run.made")
        home = f"{THREADS}/{task.thread}"
        place = Place(MOUNT_POINT, home, layer, access.model_url, task.spec.model)
        start = agent.start(task.spec, place, agent_thread)
        await self._prepare(principal, sandbox.id, home, start)
        limit_s = max(1.0, self._left_s()) + access.limits.stop_s + MARGIN_S / 2
        spec = ProcessSpec(start.argv, dict(start.env), MOUNT_POINT, stdin=bool(start.stdin), timeout_s=limit_s)
        stream = await access.sandboxes.processes.start(principal, sandbox.id, spec)
        crash.point("tasks.run.started")
        if start.stdin:
            access.background.spawn(self._feed(stream, start.stdin, sandbox.id), f"prompt {task.id}")
        else:
            await self.record.change(sandbox=sandbox.id, process=stream.id)
        return stream

    async def _feed(self, stream: ProcessStream, stdin: bytes, sandbox_id: str) -> None:
        """The prompt; recorded once all of it is in."""
        with suppress(NotFound, Conflict):
            await stream.write_stdin(stdin)
            await stream.close_stdin()
            await self.record.change(sandbox=sandbox_id, process=stream.id)

    async def _prepare(self, principal: Principal, sandbox_id: str, home: str, start: Start) -> None:
        """A repository, as Testbase makes one, and the files of the agent; what is there already stays as it is."""
        sandboxes = self._access.sandboxes
        try:
            await sandboxes.files.stat(principal, sandbox_id, f"{MOUNT_POINT}/.git")
        except NotFound:
            await self._init(principal, sandbox_id)
        for path, content in start.files.items():
            if not await self._has(principal, sandbox_id, f"{home}/{path}", content):
                await sandboxes.files.write(principal, sandbox_id, f"{home}/{path}", _whole(content), mode=0o600)

    async def _init(self, principal: Principal, sandbox_id: str) -> None:
        limit_s = self._access.limits.call_s
        for words in (("init", "-q"), ("config", "user.name", GIT_USER), ("config", "user.email", GIT_EMAIL)):
            spec = ProcessSpec(("git", *words), cwd=MOUNT_POINT, timeout_s=limit_s)
            result = await self._access.sandboxes.processes.run(principal, sandbox_id, spec, max_output_bytes=4_096)
            if result.exit.code != 0:  # there is no git in this image, say: agents work without
                _log.info("task.no_repository", task=self.task.id, code=result.exit.code)
                return

    async def _has(self, principal: Principal, sandbox_id: str, path: str, content: bytes) -> bool:
        try:
            entry, chunks = await self._access.sandboxes.files.read(principal, sandbox_id, path)
        except (NotFound, Conflict, InvalidInput):
            return False
        found = b"".join([chunk async for chunk in chunks])
        return entry.size == len(content) and found == content

    async def _sweep(self, principal: Principal, sandbox_id: str) -> None:
        """What agents remember of deleted threads goes with the next task."""
        files, records = self._access.sandboxes.files, self._access.records
        with suppress(AtollError):
            for entry in (await files.list(principal, sandbox_id, THREADS))[:SWEPT_MAX]:
                thread = await records.get_thread(entry.name)
                if thread is not None and thread.deleted_at is not None and thread.id != self.task.thread:
                    await files.remove(principal, sandbox_id, f"{THREADS}/{entry.name}", recursive=True)

    async def _progress(self, message: str) -> None:
        await self.record.change(said=[Said("warning", {"message": message})])

    # how it ends

    def _why(self, outcome: Outcome, exit_: Exit | None) -> tuple[TaskEnd, str]:
        if self._stop is not None:
            return self._stop.end, self._stop.error or outcome.error
        if exit_ is not None and exit_.timed_out:
            return TaskEnd.TIMEOUT, self._too_long()
        if outcome.ok:
            return TaskEnd.DONE, ""
        if exit_ is not None and exit_.oom_killed:
            return TaskEnd.AGENT_FAILED, "the agent ran out of memory"
        return TaskEnd.AGENT_FAILED, outcome.error or "the agent failed"

    async def _finish(self) -> None:
        """From ENDING to the end. Each step may have been done before."""
        if self.task.ended:
            return
        task = self.task
        principal = await self._access.acting(task)
        await self._destroy(principal)
        crash.point("tasks.end.destroyed")
        error = await self._save(principal)
        crash.point("tasks.end.saved")
        await self._settled()
        end = task.end or TaskEnd.FAULT
        await self._ended(STATES.get(end, TaskState.FAILED), end, task.error or error)

    async def _destroy(self, principal: Principal) -> None:
        access, task = self._access, self.task
        known = {task.sandbox} if task.sandbox else set[str | None]()
        if not known:
            live = await access.records.list_sandboxes(owner=task.owner, states=LIVE, limit=SANDBOXES_MAX)
            known = {one.id for one in live if one.spec.task == task.id}
        for sandbox_id in known:
            if sandbox_id is not None:
                with suppress(NotFound, Conflict):
                    await access.sandboxes.stop(principal, sandbox_id, grace_s=0)

    async def _save(self, principal: Principal) -> str:
        """A revision of what it left; why there is none, where that failed."""
        access = self._access
        try:
            async with deadline(access.limits.revise_s, "saving the work"):
                await access.workspaces.revising.take(self.task.spec.workspace, Reason.STOP, principal.id)
        except NotFound:
            return ""  # the workspace was deleted meanwhile
        except AtollError as error:
            _log.warning("task.unsaved", task=self.task.id, error=error.message)
            return f"no revision of the work could be taken yet: {error.message}"
        return ""

    async def _settled(self) -> None:
        """What it used in all, once the model calls that its end has cut are charged."""
        records, task = self._access.records, self.task
        for _ in range(0 if task.internal else int(self._access.limits.settle_s / SETTLED_LOOK_S)):
            if not await records.pending_holds(task=task.id, limit=1):
                break
            await asyncio.sleep(SETTLED_LOOK_S)
        used = await task_total(records, task.id)
        if used is not None:
            self.record.counted(used.tokens, used.cost)

    async def _remember(self, agent_thread: str) -> None:
        """What continues the conversation."""
        records = self._access.records
        for _ in range(8):
            thread = await records.get_thread(self.task.thread)
            if thread is None or not agent_thread or thread.agent_thread == agent_thread:
                return
            with suppress(Conflict):
                await records.swap_thread(replace(thread, agent_thread=agent_thread))
                return

    async def _fault(self, error: AtollError) -> None:
        """It could not be started or followed: what there is of it is saved and cleared all the same."""
        _log.warning("task.fault", task=self.task.id, error=error.message)
        money = isinstance(error, InsufficientCredit | SpendingLimitExceeded)
        end = self._stop.end if self._stop is not None else TaskEnd.OUT_OF_CREDIT if money else TaskEnd.FAULT
        if self.task.state is TaskState.QUEUED:
            await self._ended(TaskState.FAILED, end, error.message)
            return
        if self.task.state is TaskState.RUNNING:
            refused = refusal_value(error) if self._stop is None else self._stop.refused
            await self.record.change(TaskState.ENDING, end=end, error=error.message, refused=refused)
        await self._finish()

    async def _ended(self, state: TaskState, end: TaskEnd, error: str) -> None:
        access, task = self._access, self.task
        outcome = "ok" if state is TaskState.SUCCEEDED else end.value
        event = access.event("task.ended", task, outcome=outcome, reason=end.value, state=state.value)
        told = {"state": state.value, "reason": end.value, **({"error": error} if error else {})}
        await self.record.change(
            state, said=[Said("task.ended", told)], event=event, whatever=True, end=end, error=error
        )
        begun = task.started_at
        duration_s = None if begun is None else (access.clock() - begun).total_seconds()
        access.metrics.tasks.ended(task.spec.agent, end.value, duration_s)
        crash.point("tasks.end.recorded")

    def _timeout_s(self) -> float:
        return self.task.spec.timeout_s or self._access.limits.timeout_s

    def _left_s(self) -> float:
        """Until its time is over, by the clock that its start was recorded with."""
        started = self.task.started_at or self._access.clock()
        return self._timeout_s() - (self._access.clock() - started).total_seconds()

    def _too_long(self) -> str:
        return f"the task took longer than its {self._timeout_s():g} s"


class Lost(Conflict):
    """The sandbox of the task ended under it."""


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
