"""AsyncAgent and its runs: a folder goes to the server, an agent works on it there, what it did comes back.

`run` and `run_streamed` (in `atoll.sdk.running`) take agents of both kinds.
"""

# ruff: noqa: ASYNC109 (`timeout` is the task's, and the server's to keep)
from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from secrets import token_hex
from types import TracebackType
from typing import Any

from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound, QuotaExceeded, RateLimited
from atoll.domain.task import McpServer
from atoll.sdk._async.api import AsyncApi
from atoll.sdk._async.retry import AsyncRetry
from atoll.sdk._async.tasks import AsyncTasks, async_ended
from atoll.sdk._async.workspace import AsyncWorkspace
from atoll.sdk._async_io import async_work
from atoll.sdk.agent_requests import AgentSpec, Money, Where, WorkspaceLike, excluded, where_of
from atoll.sdk.config import resolve
from atoll.sdk.errors import ConnectionFailed
from atoll.sdk.runtimes import CloudRuntime, Runtime, teller
from atoll.sdk.sync.index import SyncUnderWay
from atoll.sdk.sync.values import SyncOptions, SyncReport
from atoll.sdk.task_errors import SyncFailed, end_error
from atoll.sdk.task_values import ENDED, SYNC, Billing, RunEvent, RunResult, TaskInfo, TaskUsage

SYNC_WAITS_S = 600.0  # for other runs that sync the same folder


class AsyncAgent:
    """Something that does tasks on a workspace: a folder of this machine, `ws:NAME`, or a workspace of the server.

    Successive runs continue one session, `session_id`; an empty one given to `run` begins another. Arguments that are
    None are the server's to choose. `command` is the program of the agent of that name.
    """

    def __init__(
        self,
        agent_type: str = "computer",
        runtime: Runtime | None = None,
        workspace: WorkspaceLike | None = None,
        instructions: str | None = None,
        *,
        agent: str | None = None,
        model: str | None = None,
        mcp_servers: Sequence[McpServer | Mapping[str, Any]] | None = None,
        command: str | Sequence[str] | None = None,
        network: str | None = None,
        name: str | None = None,
        session_id: str | None = None,
    ) -> None:
        self.spec = AgentSpec(
            agent_type=agent_type,
            agent=agent,
            model=model,
            instructions=instructions,
            mcp_servers=mcp_servers,
            command=command,
            network=network,
        )
        self.runtime: Runtime = runtime or CloudRuntime()
        self.where: Where = where_of(workspace, skip_sync=self.runtime.skip_sync)
        self.name = name or self.spec.agent or "agent"
        self.session_id = session_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.where.workspace!r})"

    async def run(
        self, task: str, *, session_id: str | None = None, budget: Money | None = None, timeout: float | None = None
    ) -> RunResult:
        """Do a task and wait for its end. `budget` is in dollars, `timeout` in seconds.

        TaskFailed (TaskTimedOut, TaskCancelled), InsufficientCredit, BudgetExceeded, SpendingLimitExceeded, each with
        the `output` so far and the work saved; NotFound: no such session. Ctrl-C, or a caller that is cancelled, ends
        the task.
        """
        stream = self.run_streamed(task, session_id=session_id, budget=budget, timeout=timeout)
        async with stream:
            async for _ in stream:
                pass
        return stream.result

    def run_streamed(
        self, task: str, *, session_id: str | None = None, budget: Money | None = None, timeout: float | None = None
    ) -> AsyncRunStream:
        """The same, to be iterated: events as they come, then `result`. Nothing happens before the first of them."""
        session = self.session_id if session_id is None else session_id
        return AsyncRunStream(self, task, session, budget, self.runtime.timeout if timeout is None else timeout)


