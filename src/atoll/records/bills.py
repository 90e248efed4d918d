"""The records contract of bills: what each task of a payer used, beside how it ended.

`services/billing` calls it; `atoll.testing.bills_conformance` holds every store to these docstrings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from atoll.domain.bill import TaskBill, TasksEnded


class BillRecords(ABC):
    """Never of internal uses: those are in no bill."""

    @abstractmethod
    async def list_task_bills(
        self,
        account: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[TaskBill]:
        """Of tasks that ended within since <= at < until, newest first; one that used nothing is among them."""

    @abstractmethod
    async def count_tasks_ended(
        self, account: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> TasksEnded:
        """Of how many tasks `list_task_bills` would tell."""
