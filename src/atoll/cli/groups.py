"""`atoll groups`: who shares sandboxes, workspaces and secrets with whom; through the server."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from atoll.cli import output

GROUPS = "/api/groups"
Group = Annotated[str, typer.Argument(metavar="GROUP", help="The group's id or name.")]
Role = Annotated[str, typer.Option("--role", help="viewer: looks; member: runs, changes and makes; admin: all.")]
Who = Annotated[str, typer.Argument(metavar="WHO", help="A user's name or id, or a key's id.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Groups, which share what they own among their members.", no_args_is_help=True)
    group.command("create", no_args_is_help=True)(create)
    group.command("list")(list_)
    group.command("ls", hidden=True)(list_)
    group.command("members", no_args_is_help=True)(members)
    group.command("add", no_args_is_help=True)(add)
    group.command("role", no_args_is_help=True)(role)
    group.command("remove", no_args_is_help=True)(remove)
    group.command("rename", no_args_is_help=True)(rename)
    group.command("rm", no_args_is_help=True)(rm)
    app.add_typer(group, name="groups", rich_help_panel="Server")


async def group_id(name: str) -> str:
    """The id of a group of one's own, by its id or name."""
    from atoll.cli.failure import Failed

    if name.startswith("grp_"):
        return name
    found = [one["id"] for one in (await _call("GET", GROUPS))["groups"] if one["name"] == name]
    if len(found) != 1:
        many = f"{len(found)} groups of yours are called {name!r}: use an id ({', '.join(found)})"
        raise Failed(many if found else f"no group of yours is called {name!r}")
    return found[0]


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    description: Annotated[str | None, typer.Option("--description", help="What it is for.")] = None,
    as_json: output.Json = False,
) -> None:
    """Make a group, with yourself as its admin."""
    made = asyncio.run(_call("POST", GROUPS, {"name": name, "description": description}))
    _print(made, made["id"], as_json)


def list_(as_json: output.Json = False) -> None:
    """List the groups that you belong to."""
    found = asyncio.run(_call("GET", GROUPS))["groups"]
    if as_json:
        output.print_json(found)
        return
    rows = [(one["id"], one["name"], one["role"], one["description"] or "") for one in found]
    output.print_table(("ID", "NAME", "ROLE", "DESCRIPTION"), rows, empty="no groups")


def members(group: Group, as_json: output.Json = False) -> None:
    """List who belongs to a group."""
    found = asyncio.run(_within(group, "GET", "/members"))["members"]
    if as_json:
        output.print_json(found)
        return
    rows = [(one["principal"], one["name"] or "", one["role"]) for one in found]
    output.print_table(("PRINCIPAL", "NAME", "ROLE"), rows)


def add(group: Group, who: Who, role: Role = "member", as_json: output.Json = False) -> None:
    """Add somebody to a group."""
    added = asyncio.run(_within(group, "POST", "/members", {"principal": who, "role": role}))
    _print(added, added["principal"], as_json)


def role(
    group: Group,
    who: Who,
    to: Annotated[str, typer.Argument(metavar="ROLE", help="viewer, member or admin.")],
    as_json: output.Json = False,
) -> None:
    """Say what a member may do."""
    changed = asyncio.run(_within(group, "PATCH", f"/members/{_quoted(who)}", {"role": to}))
    _print(changed, changed["principal"], as_json)


def remove(group: Group, who: Who) -> None:
    """Take somebody out of a group, or leave it."""
    asyncio.run(_within(group, "DELETE", f"/members/{_quoted(who)}"))
    typer.echo(who)


def rename(
    group: Group,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it from now on.")],
    as_json: output.Json = False,
) -> None:
    """Give a group another name."""
    changed = asyncio.run(_within(group, "PATCH", "", {"name": name}))
    _print(changed, changed["id"], as_json)


def rm(group: Group) -> None:
    """Delete a group that owns nothing."""
    asyncio.run(_within(group, "DELETE", ""))
    typer.echo(group)


async def _within(group: str, method: str, path: str, body: Any = None) -> Any:
    return await _call(method, f"{GROUPS}/{await group_id(group)}{path}", body)


async def _call(method: str, path: str, body: Any = None) -> Any:
    from atoll.sdk._async.api import connect

    return await connect().call(method, path, body)


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _print(found: Any, text: str, as_json: bool) -> None:
    if as_json:
        output.print_json(found)
    else:
        typer.echo(text)
