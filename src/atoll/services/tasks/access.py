"""Access: what the parts of the tasks service share: plug points, services beside it, and in whose name a task acts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from atoll.agents.base import Agent
from atoll.domain.event import Event
from atoll.domain.group import Role
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.task import Task
from atoll.records.base import Records
from atoll.runtimes.base import Runtime
from atoll.services.background import Background
from atoll.services.clock import Clock
from atoll.services.sandboxes import Sandboxes
from atoll.services.tasks.feed import Feed
from atoll.services.tasks.layers import Layers
from atoll.services.tasks.money import Money
from atoll.services.tasks.requests import TaskLimits
from atoll.services.workspaces.workspaces import Workspaces
from atoll.telemetry.metrics import Metrics

ACTS = frozenset({Scope.EXECUTE, Scope.READ, Scope.WRITE})


@dataclass(frozen=True, slots=True)
class TaskAccess:
    """One for a server."""

    server: Callable[[], str]  # by what this server claims tasks, after a restart, too
    records: Records
    runtime: Runtime
    sandboxes: Sandboxes
    workspaces: Workspaces
    agents: Mapping[str, Agent]
    layers: Layers
    money: Money
    feed: Feed
    limits: TaskLimits
    clock: Clock
    metrics: Metrics
    background: Background
    roles: Callable[[str], Awaitable[Mapping[str, Role]]]  # in groups, by the group's id
    stands: Callable[[str, str], Awaitable[object]]  # Unauthenticated: a credential may do nothing of its owner's now
    model_url: str
    modelled: Callable[[str], None]  # Unavailable: what an agent speaks, no provider of models here does

    def timeout_s(self, task: Task) -> float:
        """How long it may take, from its turn on."""
        return task.spec.timeout_s or self.limits.timeout_s

    def left_s(self, task: Task) -> float:
        """Until that is over, by the clock that its turn was recorded with."""
        begun = task.started_at or self.clock()
        return self.timeout_s(task) - (self.clock() - begun).total_seconds()

    async def acting(self, task: Task) -> Principal:
        """In whose name a task acts: its owner's, wherever and whenever its turn comes."""
        return Principal(
            task.owner,
            task.kind,
            ACTS,
            credential=task.credential,
            groups=await self.roles(task.owner),
            plan=task.plan,
            lineage=task.lineage,
        )

    def event(self, action: str, task: Task, actor: str = "system", *, outcome: str = "ok", **detail: object) -> Event:
        """An event about the task, in its owner's tenant."""
        told = {name: value for name, value in detail.items() if value is not None}
        return Event(action, task.id, tenant=task.owner, actor=actor, outcome=outcome, detail=told, at=self.clock())
