"""`atoll snapshot`: states of a workspace that somebody named and keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli import output
from atoll.cli.history import print_restored
from atoll.cli.workspaces import Name, with_workspace

if TYPE_CHECKING:
    from atoll.sdk import AsyncWorkspace

Snapshot = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Its id or name.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Name a state of a workspace, and come back to it.", no_args_is_help=True)
    group.command("create", no_args_is_help=True)(create)
    group.command("list", no_args_is_help=True)(list_)
    group.command("ls", hidden=True)(list_)
    group.command("restore", no_args_is_help=True)(restore)
    group.command("delete", no_args_is_help=True)(delete)
    group.command("rm", hidden=True)(delete)
    app.add_typer(group, name="snapshot", rich_help_panel="Workspaces")


def create(
    name: Name,
    called: Annotated[str | None, typer.Option("--name", help="What to call it.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Never remove it to make room for newer ones.")] = False,
    own_key: Annotated[
        bool, typer.Option("--own-key", help="A key of its own: deleting it makes its bytes unreadable for ever.")
    ] = False,
    as_json: output.Json = False,
) -> None:
    """Keep the state as it is now: [bold]atoll snapshot create project --name before-upgrade[/bold]"""
    made = with_workspace(name, lambda workspace: workspace.snapshot(called, own_key=own_key, keep=keep))
    if as_json:
        output.print_json(made.raw)
    else:
        typer.echo(made.id)


def list_(name: Name, as_json: output.Json = False) -> None:
    """Those of a workspace, the newest first."""
    found = with_workspace(name, lambda workspace: workspace.snapshots())
    if as_json:
        output.print_json([snapshot.raw for snapshot in found])
        return
    rows = [
        (
            snapshot.id,
            snapshot.name,
            snapshot.revision,
            output.age(snapshot.created_at),
            snapshot.entries,
            output.size(snapshot.bytes),
            " ".join(word for word, said in (("kept", snapshot.keep), ("own-key", snapshot.own_key)) if said),
        )
        for snapshot in found
    ]
    output.print_table(("ID", "NAME", "REVISION", "AGE", "ENTRIES", "SIZE", ""), rows, empty="no snapshots")


def restore(name: Name, snapshot: Snapshot, as_json: output.Json = False) -> None:
    """Bring it back, as a new revision: [bold]atoll workspace undo[/bold] takes that back."""
    done = with_workspace(name, lambda workspace: workspace.restore(snapshot))
    print_restored(done, as_json)


def delete(name: Name, snapshot: Snapshot, as_json: output.Json = False) -> None:
    """Forget it."""

    async def drop(workspace: AsyncWorkspace) -> None:
        await workspace.delete_snapshot(snapshot)

    with_workspace(name, drop)
    if as_json:
        output.print_json({"deleted": snapshot})
    else:
        typer.echo(snapshot)
