"""Running: one task's life in this server, from its turn to its end; the queue starts it, also after a restart.

Each step leaves in the records what the next server needs to go on: the sandbox is found by the task that it names,
the agent by its process, and its output is read on from `read_offset`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import structlog

from atoll.agents.base import Agent, Outcome, Said
from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, Internal, NotFound, Unauthenticated, Unavailable, Unsupported
from atoll.domain.ledger import InsufficientCredit, Payer, SpendingLimitExceeded
from atoll.domain.price import TokenUse
from atoll.domain.principal import Principal
from atoll.domain.process import Exit
from atoll.domain.refusals import refusal_value
from atoll.domain.task import Task, TaskEnd, TaskState
from atoll.domain.workspace import Reason
from atoll.services.deadline import deadline
from atoll.services.tasks.access import TaskAccess
from atoll.services.tasks.following import Following
from atoll.services.tasks.money import payer_of, task_total
from atoll.services.tasks.placing import Left, Lost, Placing
from atoll.services.tasks.record import Record, Taken
from atoll.services.tasks.transcript import Transcript
from atoll.sidekick.client import ProcessStream
from atoll.telemetry.spans import keep, note, span_of

_log = structlog.get_logger()

SETTLED_LOOK_S = 0.02
CANCELLED = "the task was cancelled"

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
        self._following = Following(self.record)
        self._workspace_owner: str | None = None
        self._adopted = task.state is not TaskState.QUEUED  # an earlier server, or an earlier life of this one, had it
        if task.cancel_asked:
            self.stop(Stop(TaskEnd.CANCELLED, CANCELLED))

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
        self._following.used(tokens, cost)

    async def payer(self) -> Payer | None:
        """Who pays for its model calls, with the budgets of now. None, and it ends, once the credential that asked for
        it is good no more."""
        records, task = self._access.records, self.task
        try:
            await self._access.stands(task.credential, task.owner)
        except Unauthenticated:
            self.stop(Stop(TaskEnd.CANCELLED, "the credential that asked for this task was revoked or has expired"))
            return None
        if self._workspace_owner is None:
            workspace = await records.get_workspace(task.spec.workspace)
            self._workspace_owner = None if workspace is None else workspace.owner
        return await payer_of(records, task, workspace_owner=self._workspace_owner)

    async def run(self) -> None:
        with span_of(self.task.id, "task", **{"atoll.task_id": self.task.id, "atoll.agent": self.task.spec.agent}):
            forget = keep(self.task.id)  # its model calls are parts of it
            try:
                await self._run()
            finally:
                forget()

    async def _run(self) -> None:
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
            if task.cancel_asked:  # between its claim and this
                self.stop(Stop(TaskEnd.CANCELLED, CANCELLED))
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
            late = self._access.left_s(self.task) <= 0
            self.stop(Stop(TaskEnd.TIMEOUT, self._too_long()) if late else Stop(TaskEnd.LOST, lost.message))
            exit_ = None
        outcome = transcript.end(exit_)
        end, error = self._why(outcome, exit_)
        limits = self._access.limits
        await self.record.change(
            TaskState.ENDING,
            said=self._following.rest(),
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
        """How the agent ended, once all that it said is told; None: nobody knows, or it never began."""
        placing = Placing(self._access, self.record, principal)
        sandbox, stream = await placing.left() if self._adopted else Left()
        if stream is None:
            layer = await self._installed(agent, placing)
            if sandbox is None and self._stop is None:
                sandbox = await placing.made(agent)
            if sandbox is None or self._stop is not None:
                return None
            stream = await placing.started(sandbox, agent, agent_thread, layer)
        assert sandbox is not None
        try:
            return await self._followed_to_its_end(placing, sandbox.id, stream, transcript)
        except (NotFound, Conflict) as error:
            if isinstance(error, Taken):
                raise
            raise Lost(f"the sandbox of the task has ended: {error.message}") from error
        finally:
            with suppress(AtollError):
                await stream.close()

    async def _installed(self, agent: Agent, placing: Placing) -> str:
        """Where the agent's program is; "" also when the task is to end before it is there."""
        if agent.package is None:
            return ""
        layer = asyncio.ensure_future(self._access.layers.layer(agent.name, placing.progress))
        try:
            return await layer if await self._until(layer) else ""
        finally:
            layer.cancel()

    async def _until(self, work: asyncio.Future[Any]) -> bool:
        """Whether it is done before the task is to end, for whatever reason."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            left_s = max(0.0, self._access.left_s(self.task))
            await asyncio.wait((work, stopping), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return True
            self.stop(Stop(TaskEnd.TIMEOUT, self._too_long()))
            return False
        finally:
            stopping.cancel()

    async def _followed_to_its_end(
        self, placing: Placing, sandbox_id: str, stream: ProcessStream, transcript: Transcript
    ) -> Exit | None:
        reading = asyncio.create_task(self._following.read(stream, transcript), name=f"read {self.task.id}")
        try:
            if not await self._until(reading):
                await placing.stop(sandbox_id, stream.id)
                await asyncio.wait((reading,), timeout=self._access.limits.drain_s)
            if reading.done():
                await reading
            return stream.exit
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

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
        await Placing(self._access, self.record, principal).destroyed()
        crash.point("tasks.end.destroyed")
        error = await self._save(principal)
        crash.point("tasks.end.saved")
        await self._settled()
        end = task.end or TaskEnd.FAULT
        await self._ended(STATES.get(end, TaskState.FAILED), end, task.error or error)

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
        if self.task.state is TaskState.QUEUED and isinstance(error, Unavailable):
            raise error  # it has not begun: it is taken up again when the records answer
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
        note("atoll.task_end", end.value)
        crash.point("tasks.end.recorded")

    def _too_long(self) -> str:
        return f"the task took longer than its {self._access.timeout_s(self.task):g} s"
