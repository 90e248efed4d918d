"""Bill: what one task used, beside how it ended; the records tell it, `services/billing` and the surfaces show it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from atoll.domain.task import TaskState


@dataclass(frozen=True, slots=True)
class TaskBill:
    """One task that has ended. Costs are in micro-dollars; `other_cost` is of its sandbox's compute."""

    task: str
    credential: str
    thread: str
    workspace: str  # its id
    at: datetime  # when it ended; of a forgotten one when it last used something
    agent: str = ""
    state: TaskState | None = None  # None: the task itself is forgotten by now, its uses are not
    duration_s: float | None = None  # from its start
    input_tokens: int = 0
    output_tokens: int = 0
    input_cost: int = 0
    output_cost: int = 0
    other_cost: int = 0


@dataclass(frozen=True, slots=True)
class TasksEnded:
    """How many tasks ended, and how; `forgotten` are those of which only their uses are left."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    forgotten: int = 0

    @property
    def total(self) -> int:
        return self.succeeded + self.failed + self.cancelled + self.forgotten
