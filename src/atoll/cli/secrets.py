"""`atoll secrets`: values that the server keeps and gives to processes; a value is never an argument, nor printed."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from atoll.cli import output

VALUE_BYTES_MAX = 64 * 2**10
Group = Annotated[str | None, typer.Option("--group", help="Of this group, instead of one's own.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What to call it: a variable's name.")]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="A host that a brokered one may be sent to, *.example.org too; repeatable."),
]
Description = Annotated[str | None, typer.Option("--description", help="What it is for.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Values for processes, which nobody can read back.", no_args_is_help=True)
    group.command("set", no_args_is_help=True)(set_)
    group.command("change", no_args_is_help=True)(change)
    group.command("list")(list_)
    group.command("ls", hidden=True)(list_)
    group.command("delete", no_args_is_help=True)(delete)
    group.command("rm", hidden=True)(delete)
    app.add_typer(group, name="secrets", rich_help_panel="Sandboxes")


def set_(
    name: Name,
    host: Hosts = None,
    description: Description = None,
    group: Group = None,
    keep_newline: Annotated[
        bool, typer.Option("--keep-newline", help="Keep the newline at the end of what is read.")
    ] = False,
    as_json: output.Json = False,
) -> None:
    """Keep a value, read from standard input or asked for: [bold]atoll secrets set TOKEN < token.txt[/bold]

    One that is there gets a new value: processes that start from then on have that.
    """
    from atoll.sdk import AsyncSecrets

    value = _value(keep_newline)
    done = asyncio.run(AsyncSecrets(group=group).set(name, value, hosts=host, description=description))
    if as_json:
        output.print_json(done.raw)
    else:
        typer.echo(done.id)


def change(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name or id.")],
    host: Hosts = None,
    no_hosts: Annotated[bool, typer.Option("--no-hosts", help="It may be sent nowhere any more.")] = False,
    description: Description = None,
    group: Group = None,
    as_json: output.Json = False,
) -> None:
    """Change where a brokered one may be sent, or what it is for; its value stays."""
    from atoll.cli.failure import MISUSED, Failed
    from atoll.sdk import AsyncSecrets

    if host and no_hosts:
        raise Failed("--host and --no-hosts contradict each other", MISUSED)
    hosts = [] if no_hosts else host
    if hosts is None and description is None:
        raise Failed(
            "nothing to change: --host, --no-hosts or --description; `atoll secrets set` renews the value", MISUSED
        )
    done = asyncio.run(AsyncSecrets(group=group).change(name, hosts=hosts, description=description))
    if as_json:
        output.print_json(done.raw)
    else:
        typer.echo(done.id)


def list_(group: Group = None, as_json: output.Json = False) -> None:
    """Their names and what is known of them; nothing shows a value."""
    from atoll.sdk import AsyncSecrets

    found = asyncio.run(AsyncSecrets(group=group).list())
    if as_json:
        output.print_json([one.raw for one in found])
        return
    rows = [
        (
            f"{one.group}/{one.name}" if one.group and not group else one.name,
            one.id,
            one.version,
            output.age(one.rotated_at or one.created_at),
            " ".join(one.hosts),
            one.description,
        )
        for one in found
    ]
    output.print_table(("NAME", "ID", "VERSION", "AGE", "HOSTS", "DESCRIPTION"), rows, empty="no secrets")


def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names or ids; of a group: GROUP/NAME.")],
    group: Group = None,
    as_json: output.Json = False,
) -> None:
    """Forget them. Processes that have one keep it; rotate it where it came from, too."""
    from atoll.sdk import AsyncSecrets

    async def drop() -> None:
        for name in names:
            await AsyncSecrets(group=group).delete(name)

    asyncio.run(drop())
    if as_json:
        output.print_json({"deleted": names})
    else:
        for name in names:
            typer.echo(name)


def _value(keep_newline: bool) -> bytes:
    from atoll.cli.failure import MISUSED, Failed

    if sys.stdin is None:
        raise Failed("there is no standard input to read the value from", MISUSED)
    if sys.stdin.isatty():
        value = typer.prompt("Value", hide_input=True, err=True).encode()
    else:
        value = sys.stdin.buffer.read(VALUE_BYTES_MAX + 3)
        if not keep_newline:
            value = value.removesuffix(b"\n").removesuffix(b"\r")
    if not value:
        raise Failed("the value is empty", MISUSED)
    if len(value) > VALUE_BYTES_MAX:
        raise Failed(f"the value has more than {VALUE_BYTES_MAX} bytes", MISUSED)
    return value
