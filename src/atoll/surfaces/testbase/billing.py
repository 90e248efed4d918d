"""`/billing`: what somebody's own account holds and was used for; everybody asks it about themselves alone.

`billing_admin.py` has what administrators ask for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.bill import TaskBill
from atoll.domain.errors import InvalidInput
from atoll.domain.ids import KEY_ID
from atoll.domain.ledger import TransferKind, UseKind
from atoll.domain.principal import Principal
from atoll.services.billing import Billing, CostQuery, Page, UseTotal, Window
from atoll.surfaces.bodies import close_iterator
from atoll.surfaces.money import money_response
from atoll.surfaces.operation import Parameter
from atoll.surfaces.sheets import sheet, wants_sheet
from atoll.surfaces.testbase.billing_rows import (
    COST_COLUMNS,
    TRANSACTION_COLUMNS,
    USAGE_COLUMNS,
    Json,
    shown_account,
    shown_cost,
    shown_stats,
    shown_task,
    shown_transfer,
    shown_workspace,
)

T = TypeVar("T")
MOMENT = "ISO 8601, UTC where it has no zone"
FROM = Parameter("from", f"from this moment on: {MOMENT}", max_chars=64)
TO = Parameter("to", f"up to this moment, which is included; a date alone is the whole day: {MOMENT}", max_chars=64)
LIMIT = Parameter("limit", "at most so many, default 100; of CSV: all", int, minimum=1, maximum=1_000)
OFFSET = Parameter("offset", "after so many", int, minimum=0, maximum=10**9)
TYPE = Parameter("type", "only transactions of this type", choices=tuple(kind.value for kind in TransferKind))
OWN_BY = ("task", "sandbox", "workspace", "group", "model", "kind", "day")
BY = Parameter("by", "what costs are told apart by; default: task", choices=OWN_BY)
ID_CHARS = 128
TASK = Parameter("task", "only of this task", max_chars=ID_CHARS)
SANDBOX = Parameter("sandbox", "only of this sandbox", max_chars=ID_CHARS)
WORKSPACE = Parameter("workspace", "only of the workspace of this id", max_chars=ID_CHARS)
GROUP = Parameter("group", "only of the workspaces of this group: for its admins whoever paid", max_chars=ID_CHARS)
KIND = Parameter(
    "kind", "only model calls, compute, storage or runs of workers", choices=tuple(kind.value for kind in UseKind)
)
A_DAY, AN_INSTANT = timedelta(days=1), timedelta(microseconds=1)


class BillingHandlers:
    """One method for each operation."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing

    async def account(self, _request: Request, principal: Principal) -> Response:
        return money_response(shown_account(await self._billing.account(principal), key_shown(principal)))

    async def stats(self, request: Request, principal: Principal) -> Response:
        return money_response(shown_stats(await self._billing.stats(principal, window_of(request))))

    async def usage(self, request: Request, principal: Principal) -> Response:
        found = self._billing.tasks(principal, window_of(request), page_of(request))
        return await told_tasks(request, self._billing, principal.id, found)

    async def transactions(self, request: Request, principal: Principal) -> Response:
        kind = TYPE.text(request)
        found = self._billing.transfers(
            principal, window_of(request), page_of(request), kind=None if kind is None else TransferKind(kind)
        )
        key = key_shown(principal)
        rows = mapped(found, lambda one: shown_transfer(one, key))
        return await told(request, rows, "transactions", TRANSACTION_COLUMNS)

    async def workspaces(self, request: Request, principal: Principal) -> Response:
        found = await listed(self._billing.workspaces(principal, window_of(request), page_of(request)))
        names = await self._billing.workspace_names(principal.id, {one.name for one in found})
        rows = [shown_workspace(one, names.get(one.name, one.name)) for one in found]
        return money_response({"count": len(rows), "workspaces": rows})

    async def costs(self, request: Request, principal: Principal) -> Response:
        query = cost_query(request)
        found = self._billing.costs(principal, query, window_of(request), page_of(request))
        return await told_costs(request, query, found)


def key_shown(principal: Principal) -> str:
    """What upstream's `apiKeyId` is: the key that it came with; of a login the user."""
    return principal.credential if KEY_ID.match(principal.credential) else principal.id


def window_of(request: Request) -> Window:
    """From and to, of which the second is included. InvalidInput names the one that is no moment."""
    since, until = moment(FROM.text(request), FROM.name), moment(TO.text(request), TO.name, end=True)
    if since is not None and until is not None and since >= until:
        raise InvalidInput("from must not be after to", field="from")
    return Window(since, until)


def moment(text: str | None, field: str, *, end: bool = False) -> datetime | None:
    """With `end` the first moment that is past it."""
    if text is None:
        return None
    try:
        if len(text) == len("2026-01-31"):
            day = datetime.combine(date.fromisoformat(text), time(), UTC)
            return day + A_DAY if end else day
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        return found + AN_INSTANT if end else found
    except (ValueError, OverflowError):
        raise InvalidInput(f"{field} must be a moment such as 2026-01-31T12:00:00Z", field=field) from None


def page_of(request: Request) -> Page:
    """The part that is asked for; of a sheet everything."""
    limit = LIMIT.number(request)
    whole = None if wants_sheet(request) else 100
    return Page(whole if limit is None else limit, OFFSET.number(request) or 0)


def cost_query(request: Request, by: Parameter = BY) -> CostQuery:
    kind = KIND.text(request)
    return CostQuery(
        by.text(request) or "task",
        TASK.text(request),
        SANDBOX.text(request),
        WORKSPACE.text(request),
        GROUP.text(request),
        None if kind is None else UseKind(kind),
    )


async def told_tasks(request: Request, billing: Billing, account: str, found: AsyncIterator[TaskBill]) -> Response:
    """Records of usage, as Testbase has them."""
    names: dict[str, str] = {}

    async def rows() -> AsyncIterator[Json]:
        try:
            async for one in found:
                if one.workspace not in names:
                    names.update({one.workspace: one.workspace})
                    names.update(await billing.workspace_names(account, {one.workspace}))
                yield shown_task(one, account, names[one.workspace])
        finally:
            await close_iterator(found)

    return await told(request, rows(), "usage", USAGE_COLUMNS, "records")


async def told_costs(request: Request, query: CostQuery, found: AsyncIterator[UseTotal]) -> Response:
    rows = mapped(found, shown_cost)
    return await told(request, rows, "costs", COST_COLUMNS, more={"by": query.by})


async def told(
    request: Request,
    rows: AsyncIterator[Json],
    name: str,
    columns: tuple[str, ...],
    field: str = "",
    *,
    more: Json | None = None,
) -> Response:
    """The rows as the client wants them: a sheet of this name, or an object with them in its field."""
    if wants_sheet(request):
        return await sheet(rows, columns, name)
    found = await listed(rows)
    return money_response({**(more or {}), "count": len(found), field or name: found})


async def listed(found: AsyncIterator[T]) -> list[T]:
    return [one async for one in found]


async def mapped(found: AsyncIterator[T], shown: Callable[[T], Json]) -> AsyncIterator[Json]:
    """What is shown of each; the source is closed with it."""
    try:
        async for one in found:
            yield shown(one)
    finally:
        await close_iterator(found)
