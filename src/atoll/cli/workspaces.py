"""`atoll workspace`: make, list, describe, share and delete workspaces; `history` and `archives` have the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from atoll.cli import output

if TYPE_CHECKING:
    from atoll.sdk import AsyncWorkspace, WorkspaceInfo

T = TypeVar("T")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The workspace's name or id; another's: OWNER/NAME.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A word to find it by; repeatable.")]
Quota = Annotated[str | None, typer.Option("--quota", help="Bytes that it may hold, such as 10g.")]
Inodes = Annotated[int | None, typer.Option("--inodes", help="Files and directories that it may hold.")]
Description = Annotated[str | None, typer.Option("--description", help="What it is for.")]


def add_to(app: typer.Typer) -> None:
    from atoll.cli import archives, history

    group = typer.Typer(
        help="File trees that outlive sandboxes, with all that they were: look back, undo, fork, merge, share.",
        no_args_is_help=True,
    )
    group.command("create", no_args_is_help=True)(create)
    group.command("list")(list_)
    group.command("ls", hidden=True)(list_)
    group.command("info", no_args_is_help=True)(info)
    group.command("tag", no_args_is_help=True)(tag)
    group.command("set", no_args_is_help=True)(set_)
    group.command("rm", no_args_is_help=True)(rm)
    group.command("share", no_args_is_help=True)(share)
    group.command("unshare", no_args_is_help=True)(unshare)
    history.add_to(group)
    archives.add_to(group)
    app.add_typer(group, name="workspace", rich_help_panel="Workspaces")
    app.command("workspaces", hidden=True)(list_)


def with_workspace(name: str, work: Callable[[AsyncWorkspace], Awaitable[T]]) -> T:
    """Find it and do the work."""

    async def run() -> T:
        from atoll.sdk import AsyncWorkspace

        return await work(await AsyncWorkspace.get(name))

    return asyncio.run(run())


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    description: Description = None,
    tags: Tags = None,
    quota: Quota = None,
    inodes: Inodes = None,
    automatic: Annotated[
        bool, typer.Option("--automatic/--no-automatic", help="Take revisions after processes and daily.")
    ] = True,
    group: Annotated[
        str | None, typer.Option("--group", help="It belongs to this group (its id or name), instead of to you.")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Make an empty one: [bold]atoll workspace create project --tag demo --quota 2g[/bold]"""
    from atoll.cli import amounts
    from atoll.cli.failure import call_fields
    from atoll.sdk import AsyncWorkspace

    call_fields({"name": "NAME"})
    fields: dict[str, Any] = {
        "description": description,
        "tags": tags,
        "quota_bytes": amounts.bytes_of(quota, "--quota"),
        "quota_inodes": inodes,
        "automatic": None if automatic else False,
    }

    async def make() -> WorkspaceInfo:
        if group is not None:
            from atoll.cli.groups import group_id

            fields["group"] = await group_id(group)
        return (await AsyncWorkspace.create(name, **fields)).found

    _print(asyncio.run(make()), as_json)


