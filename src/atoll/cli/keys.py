"""`atoll keys`: make, list and revoke API keys, straight in the database, whether the server runs or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from atoll.cli import amounts, options, output

if TYPE_CHECKING:
    from atoll.domain.key import ApiKey
    from atoll.services.keys import Keys, NewKey

T = TypeVar("T")
DAY_S = 86_400.0


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(list_)
    group.command("revoke", no_args_is_help=True)(revoke)
    app.add_typer(group, name="keys", rich_help_panel="Server")


def create(
    name: Annotated[str, typer.Option("--name", help="What it is for.")],
    kind: Annotated[str, typer.Option("--kind", help="standard, or internal or owner: without quota.")] = "standard",
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="execute, read or write; repeatable; default: all.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="After how long it ends by itself, such as 30d.")
    ] = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Make a key. Its text is shown now and never again."""
    from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope

    kind_of = _choice(kind, KeyKind, "--kind")
    scopes_of = frozenset(_choice(scope, Scope, "--scope") for scope in scopes or DEFAULT_SCOPES)
    expires_s = amounts.seconds(expires, "--expires")
    days = None if expires_s is None else expires_s / DAY_S

    async def make(keys: Keys) -> NewKey:
        return await keys.create(name, kind=kind_of, scopes=scopes_of, expires_in_days=days, actor="cli")

    made = _with_keys(data, make)
    if as_json:
        output.print_json({"id": made.key.id, "key": made.text})
    else:
        typer.echo(made.text)
        typer.echo(f"{made.key.id}: keep the key above, it cannot be shown again", err=True)


def list_(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Revoked ones too.")] = False,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """List keys: ids, names and beginnings, never the keys themselves."""

    async def look(keys: Keys) -> list[ApiKey]:
        return await keys.list(include_revoked=everything)

    found = _with_keys(data, look)
    if as_json:
        output.print_json([_shown(key) for key in found])
        return
    rows = [
        (
            key.id,
            key.name,
            key.prefix + "…",
            key.kind.value,
            ",".join(sorted(key.scopes)),
            output.age(key.created_at),
            output.age(key.last_used_at),
            "revoked" if key.revoked_at else "active" if key.usable() else "expired",
        )
        for key in found
    ]
    output.print_table(("ID", "NAME", "KEY", "KIND", "SCOPES", "AGE", "USED", "STATE"), rows, empty="no keys")


def revoke(
    key_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, as atoll keys list shows them.")],
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """End keys. A server that runs refuses them within seconds."""

    async def end(keys: Keys) -> list[ApiKey]:
        return [await keys.revoke(key_id, actor="cli") for key_id in key_ids]

    ended = _with_keys(data, end)
    if as_json:
        output.print_json([_shown(key) for key in ended])
    else:
        for key in ended:
            typer.echo(key.id)


def _with_keys(data: str | None, work: Callable[[Keys], Awaitable[T]]) -> T:
    import asyncio

    from atoll.app import open_store
    from atoll.services.keys import Keys
    from atoll.settings import load

    settings = load(overrides={"data": data})
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def run() -> T:
        records = open_store(settings)
        try:
            await records.start()
            return await work(Keys(records))
        finally:
            await records.close()

    return asyncio.run(run())


def _shown(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "kind": key.kind,
        "scopes": key.scopes,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


def _choice(text: str, kinds: type[T], option: str) -> T:
    from atoll.cli.failure import MISUSED, Failed

    try:
        return kinds(text)  # type: ignore[call-arg]
    except ValueError:
        names = ", ".join(str(kind) for kind in kinds)  # type: ignore[attr-defined]
        raise Failed(f"{option} must be one of {names}, not {text!r}", MISUSED) from None
