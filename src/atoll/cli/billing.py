"""`atoll billing`: credits, limits and bills of any account, straight in the database, also while the server runs; and
of one's own, through the server."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from atoll.cli import options, output

if TYPE_CHECKING:
    from atoll.domain.ledger import BillingAccount
    from atoll.services.billing import Billing, Page, Window
    from atoll.services.billing_admin import BillingAdmin, Named

T = TypeVar("T")
Row = dict[str, Any]
NO_LIMIT = "none"
_NEGATIVE = {"ignore_unknown_options": True}  # an amount below 0 is no option
_Subject = Annotated[
    str, typer.Argument(metavar="ID", help="A user's name, or the id of a user, a key or a group.", show_default=False)
]
_OwnSubject = Annotated[
    str | None,
    typer.Argument(metavar="[ID]", help="A name or an id. Default: whose ATOLL_API_KEY is.", show_default=False),
]
_Amount = Annotated[str, typer.Argument(metavar="DOLLARS", help="Such as 10 or 0.50.", show_default=False)]
_Description = Annotated[str, typer.Option("--description", help="What the transaction says.")]
_Once = Annotated[
    str | None,
    typer.Option("--once", metavar="KEY", help="A text of yours: given again with it, nothing moves a second time."),
]
_From = Annotated[str | None, typer.Option("--from", help="From this day or moment on (UTC).")]
_To = Annotated[str | None, typer.Option("--to", help="Up to this day or moment, which is included.")]
_Limit = Annotated[int | None, typer.Option("--limit", help="At most so many. Default: 100; of CSV: all.")]
_Csv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
_ASKED_MAX = 1_000  # rows in one answer


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Credits, limits and bills.", no_args_is_help=True)
    group.command("account")(account)
    group.command("credit", no_args_is_help=True, context_settings=_NEGATIVE)(credit)
    group.command("refund", no_args_is_help=True)(refund)
    group.command("limits", no_args_is_help=True)(limits)
    group.command("usage")(usage)
    group.command("transactions")(transactions)
    group.command("costs")(costs)
    app.add_typer(group, name="billing", rich_help_panel="Server")


def account(
    subject: options.AnySubject = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Show somebody's balance, what was spent, and the limits; without an id, those of all accounts."""

    async def look(admin: BillingAdmin, _: Billing) -> list[Row]:
        from atoll.services.identity.users import OPERATOR
        from atoll.surfaces.testbase.billing_rows import shown_account

        if subject is not None:
            named, found = await admin.account(OPERATOR, subject)
            return [shown_account(found, named.subject)]
        return [shown_account(one, one.id) async for one in admin.accounts(OPERATOR)]

    rows = _with_billing(data, look)
    if as_json:
        _print_json(rows if subject is None else rows[0])
        return
    columns = ("id", "creditsBalance", "totalSpent", "dailyLimit", "monthlyLimit")
    _print_table(rows, columns, ("ID", "BALANCE", "SPENT", "A DAY", "A MONTH"), "no account yet")


