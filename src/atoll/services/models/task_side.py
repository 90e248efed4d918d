"""What model calls ask and tell those who run the tasks; the composition root joins them."""

from __future__ import annotations

from typing import Protocol

from atoll.domain.errors import AtollError
from atoll.domain.ledger import Payer
from atoll.domain.price import TokenUse


class TaskSide(Protocol):
    """Whoever runs the tasks."""

    async def payer(self, task_id: str) -> Payer | None:
        """Who pays for it; None: there is no such task, or it is over."""
        ...

    def used(self, task_id: str, tokens: TokenUse, cost: int) -> None:
        """A call is settled: the tokens are all that it used, `cost` its price in micro-dollars."""
        ...

    def dry(self, task_id: str, error: AtollError) -> None:
        """The money is spent: the task ends, its work is saved."""
        ...

    def hung(self, task_id: str, message: str) -> None:
        """Its model hangs: the task ends."""
        ...


class NoTasks:
    """Nobody runs tasks."""

    async def payer(self, task_id: str) -> Payer | None:
        return None

    def used(self, task_id: str, tokens: TokenUse, cost: int) -> None:
        return

    def dry(self, task_id: str, error: AtollError) -> None:
        return

    def hung(self, task_id: str, message: str) -> None:
        return
