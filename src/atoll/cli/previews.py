"""`atoll preview`: a port of a sandbox in a browser."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import typer

from atoll.cli import options, output

PANEL = "Sandboxes"


def add_to(app: typer.Typer) -> None:
    app.command("preview", rich_help_panel=PANEL, no_args_is_help=True)(preview)


def preview(
    sandbox: options.SandboxName,
    port: Annotated[int, typer.Argument(metavar="PORT", help="The port that a program in it listens on.")],
    public: Annotated[
        bool | None,
        typer.Option("--public/--private", help="Whether anybody may look, with no token in the address; as it was."),
    ] = None,
    expires_in: Annotated[
        float | None, typer.Option("--expires-in", metavar="SECONDS", help="How long the token holds.")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Let a port of a sandbox be reached, and print an address for a browser."""
    import asyncio

    asyncio.run(_preview(sandbox, port, public, expires_in, as_json))


async def _preview(sandbox: str, port: int, public: bool | None, expires_in: float | None, as_json: bool) -> None:
    from atoll.cli.finding import find

    found = await find(sandbox)
    url = await found.preview(port, public=public, expires_in=expires_in)
    if as_json:
        output.print_json({"sandbox_id": found.id, "port": port, "public": not urlsplit(url).query, "url": url})
    else:
        typer.echo(url)
