# Made by scripts/unasync.py from ../_async/agents.py: change that file, not this one.
"""Agent and its runs: a folder goes to the server, an agent works on it there, what it did comes back.

`run` and `run_streamed` (in `atoll.sdk.running`) take agents of both kinds.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from secrets import token_hex
from types import TracebackType
from typing import Any

from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound, QuotaExceeded, RateLimited
from atoll.domain.task import McpServer
from atoll.sdk._io import work
from atoll.sdk._sync.api import Api
from atoll.sdk._sync.retry import Retry
from atoll.sdk._sync.tasks import Tasks, ended
from atoll.sdk._sync.workspace import Workspace
from atoll.sdk.agent_requests import AgentSpec, Money, Where, WorkspaceLike, excluded, where_of
from atoll.sdk.config import resolve
from atoll.sdk.errors import ConnectionFailed
from atoll.sdk.runtimes import CloudRuntime, Runtime, teller
from atoll.sdk.sync.index import SyncUnderWay
from atoll.sdk.sync.values import SyncOptions, SyncReport
from atoll.sdk.task_errors import SyncFailed, end_error
from atoll.sdk.task_values import ENDED, SYNC, Billing, RunEvent, RunResult, TaskInfo, TaskUsage

SYNC_WAITS_S = 600.0  # for other runs that sync the same folder


class Agent:
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

    def run(
        self, task: str, *, session_id: str | None = None, budget: Money | None = None, timeout: float | None = None
    ) -> RunResult:
        """Do a task and wait for its end. `budget` is in dollars, `timeout` in seconds.

        TaskFailed (TaskTimedOut, TaskCancelled), InsufficientCredit, BudgetExceeded, SpendingLimitExceeded, each with
        the `output` so far and the work saved; NotFound: no such session. Ctrl-C, or a caller that is cancelled, ends
        the task.
        """
        stream = self.run_streamed(task, session_id=session_id, budget=budget, timeout=timeout)
        with stream:
            for _ in stream:
                pass
        return stream.result

    def run_streamed(
        self, task: str, *, session_id: str | None = None, budget: Money | None = None, timeout: float | None = None
    ) -> RunStream:
        """The same, to be iterated: events as they come, then `result`. Nothing happens before the first of them."""
        session = self.session_id if session_id is None else session_id
        return RunStream(self, task, session, budget, self.runtime.timeout if timeout is None else timeout)


class RunStream:
    """One run. Iterate it once, to its end; `with` cancels the task when it is left before."""

    def __init__(
        self, agent: Agent, task: str, session_id: str | None, budget: Money | None, timeout: float | None
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
        self._tasks: Tasks | None = None
        self._before: SyncReport | None = None
        self._result: RunResult | None = None
        self._error: AtollError | None = None
        self._events: Generator[RunEvent] | None = None
        self._asked = False
        self._key = token_hex(16)  # of the one task that this run is

    def __enter__(self) -> RunStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            with suppress(RuntimeError, ValueError):  # another task, or thread, iterates it just now
                self._events.close()  # its connection goes back: to cancel may need it
        if self._result is None and not isinstance(error, ConnectionFailed):
            try:
                self.cancel()
            except AtollError as failed:
                self._tell(f"the task could not be cancelled: {failed.message}")

    def __iter__(self) -> Iterator[RunEvent]:
        if self._events is not None:
            raise InvalidInput("a run can be iterated once only: its events are in `events`")
        self._events = self._run()
        return self._events

    def _run(self) -> Generator[RunEvent]:
        api = self._connect()
        tasks = self._tasks = Tasks(connection=api)
        self._before = self._sync(api)
        if self._before is not None:
            yield self._keep(_told(self._before, "before"))
        begun = self._begin(tasks)
        self._note(begun)
        self._tell(f"task {begun.id} of session {self.session_id} on workspace {self.workspace_id}")
        last: RunEvent | None = None
        with closing(tasks.events(begun.id)) as events:
            for event in events:
                last = event
                if event.type == ENDED:
                    break
                yield self._keep(event)
        info = ended(tasks, begun.id, last)
        self._note(info)
        self._tell(f"task {begun.id} {info.state}: {info.usage.total_tokens} tokens, {info.usage.total_cost} dollars")
        after, failed = self._sync_back(api)
        if after is not None:
            yield self._keep(_told(after, "after"))
        if last is not None:
            self._keep(last)
        self._end(info, after, failed)
        if last is not None:
            yield last

    def cancel(self) -> None:
        """End the task; what it did is kept, and comes back when the iteration goes on. Nothing happens where it has
        not begun or has ended."""
        if self._tasks is None or not self._asked or self._result is not None:
            return
        if self.task_id is None:  # its answer is under way, or was not waited for
            self._note(self._tasks.begin(self.request, key=self._key))
        if self.task_id is not None:
            self._tasks.cancel(self.task_id)

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

    def _begin(self, tasks: Tasks) -> TaskInfo:
        self._asked = True
        try:
            return tasks.begin(self.request, key=self._key)
        except AtollError as error:  # of what was refused there is nothing to cancel
            self._asked = error.retryable and not isinstance(error, RateLimited | QuotaExceeded)
            raise

    def _connect(self) -> Api:
        url, key = work(self._agent.runtime.connection, self.request.get("agent"))
        config = resolve(url, key)
        self._tell(f"the server is {config.url}")
        return Api(config)

    def _sync(self, api: Api) -> SyncReport | None:
        """Bring the folder and the workspace together, both ways: what another did meanwhile is not overwritten."""
        if self._folder is None:
            return None
        workspace = _workspace(api, self.workspace_id)
        options = SyncOptions(delete=True, exclude=excluded(self._folder), message=f"sync of {self._agent.name}")
        retry = Retry(SYNC_WAITS_S)
        while True:
            try:
                report = workspace.sync_with(self._folder, options)
                break
            except SyncUnderWay as error:  # another run of this folder
                retry.after(error)
        self._tell(
            f"synced: {len(report.sent)} sent, {len(report.received)} received, {len(report.conflicts)} conflicts,"
            f" {report.bytes_sent} bytes up, {report.bytes_received} down"
        )
        return report

    def _sync_back(self, api: Api) -> tuple[SyncReport | None, AtollError | OSError | None]:
        try:
            return self._sync(api), None
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


def _workspace(api: Api, name: str) -> Workspace:
    """One's own of that name, made where there is none."""
    url, key = api.config.url, api.config.api_key
    try:
        return Workspace.get(name, url=url, api_key=key)
    except NotFound:
        try:
            return Workspace.create(name, url=url, api_key=key)
        except Conflict:  # another run of this folder was faster
            return Workspace.get(name, url=url, api_key=key)


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
