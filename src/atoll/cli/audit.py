"""`atoll audit`: read, verify and export the events, straight in the database, whether the server runs or not."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from atoll.cli import options, output

if TYPE_CHECKING:
    from datetime import datetime

    from atoll.domain.checkpoint import AuditKey
    from atoll.domain.event import Event
    from atoll.records.base import Records
    from atoll.services.audit.chain_check import Report
    from atoll.settings import Settings
    from atoll.vaults.base import Vault

T = TypeVar("T")
Tenant = Annotated[str | None, typer.Option("--tenant", help="The events of this user, key or group alone.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Read, verify and export the audit trail.", no_args_is_help=True)
    group.command("log")(log)
    group.command("verify")(verify)
    group.command("export")(export)
    group.command("key")(key)
    app.add_typer(group, name="audit", rich_help_panel="Server")


def log(
    tenant: Tenant = None,
    action: Annotated[str | None, typer.Option("--action", help="Such as key.created, or key.* for all.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="The id of what was changed.")] = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Who did it: a name or an id.")] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", help="ok, refused, failed, ...")] = None,
    request: Annotated[str | None, typer.Option("--request", help="The request's id, its X-Request-Id.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="A moment, or how long ago, such as 2h.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Likewise.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="The newest so many.")] = 50,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Who did what to what, the newest last."""
    from dataclasses import replace

    from atoll.cli.failure import MISUSED, Failed
    from atoll.domain.event import EventQuery
    from atoll.domain.webhook import ACTION_PATTERN
    from atoll.services.identity.principals import user_meant

    if action is not None and not ACTION_PATTERN.fullmatch(action):
        raise Failed(f"--action must look like key.created or key.*, not {action!r}", MISUSED)
    query = EventQuery(
        targets=None if target is None else (target,),
        action=action,
        outcome=outcome,
        request_id=request,
        since=_moment(since, "--since"),
        until=_moment(until, "--until"),
        newest_first=True,
        limit=limit,
    )

    async def look(records: Records, *_: object) -> list[Event]:
        of = None if tenant is None else (await user_meant(records, tenant),)
        by = None if actor is None else await user_meant(records, actor)
        return (await records.find_events(replace(query, tenants=of, actor=by)))[::-1]

    found = _with_records(data, look, vaulted=False)
    if as_json:
        output.print_json([_shown(event) for event in found])
        return
    rows = [
        (
            str(event.id),
            event.at.strftime("%Y-%m-%d %H:%M:%S"),
            event.tenant,
            event.actor,
            event.action,
            event.target,
            event.outcome,
            event.request_id or "",
        )
        for event in found
    ]
    heads = ("ID", "AT (UTC)", "TENANT", "ACTOR", "ACTION", "TARGET", "OUTCOME", "REQUEST")
    output.print_table(heads, rows, empty="no events")


def verify(
    tenant: Tenant = None,
    file: Annotated[str | None, typer.Option("--file", help="An export instead of the database; - for stdin.")] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", help="With --file: ID=HEX, who may have signed, as `audit key` says."),
    ] = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Prove that no event was changed, moved, added or taken away. Exit code 1 when one was."""
    if file is None:
        from atoll.services.audit.verifying import verify as verify_records
        from atoll.services.identity.principals import user_meant

        async def look(records: Records, vault: Vault, settings: Settings) -> Report:
            of = None if tenant is None else await user_meant(records, tenant)
            return await verify_records(records, vault, settings.folder.audit_anchor, of)

        report = _with_records(data, look)
    else:
        report = _verify_file(file, keys)
    if as_json:
        output.print_json(
            {
                "ok": report.ok,
                "events": report.events,
                "tenants": report.tenants,
                "checkpoints": report.checkpoints,
                "findings": report.findings,
                "wrong": report.wrong,
                "notes": report.notes,
            }
        )
    else:
        _tell(report)
    if not report.ok:
        raise typer.Exit(1)


def export(
    tenant: Tenant = None,
    to: Annotated[str | None, typer.Option("--output", "-o", help="A new file; default: standard output.")] = None,
    data: options.DataFolder = None,
) -> None:
    """Write events and checkpoints as JSON lines, which `atoll audit verify --file` proves without the database."""
    from atoll.services.audit.exporting import export as lines
    from atoll.services.identity.principals import user_meant

    async def write(records: Records, *_: object) -> None:
        out = sys.stdout if to is None else _new_file(to)
        try:
            async for line in lines(records, None if tenant is None else await user_meant(records, tenant)):
                out.write(line + "\n")
            out.flush()
        finally:
            if to is not None:
                out.close()

    _with_records(data, write, vaulted=False)


def key(
    rotate: Annotated[bool, typer.Option("--rotate", help="Make a new one, for the next start on.")] = False,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Show the public keys (Ed25519) that checkpoints are signed with, oldest first: keep them elsewhere."""
    from atoll.services.audit.signing import Signing

    async def look(records: Records, vault: Vault, _: Settings) -> list[AuditKey]:
        signing = Signing(records, vault)
        if rotate:
            await signing.rotate("cli")
        await signing.current()
        return await records.list_audit_keys()

    found = _with_records(data, look)
    if as_json:
        output.print_json([{"id": one.id, "public": one.public.hex(), "created_at": one.created_at} for one in found])
    else:
        for one in found:
            typer.echo(f"{one.id}={one.public.hex()}")


