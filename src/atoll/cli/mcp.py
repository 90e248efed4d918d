"""`atoll mcp`: sandboxes as tools of an agent, over the Model Context Protocol."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Annotated, Literal

import typer

PORT = 8008
NOT_INSTALLED = "the Model Context Protocol is an extra: pip install '.[mcp]' in Atoll's checkout"


def add_to(app: typer.Typer) -> None:
    app.command("mcp", rich_help_panel="Agents")(mcp)


def mcp(
    http: Annotated[bool, typer.Option("--http", help="Serve over HTTP instead of stdin and stdout.")] = False,
    host: Annotated[str, typer.Option("--host", help="Address to listen on, with --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="Port, with --http.")] = PORT,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="Another name that Host may say; repeatable.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option("--allow-origin", help="A page's origin that may use it; repeatable.")
    ] = None,
    sandbox: Annotated[
        str | None, typer.Option("--sandbox", help="The sandbox that tools mean when they are given none.")
    ] = None,
    print_config: Annotated[
        Literal["claude", "codex", "json"] | None,
        typer.Option("--print-config", help="Show how to tell Claude Code, Codex or others of it, and exit."),
    ] = None,
) -> None:
    """Give an agent sandboxes as tools. It uses ATOLL_URL and ATOLL_API_KEY; over HTTP, the key of each caller."""
    if print_config is not None:
        typer.echo(_configuration(print_config, f"http://{host}:{port}/mcp" if http else None), nl=False)
        return
    import asyncio
    from importlib.util import find_spec

    from atoll.cli.failure import Failed
    from atoll.sdk.config import resolve
    from atoll.sdk.errors import ConnectionFailed

    if find_spec("mcp") is None:
        raise Failed(NOT_INSTALLED)
    if not http:
        try:
            resolve()  # a key that is missing is told now, and not in the first tool
        except ConnectionFailed:
            pass  # a server that does not run yet may be started meanwhile
    from atoll.mcp.calling import Server

    if http:
        from atoll.mcp.http import serve

        typer.echo(f"Tools at http://{host}:{port}/mcp; it stops with Ctrl-C.", err=True)
        asyncio.run(serve(Server(), host, port, hosts=allow_host or (), origins=allow_origin or ()))
        return
    from atoll.mcp.server import make_server

    make_server(Server(sandbox=sandbox)).run("stdio")


def _configuration(client: str, http: str | None) -> str:
    from atoll.mcp.configuration import configuration
    from atoll.sdk.config import is_loopback, resolve

    server = resolve(api_key="unused")
    env = {"ATOLL_URL": server.url}
    needs_key = bool(os.environ.get("ATOLL_API_KEY")) or not is_loopback(server.host)
    if not needs_key and (data := os.environ.get("ATOLL_DATA")):  # this machine's own key lies there
        env["ATOLL_DATA"] = os.path.abspath(data)
    command = shutil.which("atoll") or sys.argv[0]
    return configuration(client, command=command, env=env, needs_key=needs_key, http=http)
