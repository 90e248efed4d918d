"""`atoll version`: which Atoll this is."""

from __future__ import annotations

import typer

from atoll.cli import output


def add_to(app: typer.Typer) -> None:
    app.command("version")(version)


def version(as_json: output.Json = False) -> None:
    """Show the version."""
    import platform

    from atoll import __version__

    if as_json:
        output.print_json({"atoll": __version__, "python": platform.python_version()})
    else:
        typer.echo(f"atoll {__version__} (Python {platform.python_version()})")
