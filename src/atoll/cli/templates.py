"""`atoll template ls`: what sandboxes can be made of on the server."""

from __future__ import annotations

import typer

from atoll.cli import output


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="What sandboxes can be made of.", no_args_is_help=True)
    group.command("ls")(ls)
    app.add_typer(group, name="template", rich_help_panel="Sandboxes")


def ls(as_json: output.Json = False) -> None:
    """List the names that --image takes."""
    from atoll.sdk import Sandbox

    found = Sandbox.templates()
    if as_json:
        output.print_json([template.raw for template in found])
        return
    rows = [(one.name, one.kind, one.base, output.size(one.size_bytes) if one.size_bytes else "-") for one in found]
    output.print_table(("NAME", "KIND", "BASE", "SIZE"), rows)
