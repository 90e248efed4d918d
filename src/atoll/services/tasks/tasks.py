"""Tasks: the service that every surface calls: have an agent do something in a workspace, follow it, end it.

Every method takes the Principal first and raises Forbidden without the scope it names, and NotFound for an id that is
unknown, malformed or somebody else's: the same message for all.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import replace

from atoll.agents.base import Place, Said
from atoll.domain import crash
from atoll.domain.errors import AtollError, InvalidInput, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.ids import new_id
from atoll.domain.key import Scope
from atoll.domain.ledger import Payer
from atoll.domain.price import TokenUse
from atoll.domain.principal import Principal
from atoll.domain.refusals import refusal_value
from atoll.domain.task import Task, TaskEnd, TaskEvent, TaskSpec, TaskState, Thread
from atoll.domain.workspace import MOUNT_POINT
from atoll.services.tasks.access import TaskAccess
from atoll.services.tasks.feed import NEVER
from atoll.services.tasks.money import TaskUsage, is_internal, payer_of, task_total
from atoll.services.tasks.queue import Queue
from atoll.services.tasks.requests import TaskRequest, check_request
from atoll.services.tasks.running import CANCELLED, Run, Stop
from atoll.services.tasks.threads import Threads
from atoll.services.workspaces.on_demand import found_or_made
from atoll.telemetry.spans import keep

TASK_ID = re.compile(r"^task_[0-9a-f]{24}$")
SWAPS_MAX = 8
TAKEN_UP_LOOKS, TAKEN_UP_LOOK_S = 200, 0.05
LIST_MAX = 1_000
LISTED_CHARS = 1_000  # of an output, in a list


class Tasks:
    """Use cases of tasks. app.py: `await start()` once sandboxes and workspaces have started, `await close()` before
    they close. It is the `TaskSide` of the model gateway: `payer`, `used`, `dry`, `hung`."""

    def __init__(self, access: TaskAccess) -> None:
        self._access = access
        self._queue = Queue(access)
        self.threads_of = Threads(access)

    async def start(self) -> None:
        """Take up the tasks that an earlier life of this server ran, and run those that wait."""
        await self._queue.start()

    async def close(self) -> None:
        """Stop following; agents go on in their sandboxes. A second call does nothing."""
        await self._queue.close()
        await self._access.background.close(self._access.limits.close_s)

    async def submit(self, principal: Principal, request: TaskRequest, *, request_id: str | None = None) -> Task:
        """Record it; it runs when its turn comes. Needs `execute`, and `write` on the workspace.

        SpendingLimitExceeded, InsufficientCredit or BudgetExceeded where it cannot be paid; InvalidInput names the
        field (`task`, `agent`, `model`, `mcpServers`, `instructions`, `command`, `network`, `timeout`, `budget`);
        NoWorkspace; NoThread for a session; Unavailable where its model is not set up; QuotaExceeded when too many
        wait.
        """
        access, limits = self._access, self._access.limits
        principal.require(Scope.EXECUTE)
        draft = self._draft(principal, request)
        if request.session and not request.agent:
            known = await self.threads_of.find(principal, request.session)
            draft = replace(draft, spec=replace(draft.spec, agent=known.agent))
        await access.money.check(await payer_of(access.records, draft))
        check_request(replace(request, agent=draft.spec.agent), limits, access.agents)
        access.agents[draft.spec.agent].start(draft.spec, Place(MOUNT_POINT, MOUNT_POINT, "", access.model_url, ""), "")
        access.modelled(access.agents[draft.spec.agent].speaks)
        if len(self._queue.waiting) >= limits.waiting_max:
            message = f"this server has its maximum of {limits.waiting_max} waiting tasks: try again later"
            raise QuotaExceeded(message, quota="tasks", retry_after_s=5)
        found = await found_or_made(access.workspaces, principal, request.workspace, scope=Scope.EXECUTE)
        workspace = found.workspace.id
        thread = await self.threads_of.continued(principal, request.session, workspace, draft.spec.agent)
        spec = replace(draft.spec, workspace=workspace, thread=thread.id)
        task = replace(draft, spec=spec, thread=thread.id, created_at=access.clock())
        if thread.agent != spec.agent:
            raise InvalidInput(
                f"agent must be {thread.agent}, as in the tasks before it in this session", field="agent"
            )
        event = access.event(
            "task.created", task, principal.id, agent=spec.agent, workspace=workspace, thread=thread.id
        )
        if request_id is not None:
            event = replace(event, request_id=request_id)
        await access.records.add_task(task, thread, event, most_queued=limits.unended_per_owner)
        crash.point("tasks.submit.recorded")
        keep(task.id)  # what runs it later is a part of what asked for it
        self._queue.added(task)
        return task

    async def check(self, principal: Principal) -> None:
        """Whether a task could be paid: SpendingLimitExceeded, InsufficientCredit, BudgetExceeded."""
        draft = self._draft(principal, TaskRequest("", ""))
        await self._access.money.check(await payer_of(self._access.records, draft))

    async def get(self, principal: Principal, task_id: str) -> Task:
        """Needs `read`."""
        return await self._find(principal, task_id, Scope.READ)

    async def list(
        self,
        principal: Principal,
        *,
        states: Collection[TaskState] | None = None,
        thread: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Task]:
        """The principal's own, newest first, with the beginning of what they wrote. Needs `read`."""
        principal.require(Scope.READ)
        limit, offset = max(0, min(limit, LIST_MAX)), max(0, offset)
        if principal.resources is None:
            return await self._access.records.list_tasks(
                owner=principal.id,
                states=states,
                thread=thread,
                limit=limit,
                offset=offset,
                output_chars=LISTED_CHARS,
            )
        found = await self._access.records.list_tasks(
            owner=principal.id, states=states, thread=thread, limit=10 * LIST_MAX, output_chars=LISTED_CHARS
        )
        return [one for one in found if _sees(principal, one)][offset : offset + limit]

    async def wait(self, principal: Principal, task_id: str) -> Task:
        """The task, once it has ended. Needs `read`."""
        task = await self.get(principal, task_id)
        while not task.ended:
            async for _ in self._access.feed.follow(task_id, NEVER):
                pass
            task = await self.get(principal, task_id)
        return task

    async def events(self, principal: Principal, task_id: str, *, after: int = 0) -> AsyncGenerator[TaskEvent]:
        """What happened behind that number, then what happens, to the end of the task. Needs `read`."""
        if after < 0:
            raise InvalidInput("after must not be negative", field="after")
        await self.get(principal, task_id)
        async with aclosing(self._access.feed.follow(task_id, after)) as told:
            async for event in told:
                yield event

    async def cancel(self, principal: Principal, task_id: str) -> Task:
        """End it: TERM to its agent, then KILL; what it did is saved, what it used is paid. Returns it ended; one that
        has ended stays as it is. Needs `execute`."""
        for _ in range(SWAPS_MAX):
            task = await self._find(principal, task_id, Scope.EXECUTE)
            if task.ended:
                return task
            if task.cancel_asked or await self._cancelled(task, principal.id):
                break
        else:
            raise StaleVersion()
        run = self._queue.run(task_id)
        if run is not None:
            run.stop(Stop(TaskEnd.CANCELLED, CANCELLED))
        return await self.wait(replace(principal, scopes=principal.scopes | {Scope.READ}), task_id)

    async def _cancelled(self, task: Task, actor: str) -> bool:
        """Whether that is stored: the wish, or at once the end of one that nobody runs."""
        access = self._access
        try:
            if task.state is TaskState.QUEUED and not task.claimed_by:
                event = access.event("task.ended", task, actor, outcome="cancelled", reason="cancelled")
                after = task.to(TaskState.CANCELLED, end=TaskEnd.CANCELLED, error=CANCELLED, cancel_asked=True)
                said = Said("task.ended", {"state": after.state.value, "reason": "cancelled", "error": CANCELLED})
                told = [TaskEvent(1, said.type, access.clock(), said.data)]
                await access.records.swap_task(after, event, told=told)
                self._queue.left(task.id)
                access.metrics.tasks.ended(task.spec.agent, TaskEnd.CANCELLED.value, None)
                access.feed.wake(task.id)
            else:
                event = access.event("task.cancelled", task, actor)
                await access.records.swap_task(replace(task, cancel_asked=True), event)
        except StaleVersion:
            return False
        return True

    async def thread(self, principal: Principal, thread_id: str) -> Thread:
        """Needs `read`."""
        return await self.threads_of.get(principal, thread_id)

    async def threads(
        self, principal: Principal, *, active: bool = False, limit: int = 1000, offset: int = 0
    ) -> list[Thread]:
        """The principal's own, the last used first. Needs `read`."""
        return await self.threads_of.list(principal, active=active, limit=limit, offset=offset)

    async def delete_thread(self, principal: Principal, thread_id: str) -> Thread:
        """Nothing continues it from now on. Needs `write`."""
        return await self.threads_of.delete(principal, thread_id)

    async def usage(self, task: Task) -> TaskUsage:
        """What it used, and what its payer has left. For tasks as `get` and `wait` gave them."""
        used = await task_total(self._access.records, task.id) or TaskUsage(task.tokens, task.cost, 0, None)
        return used if task.internal else replace(used, account=await self._access.money.account(task.owner))

    # the model gateway's side

    async def payer(self, task_id: str) -> Payer | None:
        """Who pays for its model calls. None: no such task, or it is over."""
        run = self._queue.run(task_id) or await self._taken_up(task_id)
        if run is None or run.task.state is not TaskState.RUNNING:
            return None
        return await run.payer()

    async def _taken_up(self, task_id: str) -> Run | None:
        """A task that outlived a server goes on asking its model before the next server follows it."""
        task = await self._access.records.get_task(task_id)
        if task is None or task.state is not TaskState.RUNNING:
            return None
        for _ in range(TAKEN_UP_LOOKS):
            if (run := self._queue.run(task_id)) is not None:
                return run
            await asyncio.sleep(TAKEN_UP_LOOK_S)
        return None

    def used(self, task_id: str, tokens: TokenUse, cost: int) -> None:
        """After each settled call."""
        run = self._queue.run(task_id)
        if run is not None:
            run.used(tokens, cost)

    def dry(self, task_id: str, error: AtollError) -> None:
        """The money is spent: the task ends, its work is saved."""
        run = self._queue.run(task_id)
        if run is not None:
            run.stop(Stop(TaskEnd.OUT_OF_CREDIT, error.message, refusal_value(error)))

    def hung(self, task_id: str, message: str) -> None:
        """A model that hangs ends the task."""
        run = self._queue.run(task_id)
        if run is not None:
            run.stop(Stop(TaskEnd.TIMEOUT, message))

    def _draft(self, principal: Principal, request: TaskRequest) -> Task:
        """The task as far as the request tells."""
        spec = TaskSpec(
            prompt=request.prompt,
            workspace=request.workspace,
            agent=request.agent or self._access.limits.agent,
            model=request.model,
            instructions=request.instructions,
            mcp_servers=request.mcp_servers,
            command=request.command,
            budget_micro_usd=request.budget_micro_usd,
            timeout_s=request.timeout_s,
            network=request.network,
        )
        return Task(
            id=new_id("task"),
            owner=principal.id,
            credential=principal.credential,
            spec=spec,
            thread="",
            created_at=self._access.clock(),
            internal=is_internal(principal),
            lineage=principal.lineage,
            kind=principal.kind,
            plan=principal.plan,
        )

    async def _find(self, principal: Principal, task_id: str, scope: Scope) -> Task:
        principal.require(scope)
        task = await self._access.records.get_task(task_id) if TASK_ID.match(task_id) else None
        if task is None or not _sees(principal, task):
            raise NotFound("task not found")
        return task


def _sees(principal: Principal, task: Task) -> bool:
    own = task.owner == principal.id
    return own and (principal.reaches(task.owner, task.id) or principal.reaches(task.owner, task.spec.workspace))
