"""`atoll watch`: what changes below a directory of a sandbox, a line each, until it is interrupted."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from atoll.cli import options, output
from atoll.cli.sandboxes import PANEL, each


def add_to(app: typer.Typer) -> None:
    app.command("watch", rich_help_panel=PANEL, no_args_is_help=True)(watch)


def watch(
    sandbox: options.SandboxName,
    path: Annotated[str, typer.Argument(help="A directory with all below it, or a file.")] = ".",
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="What is not told, as in .gitignore; may be repeated.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="End after so many changes.")] = None,
    as_json: output.Json = False,
) -> None:
    """Follow changes of files in a sandbox: [bold]atoll watch mybox src --ignore node_modules[/bold]."""
    (found,) = each([sandbox])
    with found.watch(path, ignored=ignore or []) as changes:
        for number, change in enumerate(changes, 1):
            line = {"event": change.kind, "path": change.path}
            print(json.dumps(line) if as_json else f"{change.kind:<10} {change.path}", flush=True)
            if number == count:
                return
