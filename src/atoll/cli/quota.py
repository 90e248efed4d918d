"""`atoll quota`: who may use how much, and does; straight in the database, whether the server runs or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from atoll.cli import options, output
from atoll.cli.amounts import bytes_of

if TYPE_CHECKING:
    from atoll.services.quota_overrides import QuotaOverrides, QuotaStanding

T = TypeVar("T")
UNLIMITED = "unlimited"


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Who may use how much.", no_args_is_help=True)
    group.command("show")(show)
    group.command("set", no_args_is_help=True)(set_)
    group.command("unset", no_args_is_help=True)(unset)
    app.add_typer(group, name="quota", rich_help_panel="Server")


def show(
    subject: options.AnySubject = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Show what somebody may use and uses; without an id, for whom something is set."""
    from atoll.services.identity.users import OPERATOR

    if subject is None:
        found = _with_quotas(data, lambda quotas: quotas.list(OPERATOR))
        if as_json:
            output.print_json({one.subject: {name.value: most for name, most in one.amounts.items()} for one in found})
            return
        rows = [
            (one.subject, name.value, _shown(name.value, most)) for one in found for name, most in one.amounts.items()
        ]
        output.print_table(("ID", "QUOTA", "LIMIT"), rows, empty="nothing is set for anybody: the plans hold")
        return
    _print(_with_quotas(data, lambda quotas: quotas.get(OPERATOR, subject)), as_json)


def set_(
    subject: options.Subject,
    amounts: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=AMOUNT...", help="Such as concurrent_sandboxes=20 or memory_bytes=4g; or unlimited."
        ),
    ],
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Set quotas of a user, a group or a key, in place of what its plan says."""
    from atoll.services.identity.users import OPERATOR

    wanted = dict(map(parsed, amounts))
    _print(_with_quotas(data, lambda quotas: quotas.change(OPERATOR, subject, wanted)), as_json)


def unset(
    subject: options.Subject,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Default: all of them.", show_default=False)
    ] = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Go back to what the plan says."""
    from atoll.services.identity.users import OPERATOR

    _print(_with_quotas(data, lambda quotas: quotas.clear(OPERATOR, subject, names or ())), as_json)


def _with_quotas(data: str | None, work: Callable[[QuotaOverrides], Awaitable[T]]) -> T:
    import asyncio

    from atoll.adapters import open_store
    from atoll.limits import quota_limits
    from atoll.services.quota_overrides import QuotaOverrides
    from atoll.services.quotas import Quotas
    from atoll.settings import load

    settings = load(overrides={"data": data})
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def run() -> T:
        records = open_store(settings)
        try:
            await records.start()
            return await work(QuotaOverrides(records, Quotas(records, quota_limits(settings))))
        finally:
            await records.close()

    return asyncio.run(run())


def _print(standing: QuotaStanding, as_json: bool) -> None:
    if as_json:
        shown = [
            {"name": use.name.value, "limit": use.limit, "used": use.used, "remaining": use.remaining}
            for use in standing.uses
        ]
        overrides = {name.value: amount for name, amount in standing.overrides.items()}
        output.print_json(
            {"id": standing.subject, "plan": standing.plan, "quotas": shown, "overrides": overrides},
        )
        return
    rows = [
        (
            use.name.value,
            _shown(use.name.value, use.used),
            _shown(use.name.value, use.limit),
            "set" if use.name in standing.overrides else "",
        )
        for use in standing.uses
    ]
    output.print_table(("QUOTA", "USED", "LIMIT", ""), rows)


def _shown(name: str, amount: float | None) -> str:
    if amount is None:
        return UNLIMITED
    return output.size(int(amount)) if "bytes" in name else str(amount)


def parsed(text: str) -> tuple[str, int | None]:
    """`NAME=AMOUNT`; Failed for what is none."""
    from atoll.cli.failure import MISUSED, Failed

    name, equals, amount = text.partition("=")
    if not equals or not name or not amount:
        raise Failed(f"NAME=AMOUNT, such as concurrent_sandboxes=20 or memory_bytes={UNLIMITED}; not {text!r}", MISUSED)
    if amount == UNLIMITED:
        return name, None
    if amount.isascii() and amount.isdigit():
        return name, int(amount)
    if "bytes" not in name:
        raise Failed(f"{name} must be a whole number or {UNLIMITED}, not {amount!r}", MISUSED)
    return name, bytes_of(amount, name)
