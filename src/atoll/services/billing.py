"""Billing: what somebody's account holds, what was used and for what; Testbase's `/billing` and the console ask it.

It only looks: `billing_admin` gives credits and sets limits, `ledger` charges.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from atoll.domain.bill import TaskBill, TasksEnded
from atoll.domain.errors import Forbidden, NotFound
from atoll.domain.group import Role
from atoll.domain.key import Scope
from atoll.domain.ledger import BillingAccount, Transfer, TransferKind, UseKind
from atoll.domain.principal import Principal
from atoll.records.base import Records
from atoll.records.ledger import UseQuery
from atoll.records.ledger import UseTotal as UseTotal
from atoll.services.clock import Clock, utc_now

if TYPE_CHECKING:
    from atoll.services.ledger.ledger import Ledger

T = TypeVar("T")
PAGE_ROWS = 1_000  # read at a time, of a list that is told whole
ROWS_MAX = 1_000_000  # of such a list


@dataclass(frozen=True, slots=True)
class Window:
    """Which time is asked for: since <= at < until; None: no bound on that side."""

    since: datetime | None = None
    until: datetime | None = None


ALWAYS = Window()


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: `limit` None is all of it, up to ROWS_MAX."""

    limit: int | None = 100
    offset: int = 0


@dataclass(frozen=True, slots=True)
class UsageStats:
    """Sums over a window: all that was used, and the tasks that ended."""

    total: UseTotal
    tasks: TasksEnded
    cost: int  # of everything, in micro-dollars; `total` splits that of the model's tokens


@dataclass(frozen=True, slots=True)
class CostQuery:
    """Costs of what, told apart `by` what. `group`: of its workspaces."""

    by: str = "task"  # one of BY
    task: str | None = None
    sandbox: str | None = None
    workspace: str | None = None
    group: str | None = None
    kind: UseKind | None = None


# What costs can be told apart by, and what the records call it.
BY = {name: name for name in ("task", "sandbox", "workspace", "model", "kind", "account", "day")}
BY["group"] = "workspace_owner"


class Billing:
    """Everything is the principal's own, but for what an admin of a group sees of the group's."""

    def __init__(self, records: Records, ledger: Ledger, *, clock: Clock = utc_now) -> None:
        self._records = records
        self._ledger = ledger
        self._clock = clock

    async def account(self, principal: Principal) -> BillingAccount:
        """The account that pays for what the principal asks for. Needs `read`."""
        return await self._ledger.account(_payer(principal))

    async def stats(self, principal: Principal, window: Window = ALWAYS) -> UsageStats:
        """Sums. Needs `read`."""
        return await self.stats_of(_payer(principal), window)

    async def stats_of(self, account: str, window: Window) -> UsageStats:
        """Anybody's: whether somebody may see them is for the caller to say."""
        everything = UseQuery(account, window.since, window.until)
        calls = UseQuery(account, window.since, window.until, kind=UseKind.MODEL)
        total = (await self._records.total_uses(calls))[0]
        cost = (await self._records.total_uses(everything))[0]
        tasks = await self._records.count_tasks_ended(account, since=window.since, until=window.until)
        return UsageStats(total, tasks, cost.input_cost + cost.output_cost)

    def tasks(self, principal: Principal, window: Window = ALWAYS, page: Page | None = None) -> AsyncIterator[TaskBill]:
        """One for each task that ended, newest first. Needs `read`."""
        return self.tasks_of(_payer(principal), window, page or Page())

    def tasks_of(self, account: str, window: Window, page: Page) -> AsyncIterator[TaskBill]:
        """Anybody's."""
        window = self._standing(window, page)

        async def some(limit: int, offset: int) -> list[TaskBill]:
            since, until = window.since, window.until
            return await self._records.list_task_bills(account, since=since, until=until, limit=limit, offset=offset)

        return _paged(some, page)

    def transfers(
        self,
        principal: Principal,
        window: Window = ALWAYS,
        page: Page | None = None,
        *,
        kind: TransferKind | None = None,
    ) -> AsyncIterator[Transfer]:
        """What was given, taken and charged, newest first. Needs `read`."""
        return self.transfers_of(_payer(principal), window, page or Page(), kind=kind)

    def transfers_of(
        self, account: str, window: Window, page: Page, *, kind: TransferKind | None = None
    ) -> AsyncIterator[Transfer]:
        """Anybody's."""
        window = self._standing(window, page)

        async def some(limit: int, offset: int) -> list[Transfer]:
            since, until = window.since, window.until
            return await self._records.list_transfers(
                account, kind=kind, since=since, until=until, limit=limit, offset=offset
            )

        return _paged(some, page)

    def workspaces(
        self, principal: Principal, window: Window = ALWAYS, page: Page | None = None
    ) -> AsyncIterator[UseTotal]:
        """Sums by workspace, the dearest first. Needs `read`."""
        return self.costs(principal, CostQuery("workspace"), window, page)

    def costs(
        self, principal: Principal, query: CostQuery, window: Window = ALWAYS, page: Page | None = None
    ) -> AsyncIterator[UseTotal]:
        """Sums of what the principal pays for; of what was used on a group's workspaces, whoever paid, for an admin of
        the group. Needs `read`. NotFound for a group that it does not belong to."""
        account: str | None = _payer(principal)
        if query.group is not None and query.group != account:
            role = principal.groups.get(query.group)
            if role is None or not principal.reaches(query.group, query.group):
                raise NotFound("group not found")
            account = None if role is Role.ADMIN else account
        return self.costs_of(account, query, window, page)

    def costs_of(
        self,
        account: str | None,
        query: CostQuery,
        window: Window,
        page: Page | None = None,
        *,
        internal: bool | None = False,
    ) -> AsyncIterator[UseTotal]:
        """Anybody's, or everybody's: whether somebody may see them is for the caller to say."""
        page = page or Page()
        window = self._standing(window, page)
        wanted = UseQuery(
            account,
            window.since,
            window.until,
            query.task,
            query.sandbox,
            query.workspace,
            query.group,
            query.kind,
            internal,
        )

        async def some(limit: int, offset: int) -> list[UseTotal]:
            return await self._records.total_uses(wanted, by=BY[query.by], limit=limit, offset=offset)

        return _paged(some, page)

    def _standing(self, window: Window, page: Page) -> Window:
        """What is read in several parts ends now: else what comes meanwhile pushes rows into the next part again."""
        if window.until is not None or (page.limit is not None and page.limit <= PAGE_ROWS):
            return window
        return replace(window, until=self._clock())

    async def workspace_names(self, account: str, ids: set[str]) -> dict[str, str]:
        """What the workspaces of these ids are called by whoever has the account; others' are known by their ids."""
        found: dict[str, str] = {}
        for one in ids:
            workspace = await self._records.get_workspace(one)
            if workspace is not None and workspace.owner == account:
                found[one] = workspace.name
        return found


def _payer(principal: Principal) -> str:
    """Whose account it sees. Forbidden without `read`, and for what reaches single things only."""
    principal.require(Scope.READ)
    if not principal.reaches(principal.id, principal.id):
        raise Forbidden("this credential reaches single things only: it sees no bill")
    return principal.id


async def _paged(some: Callable[[int, int], Awaitable[list[T]]], page: Page) -> AsyncIterator[T]:
    left, offset = ROWS_MAX if page.limit is None else page.limit, page.offset
    while left > 0:
        wanted = min(left, PAGE_ROWS)
        found = await some(wanted, offset)
        for one in found:
            yield one
        if len(found) < wanted:
            return
        left, offset = left - wanted, offset + wanted