class AsyncRunStream:
    """One run. Iterate it once, to its end; `async with` cancels the task when it is left before."""

    def __init__(
        self, agent: AsyncAgent, task: str, session_id: str | None, budget: Money | None, timeout: float | None
    ) -> None:
        where = agent.where
        self.request = agent.spec.request(task, where.workspace, session_id, budget, timeout)
        self.workspace_id = where.workspace
        self.task_id: str | None = None
        self.session_id = session_id
        self.events: list[RunEvent] = []
        self._agent = agent
        self._folder = where.folder
        self._tell = teller(agent.runtime.debug)
        self._tasks: AsyncTasks | None = None
        self._before: SyncReport | None = None
        self._result: RunResult | None = None
        self._error: AtollError | None = None
        self._events: AsyncGenerator[RunEvent] | None = None
        self._asked = False
        self._key = token_hex(16)  # of the one task that this run is

    async def __aenter__(self) -> AsyncRunStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            with suppress(RuntimeError, ValueError):  # another task, or thread, iterates it just now
                await self._events.aclose()  # its connection goes back: to cancel may need it
        if self._result is None and not isinstance(error, ConnectionFailed):
            try:
                await self.cancel()
            except AtollError as failed:
                self._tell(f"the task could not be cancelled: {failed.message}")

    def __aiter__(self) -> AsyncIterator[RunEvent]:
        if self._events is not None:
            raise InvalidInput("a run can be iterated once only: its events are in `events`")
        self._events = self._run()
        return self._events

    async def _run(self) -> AsyncGenerator[RunEvent]:
        api = await self._connect()
        tasks = self._tasks = AsyncTasks(connection=api)
        self._before = await self._sync(api)
        if self._before is not None:
            yield self._keep(_told(self._before, "before"))
        begun = await self._begin(tasks)
        self._note(begun)
        self._tell(f"task {begun.id} of session {self.session_id} on workspace {self.workspace_id}")
        last: RunEvent | None = None
        async with aclosing(tasks.events(begun.id)) as events:
            async for event in events:
                last = event
                if event.type == ENDED:
                    break
                yield self._keep(event)
        info = await async_ended(tasks, begun.id, last)
        self._note(info)
        self._tell(f"task {begun.id} {info.state}: {info.usage.total_tokens} tokens, {info.usage.total_cost} dollars")
        after, failed = await self._sync_back(api)
        if after is not None:
            yield self._keep(_told(after, "after"))
        if last is not None:
            self._keep(last)
        self._end(info, after, failed)
        if last is not None:
            yield last

    async def cancel(self) -> None:
        """End the task; what it did is kept, and comes back when the iteration goes on. Nothing happens where it has
        not begun or has ended."""
        if self._tasks is None or not self._asked or self._result is not None:
            return
        if self.task_id is None:  # its answer is under way, or was not waited for
            self._note(await self._tasks.begin(self.request, key=self._key))
        if self.task_id is not None:
            await self._tasks.cancel(self.task_id)

    @property
    def outcome(self) -> RunResult:
        """How it went, well or not. Conflict before its end."""
        if self._result is None:
            raise Conflict("the run has not ended: iterate it first")
        return self._result

    @property
    def result(self) -> RunResult:
        """The same of a task that went well; of any other its error, as `run` raises it."""
        found = self.outcome
        if self._error is not None:
            raise self._error
        return found

    @property
    def final_output(self) -> str:
        return self.result.final_output

    @property
    def usage(self) -> TaskUsage:
        return self.outcome.usage

    @property
    def billing(self) -> Billing | None:
        return self.outcome.billing

    async def _begin(self, tasks: AsyncTasks) -> TaskInfo:
        self._asked = True
        try:
            return await tasks.begin(self.request, key=self._key)
        except AtollError as error:  # of what was refused there is nothing to cancel
            self._asked = error.retryable and not isinstance(error, RateLimited | QuotaExceeded)
            raise

    async def _connect(self) -> AsyncApi:
        url, key = await async_work(self._agent.runtime.connection, self.request.get("agent"))
        config = resolve(url, key)
        self._tell(f"the server is {config.url}")
        return AsyncApi(config)

    async def _sync(self, api: AsyncApi) -> SyncReport | None:
        """Bring the folder and the workspace together, both ways: what another did meanwhile is not overwritten."""
        if self._folder is None:
            return None
        workspace = await _workspace(api, self.workspace_id)
        options = SyncOptions(delete=True, exclude=excluded(self._folder), message=f"sync of {self._agent.name}")
        retry = AsyncRetry(SYNC_WAITS_S)
        while True:
            try:
                report = await workspace.sync_with(self._folder, options)
                break
            except SyncUnderWay as error:  # another run of this folder
                await retry.after(error)
        self._tell(
            f"synced: {len(report.sent)} sent, {len(report.received)} received, {len(report.conflicts)} conflicts,"
            f" {report.bytes_sent} bytes up, {report.bytes_received} down"
        )
        return report

    async def _sync_back(self, api: AsyncApi) -> tuple[SyncReport | None, AtollError | OSError | None]:
        try:
            return await self._sync(api), None
        except (AtollError, OSError) as error:
            return None, error

    def _keep(self, event: RunEvent) -> RunEvent:
        self.events.append(event)
        return event

    def _note(self, info: TaskInfo) -> None:
        self.task_id = self.task_id or info.id or None
        if info.session_id:
            self.session_id = self._agent.session_id = info.session_id

    def _end(self, info: TaskInfo, after: SyncReport | None, failed: AtollError | OSError | None) -> None:
        self._result = RunResult(
            final_output=info.output,
            session_id=self.session_id,
            workspace_id=self.workspace_id,
            task_id=self.task_id or "",
            state=info.state,
            reason=info.reason,
            error=info.error,
            usage=info.usage,
            billing=info.billing,
            events=tuple(self.events),
            before=self._before,
            after=after,
        )
        self._error = end_error(self._result, info.raw)
        if failed is not None and self._error is None:
            why = failed.message if isinstance(failed, AtollError) else str(failed)
            message = f"the task is done, but its files did not come back ({why}): the next run brings them"
            self._error = SyncFailed(message, self._result)
            self._error.__cause__ = failed


async def _workspace(api: AsyncApi, name: str) -> AsyncWorkspace:
    """One's own of that name, made where there is none."""
    url, key = api.config.url, api.config.api_key
    try:
        return await AsyncWorkspace.get(name, url=url, api_key=key)
    except NotFound:
        try:
            return await AsyncWorkspace.create(name, url=url, api_key=key)
        except Conflict:  # another run of this folder was faster
            return await AsyncWorkspace.get(name, url=url, api_key=key)


def _told(report: SyncReport, when: str) -> RunEvent:
    """A sync as an event."""
    data: dict[str, Any] = {
        "when": when,
        "sent": [path.path for path in report.sent],
        "received": [path.path for path in report.received],
        "conflicts": [{"path": one.path, "kept": one.kept, "reason": one.reason} for one in report.conflicts],
        "leftOut": [{"path": one.path, "reason": one.reason} for one in report.left_out],
        "bytesSent": report.bytes_sent,
        "bytesReceived": report.bytes_received,
    }
    return RunEvent(0, SYNC, data)
