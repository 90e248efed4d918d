"""`atoll workspace export` and `import`: a whole tree as tar.zst."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from atoll.cli import output
from atoll.cli.failure import MISUSED, Failed
from atoll.cli.workspaces import Name, with_workspace


def add_to(group: typer.Typer) -> None:
    group.command("export", no_args_is_help=True)(export)
    group.command("import", no_args_is_help=True)(import_)


def export(
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it; - is the output.")],
    revision: Annotated[str, typer.Option("--revision", "-r", help="Which state.")] = "HEAD",
    as_json: output.Json = False,
) -> None:
    """Write it as an archive: [bold]atoll workspace export project project.tar.zst[/bold]"""
    if file == "-":
        if sys.stdout.isatty():
            raise Failed("an archive is nothing for a terminal: name a FILE", MISUSED)
        with_workspace(name, lambda workspace: workspace.export(sys.stdout.buffer, revision=revision))
        return
    folder = os.path.dirname(file) or "."
    if not os.path.isdir(folder):
        raise Failed(f"FILE: there is no folder {folder}")
    size = with_workspace(name, lambda workspace: workspace.export(file, revision=revision))
    if as_json:
        output.print_json({"file": file, "bytes": size})
    else:
        typer.echo(f"{file}: {output.size(size)}")


def import_(
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A tar.zst; - is the input.")],
    strip: Annotated[int, typer.Option("--strip", help="How many first parts of its names to leave out.")] = 0,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the revision that is made.")] = None,
    as_json: output.Json = False,
) -> None:
    """Replace its tree by an archive's, as a new revision; `undo` takes that back."""
    if file != "-" and not os.path.isfile(file):
        raise Failed(f"FILE: there is no file {file}")
    source = sys.stdin.buffer if file == "-" else file
    revision = with_workspace(name, lambda workspace: workspace.import_(source, strip=strip, message=message))
    if as_json:
        output.print_json(revision.raw)
    else:
        typer.echo(
            f"revision {revision.number}  {revision.id}: {revision.entries} entries, {output.size(revision.bytes)}"
        )