def list_(
    tag: Annotated[str | None, typer.Option("--tag", help="Only those with this tag.")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Only those that others share with you.")] = False,
    own: Annotated[bool, typer.Option("--own", help="Only your own.")] = False,
    as_json: output.Json = False,
) -> None:
    """List your own and, as OWNER/NAME, those that others share with you; the newest first."""
    from atoll.cli.failure import MISUSED, Failed
    from atoll.sdk import AsyncWorkspace

    if shared and own:
        raise Failed("--shared and --own exclude each other", MISUSED)
    found = asyncio.run(AsyncWorkspace.list(tag=tag, shared=not own))
    found = [info for info in found if not shared or info.permission != "owner"]
    if as_json:
        output.print_json([info.raw for info in found])
        return
    rows = [
        (
            info.full_name,
            info.id,
            info.head.number if info.head else "-",
            info.head.entries if info.head else "-",
            output.size(info.head.bytes) if info.head else "-",
            info.permission,
            ",".join(info.tags),
            output.age(info.updated_at),
        )
        for info in found
    ]
    columns = ("NAME", "ID", "REVISION", "ENTRIES", "SIZE", "PERMISSION", "TAGS", "CHANGED")
    empty = "nobody shares a workspace with you" if shared else "no workspaces"
    hint = "" if shared else ": atoll workspace create NAME, or atoll sync ./dir ws:NAME"
    output.print_table(columns, rows, empty=empty + hint)


def info(name: Name, as_json: output.Json = False) -> None:
    """Describe one: its size, quota, tags, collaborators, and where it is mounted."""

    async def look(workspace: AsyncWorkspace) -> tuple[WorkspaceInfo, dict[str, str]]:
        found = workspace.found
        if found.permission not in ("owner", "admin"):
            return found, {}
        return found, dict(await workspace.collaborators())

    found, shared = with_workspace(name, look)
    if as_json:
        output.print_json({**found.raw, "collaborators": shared})
        return
    head = found.head
    lines: list[tuple[str, object]] = [
        ("name", found.name),
        ("id", found.id),
        ("description", found.description),
        ("tags", " ".join(found.tags)),
        ("owner", found.owner + (f" ({found.owner_name})" if found.owner_name else "")),
        ("permission", found.permission),
        ("revision", f"{head.number} ({head.reason}, {output.age(head.created_at)} ago)" if head else ""),
        ("holds", f"{head.entries} entries, {output.size(head.bytes)}" if head else ""),
        ("quota", f"{found.quota_inodes} entries, {output.size(found.quota_bytes)}"),
        ("unrecorded", found.unrecorded),
        ("stored", _stored(found)),
        ("automatic", "yes" if found.automatic else "no"),
        ("forked from", found.forked_from),
        ("mounted in", " ".join(found.mounted)),
        ("shared with", ", ".join(f"{who} ({what})" for who, what in shared.items())),
    ]
    for label, value in lines:
        if value:
            typer.echo(f"{label + ':':<13}{value}")


def _stored(found: WorkspaceInfo) -> str:
    """What this key has stored, in all workspaces of its own."""
    if found.owner_stored_bytes is None:
        return ""
    most = found.owner_stored_bytes_max
    limit = "" if most is None else f" of at most {output.size(most)}"
    return f"{output.size(found.owner_stored_bytes)}{limit}, in all workspaces of this owner"


def tag(
    name: Name,
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="TAG...", help="All of its tags; none: take them away.")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Give it these tags instead of those that it has: [bold]atoll workspace tag project demo urgent[/bold]"""
    from atoll.cli.failure import call_fields

    call_fields({"tags": "TAG"})
    _print(with_workspace(name, lambda workspace: workspace.update(tags=tags or [])), as_json)


def set_(
    name: Name,
    rename: Annotated[str | None, typer.Option("--rename", help="What to call it from now on.")] = None,
    description: Description = None,
    quota: Quota = None,
    inodes: Inodes = None,
    automatic: Annotated[
        bool | None, typer.Option("--automatic/--no-automatic", help="Take revisions after processes and daily.")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Change its name, description, quota, or when revisions are taken."""
    from atoll.cli import amounts
    from atoll.cli.failure import call_fields

    call_fields({"name": "--rename"})
    fields: dict[str, Any] = {
        "name": rename,
        "description": description,
        "quota_bytes": amounts.bytes_of(quota, "--quota"),
        "quota_inodes": inodes,
        "automatic": automatic,
    }
    _print(with_workspace(name, lambda workspace: workspace.update(**fields)), as_json)


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names or ids.")],
    as_json: output.Json = False,
) -> None:
    """Delete them for good, with all of their revisions. Not while a sandbox has one mounted."""
    gone: list[str] = []
    for name in names:

        async def delete(workspace: AsyncWorkspace) -> str:
            await workspace.delete()
            return workspace.id

        gone.append(with_workspace(name, delete))
        if not as_json:
            typer.echo(gone[-1])
    if as_json:
        output.print_json(gone)


def share(
    name: Name,
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="A user's or group's name, or an id.")],
    permission: Annotated[str, typer.Argument(metavar="[read|write|admin]", help="What they may do.")] = "read",
    as_json: output.Json = False,
) -> None:
    """Let somebody else use it: [bold]atoll workspace share project key_0123456789ab write[/bold]"""
    from atoll.cli.failure import MISUSED, Failed, call_fields
    from atoll.domain.workspace import Permission

    if permission not in set(Permission):
        raise Failed(f"the permission must be one of {', '.join(Permission)}, not {permission!r}", MISUSED)
    call_fields({"permission": "the permission", "principal": "PRINCIPAL"})
    _print_shares(with_workspace(name, lambda workspace: workspace.share(principal, permission)), as_json)


def unshare(
    name: Name,
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="A user's or group's name, or an id.")],
    as_json: output.Json = False,
) -> None:
    """Take that back; your own share of another's too."""
    from atoll.sdk import NotFound

    async def revoke(workspace: AsyncWorkspace) -> Any:
        await workspace.revoke(principal)
        try:
            return await workspace.collaborators()
        except NotFound:  # it was one's own share, and now the workspace is unknown
            return {}

    _print_shares(with_workspace(name, revoke), as_json)


def _print(info: WorkspaceInfo, as_json: bool) -> None:
    if as_json:
        output.print_json(info.raw)
    else:
        typer.echo(f"{info.full_name}  {info.id}")


def _print_shares(shares: Any, as_json: bool) -> None:
    if as_json:
        output.print_json(shares)
    else:
        output.print_table(("PRINCIPAL", "PERMISSION"), list(shares.items()), empty="shared with nobody")