def _verify_file(name: str, keys: list[str] | None) -> Report:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from atoll.cli.failure import MISUSED, Failed
    from atoll.services.audit.exporting import lines_of, verify_lines

    trusted: dict[str, Any] | None = None
    try:
        if keys:
            pairs = [text.partition("=") for text in keys]
            trusted = {name: Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)) for name, _, public in pairs}
    except ValueError:
        raise Failed("--key must be ID=HEX, as `atoll audit key` shows it", MISUSED) from None
    if name == "-":
        return verify_lines(lines_of(sys.stdin), trusted)
    try:
        with open(name, encoding="utf-8") as source:
            return verify_lines(lines_of(source), trusted)
    except OSError as error:
        raise Failed(f"{name}: {error.strerror}") from None


def _tell(report: Report) -> None:
    looked = f"{report.events} events of {report.tenants} tenants, {report.checkpoints} checkpoints"
    for finding in report.findings:
        typer.echo(finding, err=True)
    if report.wrong > len(report.findings):
        typer.echo(f"... and {report.wrong - len(report.findings)} more", err=True)
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{looked}: all as they were written" if report.ok else f"{looked}: {report.wrong} things are wrong")


def _with_records(
    data: str | None, work: Callable[[Records, Vault, Settings], Awaitable[T]], *, vaulted: bool = True
) -> T:
    import asyncio

    from atoll.adapters import open_store, open_vault
    from atoll.settings import load

    settings = load(overrides={"data": data})
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def run() -> T:
        records, vault = open_store(settings), open_vault(settings)
        try:
            await records.start()
            if vaulted:
                await vault.start()
            return await work(records, vault, settings)
        finally:
            await vault.close()
            await records.close()

    return asyncio.run(run())


def _moment(text: str | None, option: str) -> datetime | None:
    from datetime import UTC, datetime, timedelta

    from atoll.cli import amounts
    from atoll.cli.failure import MISUSED, Failed

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            ago_s = amounts.seconds(text, option) or 0
        except Failed:
            form = "a moment such as 2026-01-31T12:00:00Z, or how long ago, such as 2h"
            raise Failed(f"{option} must be {form}, not {text!r}", MISUSED) from None
        return datetime.now(UTC) - timedelta(seconds=ago_s)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _new_file(name: str) -> Any:
    from atoll.cli.failure import Failed

    try:
        return open(name, "x", encoding="utf-8")
    except OSError as error:
        raise Failed(f"{name}: {error.strerror}") from None


def _shown(event: Event) -> dict[str, object]:
    return {
        "id": event.id,
        "tenant": event.tenant,
        "seq": event.seq,
        "at": event.at,
        "action": event.action,
        "target": event.target,
        "actor": event.actor,
        "credential": event.credential,
        "outcome": event.outcome,
        "request_id": event.request_id,
        "address": event.address,
        "detail": event.detail,
        "previous": event.previous.hex(),
        "hash": event.hash.hex(),
    }