def credit(
    subject: _Subject,
    amount: _Amount,
    description: _Description = "",
    once: _Once = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Give credits, in dollars; an amount below 0 takes them back."""
    _move("credit", subject, amount, description, once, data, as_json)


def refund(
    subject: _Subject,
    amount: _Amount,
    description: _Description = "",
    once: _Once = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Give back what was charged, in dollars."""
    _move("refund", subject, amount, description, once, data, as_json)


def _move(
    kind: Literal["credit", "refund"],
    subject: str,
    amount: str,
    description: str,
    once: str | None,
    data: str | None,
    as_json: bool,
) -> None:
    """Put dollars into an account, and print it."""
    micro = _micro(amount, "DOLLARS")

    async def give(admin: BillingAdmin, _: Billing) -> tuple[Named, BillingAccount]:
        from atoll.services.identity.users import OPERATOR

        moved = admin.credit if kind == "credit" else admin.refund
        return await moved(OPERATOR, subject, micro, description=description, key=_key(once))

    _print_account(_with_billing(data, give), as_json)


def limits(
    subject: _Subject,
    daily: Annotated[str | None, typer.Option("--daily", help=f"Dollars a day (UTC), or {NO_LIMIT}.")] = None,
    monthly: Annotated[str | None, typer.Option("--monthly", help=f"Dollars a month (UTC), or {NO_LIMIT}.")] = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Bound what an account may spend; what is not named stays as it is."""
    from atoll.services.billing_admin import KEEP, LimitChange

    def change(text: str | None, option: str) -> LimitChange:
        return KEEP if text is None else None if text == NO_LIMIT else _micro(text, option)

    to_day, to_month = change(daily, "--daily"), change(monthly, "--monthly")

    async def set_(admin: BillingAdmin, _: Billing) -> tuple[Named, BillingAccount]:
        from atoll.services.identity.users import OPERATOR

        return await admin.set_limits(OPERATOR, subject, daily=to_day, monthly=to_month)

    _print_account(_with_billing(data, set_), as_json)


def usage(
    subject: _OwnSubject = None,
    since: _From = None,
    until: _To = None,
    limit: _Limit = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
    as_csv: _Csv = False,
) -> None:
    """Show what each task of an account used, newest first."""
    from atoll.surfaces.testbase.billing_rows import USAGE_COLUMNS, shown_task

    window, page = _window(since, until), _page(limit, as_csv)

    def show(rows: list[Row]) -> None:
        heads = ("TASK", "ENDED", "STATUS", "WORKSPACE", "MODEL", "INPUT", "OUTPUT", "COST")
        columns = ("id", "timestamp", "status", "workspaceId", "model", "inputTokens", "outputTokens", "totalCost")
        _print(rows, USAGE_COLUMNS, (columns, heads), as_json, as_csv, "no task has ended")

    if subject is None:
        show(_own("usage", "records", page, {"from": since, "to": until}))
        return

    async def look(admin: BillingAdmin, billing: Billing) -> list[Row]:
        from atoll.services.identity.users import OPERATOR

        named, found = await admin.tasks(OPERATOR, subject, window, page)
        bills = [one async for one in found]
        names = await billing.workspace_names(named.account, {one.workspace for one in bills})
        return [shown_task(one, named.account, names.get(one.workspace, one.workspace)) for one in bills]

    show(_with_billing(data, look))


def transactions(
    subject: _OwnSubject = None,
    kind: Annotated[str | None, typer.Option("--type", help="Such as credit_purchase or usage_deduction.")] = None,
    since: _From = None,
    until: _To = None,
    limit: _Limit = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
    as_csv: _Csv = False,
) -> None:
    """Show what an account was given and charged, newest first."""
    from atoll.domain.ledger import TransferKind
    from atoll.surfaces.testbase.billing_rows import TRANSACTION_COLUMNS, shown_transfer

    window, page = _window(since, until), _page(limit, as_csv)
    wanted = None if kind is None else TransferKind(_one_of(kind, [one.value for one in TransferKind], "--type"))

    def show(rows: list[Row]) -> None:
        heads = ("ID", "AT", "TYPE", "AMOUNT", "BALANCE", "DESCRIPTION")
        columns = ("id", "timestamp", "type", "amount", "balanceAfter", "description")
        _print(rows, TRANSACTION_COLUMNS, (columns, heads), as_json, as_csv, "no transaction yet")

    if subject is None:
        show(_own("transactions", "transactions", page, {"from": since, "to": until, "type": kind}))
        return

    async def look(admin: BillingAdmin, _: Billing) -> list[Row]:
        from atoll.services.identity.users import OPERATOR

        named, found = await admin.transfers(OPERATOR, subject, window, page, kind=wanted)
        return [shown_transfer(one, named.subject) async for one in found]

    show(_with_billing(data, look))


def costs(
    subject: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Whose. Default: everybody's.", show_default=False),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="account, task, sandbox, workspace, group, model, kind or day.")
    ] = "account",
    internal: Annotated[
        bool, typer.Option("--internal", help="Only what nobody is charged for. Default: that too.")
    ] = False,
    since: _From = None,
    until: _To = None,
    limit: _Limit = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
    as_csv: _Csv = False,
) -> None:
    """Show what was used, the dearest first."""
    from atoll.services.billing import BY, CostQuery
    from atoll.surfaces.testbase.billing_rows import COST_COLUMNS, shown_cost

    window, page = _window(since, until), _page(limit, as_csv)
    query = CostQuery(_one_of(by, sorted(BY), "--by"))

    async def look(admin: BillingAdmin, _: Billing) -> list[Row]:
        from atoll.services.identity.users import OPERATOR

        found = await admin.costs(OPERATOR, subject, query, window, page, internal=internal or None)
        return [shown_cost(one) async for one in found]

    heads = (by.upper(), "USES", "INPUT", "OUTPUT", "COST", "CHARGED")
    columns = ("name", "uses", "inputTokens", "outputTokens", "totalCost", "charged")
    _print(_with_billing(data, look), COST_COLUMNS, (columns, heads), as_json, as_csv, "nothing was used")


def _with_billing(data: str | None, work: Callable[[BillingAdmin, Billing], Awaitable[T]]) -> T:
    """What `work` makes of the accounts of the installation in `data`."""
    from atoll.adapters import open_store
    from atoll.limits import price_table
    from atoll.services.billing import Billing
    from atoll.services.billing_admin import BillingAdmin
    from atoll.services.ledger.ledger import Ledger
    from atoll.settings import load

    settings = load(overrides={"data": data})
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def run() -> T:
        records = open_store(settings)
        try:
            await records.start()
            ledger = Ledger(records, price_table(settings))
            billing = Billing(records, ledger)
            return await work(BillingAdmin(records, ledger, billing), billing)
        finally:
            await records.close()

    import asyncio

    return asyncio.run(run())


def _own(bill: str, field: str, page: Page, query: dict[str, str | None]) -> list[Row]:
    """The rows of a bill of whoever ATOLL_API_KEY belongs to, as the server tells them."""
    from atoll.cli.failure import MISUSED, Failed
    from atoll.sdk._async.api import connect
    from atoll.sdk.requests import target_of

    if not os.environ.get("ATOLL_API_KEY"):
        raise Failed(f"ID is missing: atoll billing {bill} ID; without one it is the account of ATOLL_API_KEY", MISUSED)

    async def ask() -> list[Row]:
        api, rows = connect(None, None), list[Row]()
        while page.limit is None or len(rows) < page.limit:
            most = min(_ASKED_MAX, _ASKED_MAX if page.limit is None else page.limit - len(rows))
            target = target_of(f"/billing/{bill}", limit=most, offset=len(rows), **query)
            found = (await api.call("GET", target))[field]
            rows += found
            if len(found) < most:
                break
        return rows

    import asyncio

    return [{name: _exact(value) for name, value in row.items()} for row in asyncio.run(ask())]


def _exact(value: Any) -> Any:
    """An amount as it was told, and not as floats are printed."""
    from decimal import Decimal

    return Decimal(repr(value)) if isinstance(value, float) else value


def _micro(text: str, option: str) -> int:
    from atoll.cli.failure import MISUSED, Failed
    from atoll.domain.errors import InvalidInput
    from atoll.domain.money import micro_usd

    try:
        return micro_usd(text, field=option)
    except InvalidInput as error:
        raise Failed(f"{error.message}, not {text!r}", MISUSED) from None


def _one_of(text: str, known: Sequence[str], option: str) -> str:
    from atoll.cli.failure import MISUSED, Failed

    if text not in known:
        raise Failed(f"{option} must be one of {', '.join(known)}, not {text!r}", MISUSED)
    return text


def _key(once: str | None) -> str | None:
    from atoll.domain.idempotency import key_hash

    return None if once is None else key_hash("cli", once)


def _window(since: str | None, until: str | None) -> Window:
    from atoll.services.billing import Window
    from atoll.surfaces.testbase.billing import moment

    return Window(moment(since, "--from"), moment(until, "--to", end=True))


def _page(limit: int | None, as_csv: bool) -> Page:
    from atoll.services.billing import Page

    return Page(limit if limit is not None else None if as_csv else 100)


def _print_account(done: tuple[Named, BillingAccount], as_json: bool) -> None:
    from atoll.surfaces.testbase.billing_rows import shown_account

    row = shown_account(done[1], done[0].subject)
    if as_json:
        _print_json(row)
        return
    columns = ("id", "creditsBalance", "totalSpent", "dailyLimit", "monthlyLimit")
    _print_table([row], columns, ("ID", "BALANCE", "SPENT", "A DAY", "A MONTH"), "")


def _print(
    rows: list[Row],
    all_columns: Sequence[str],
    table: tuple[Sequence[str], Sequence[str]],
    as_json: bool,
    as_csv: bool,
    empty: str,
) -> None:
    if as_json:
        _print_json(rows)
    elif as_csv:
        _print_csv(rows, all_columns)
    else:
        _print_table(rows, table[0], table[1], empty)


def _print_json(value: Any) -> None:
    from atoll.surfaces.money import money_json

    typer.echo(money_json(value).decode())


def _print_csv(rows: list[Row], columns: Sequence[str]) -> None:
    import csv
    import sys

    from atoll.surfaces.sheets import cell

    writer = csv.writer(sys.stdout)
    writer.writerow(columns)
    writer.writerows([cell(row[column]) for column in columns] for row in rows)


def _print_table(rows: list[Row], columns: Sequence[str], heads: Sequence[str], empty: str) -> None:
    from atoll.surfaces.sheets import cell

    output.print_table(heads, [[cell(row[column]) for column in columns] for row in rows], empty=empty)
