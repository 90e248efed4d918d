"""`atoll keys`: make, list, renew and end API keys, straight in the database, whether the server runs or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from atoll.cli import amounts, options, output

if TYPE_CHECKING:
    from atoll.domain.key import ApiKey
    from atoll.domain.rate import Rate
    from atoll.records.base import Records
    from atoll.services.keys import Keys
    from atoll.services.new_keys import NewKey

T = TypeVar("T")
DAY_S = 86_400.0


def add_to(app: typer.Typer) -> None:
    from atoll.cli import access_keys, key_use

    group = typer.Typer(help="Make, list, renew and end API keys.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(list_)
    group.command("revoke", no_args_is_help=True)(revoke)
    group.command("rotate", no_args_is_help=True)(rotate)
    group.command("delete", no_args_is_help=True)(delete)
    group.command("usage", no_args_is_help=True)(key_use.usage)
    group.command("requests")(key_use.requests)
    access_keys.add_to(group)
    app.add_typer(group, name="keys", rich_help_panel="Server")


def create(
    name: Annotated[str, typer.Option("--name", help="What it is for.")],
    kind: Annotated[str, typer.Option("--kind", help="standard, or internal or owner: without quota.")] = "standard",
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="execute, read or write; repeatable; default: all three.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="After how long it ends by itself, such as 30d.")
    ] = None,
    description: Annotated[str, typer.Option("--description", help="More about it.")] = "",
    prefix: Annotated[str, typer.Option("--prefix", help="What its text begins with.")] = "sk_",
    plan: Annotated[str, typer.Option("--plan", help="Whose quotas hold, such as free, starter, pro.")] = "",
    rate: Annotated[
        str | None, typer.Option("--rate", help="Requests a second, and at once, such as 5 or 5,20. Default: settings.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="OWNER",
            help="Whose: a user's name or id, or the id of a group or of a key, dead or alive.",
        ),
    ] = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Make a key. Its text is shown now and never again."""
    from atoll.cli import key_owners
    from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope

    kind_of = _choice(kind, KeyKind, "--kind")
    scopes_of = frozenset(_choice(scope, Scope, "--scope") for scope in scopes or DEFAULT_SCOPES)
    expires_s = amounts.seconds(expires, "--expires")
    days = None if expires_s is None else expires_s / DAY_S
    rate_of = _rate(rate)
    owner_of = "" if owner is None else with_records(data, lambda records: key_owners.named(records, owner))

    async def make(keys: Keys) -> NewKey:
        return await keys.create(
            name,
            kind=kind_of,
            scopes=scopes_of,
            expires_in_days=days,
            prefix=prefix,
            plan=plan,
            description=description,
            rate=rate_of,
            owner=owner_of,
            actor="cli",
        )

    _show_new(with_keys(data, make), as_json)


def list_(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Revoked ones too.")] = False,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """List keys: ids, names and beginnings, never the keys themselves."""

    async def look(keys: Keys) -> list[tuple[ApiKey, bool]]:
        found = await keys.list(include_revoked=everything)
        return [(key, (await keys.as_it_stands(key)).revoked_at != key.revoked_at) for key in found]

    found = with_keys(data, look)
    if as_json:
        output.print_json([_shown(key) | {"ended_with_parent": ended} for key, ended in found])
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
            "" if key.owner == key.id else key.owner,
            key.plan,
            _state(key, ended),
        )
        for key, ended in found
    ]
    columns = ("ID", "NAME", "KEY", "KIND", "SCOPES", "AGE", "USED", "OWNER", "PLAN", "STATE")
    output.print_table(columns, rows, empty="no keys")


def revoke(
    key_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, as atoll keys list shows them.")],
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """End keys. A server that runs refuses them within seconds."""

    async def end(keys: Keys) -> list[ApiKey]:
        return [await keys.revoke(key_id, actor="cli") for key_id in key_ids]

    from atoll.cli import key_owners

    ended = with_keys(data, end)
    for note in with_records(data, lambda records: key_owners.left_behind(records, ended)):
        typer.echo(note, err=True)
    if as_json:
        output.print_json([_shown(key) for key in ended])
    else:
        for key in ended:
            typer.echo(key.id)


def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, as atoll keys list shows it.")],
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Give a key another text. The old one opens nothing any more, at a server that runs within seconds."""

    async def renew(keys: Keys) -> NewKey:
        return await keys.rotate(key_id, actor="cli")

    _show_new(with_keys(data, renew), as_json)


def delete(
    key_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, as atoll keys list shows them.")],
    data: options.DataFolder = None,
) -> None:
    """End and forget keys, with what they were used for. What they own stays, and their events do."""

    async def forget(keys: Keys) -> None:
        for key_id in key_ids:
            await keys.delete(key_id, actor="cli")
            typer.echo(key_id)

    with_keys(data, forget)


def _show_new(made: NewKey, as_json: bool) -> None:
    if as_json:
        output.print_json({"id": made.key.id, "key": made.text})
    else:
        typer.echo(made.text)
        typer.echo(f"{made.key.id}: keep the key above, it cannot be shown again", err=True)


def _rate(text: str | None) -> Rate | None:
    """`5` or `5,20`: so many a second, so many at once."""
    from atoll.cli.failure import MISUSED, Failed
    from atoll.domain.rate import Rate

    if text is None:
        return None
    per_s, _, burst = text.partition(",")
    try:
        return Rate(float(per_s), int(burst) if burst else max(1, round(4 * float(per_s))))
    except (ValueError, OverflowError):
        raise Failed(f"--rate must look like 5 or 5,20, not {text!r}", MISUSED) from None


def with_keys(data: str | None, work: Callable[[Keys], Awaitable[T]]) -> T:
    """What `work` makes of the keys of the installation in `data`."""
    from atoll.limits import quota_limits
    from atoll.services.keys import Keys
    from atoll.settings import load

    plans = quota_limits(load(overrides={"data": data})).plans
    return with_records(data, lambda records: work(Keys(records, plans=plans)))


def with_records(data: str | None, work: Callable[[Records], Awaitable[T]]) -> T:
    """What `work` makes of the records of the installation in `data`."""
    import asyncio

    from atoll.adapters import open_store
    from atoll.settings import load

    settings = load(overrides={"data": data})
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def run() -> T:
        records = open_store(settings)
        try:
            await records.start()
            return await work(records)
        finally:
            await records.close()

    return asyncio.run(run())


def _state(key: ApiKey, ended_with_parent: bool) -> str:
    if ended_with_parent:
        return "ended with its parent"
    return "revoked" if key.revoked_at else "active" if key.usable() else "expired"


def _shown(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "kind": key.kind,
        "scopes": key.scopes,
        "owner": key.owner,
        "parent": key.parent,
        "plan": key.plan,
        "description": key.description,
        "rate": None if key.rate is None else {"per_s": key.rate.per_s, "burst": key.rate.burst},
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
