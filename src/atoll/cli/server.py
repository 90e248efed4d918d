"""`atoll up` and `atoll down`: the server of one data folder, in the foreground or on its own."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli import options, output

if TYPE_CHECKING:
    from atoll.serve import Ready
    from atoll.settings import Settings

PANEL = "Server"


def add_to(app: typer.Typer) -> None:
    app.command("up", rich_help_panel=PANEL)(up)
    app.command("down", rich_help_panel=PANEL)(down)


def up(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; default 8080, 0 takes a free one.")] = None,
    data: options.DataFolder = None,
    config: Annotated[str | None, typer.Option("--config", help="Settings, TOML; default DATA/atoll.toml.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it is ready; it goes on.")] = False,
    as_json: output.Json = False,
    notify: Annotated[int | None, typer.Option("--notify", hidden=True)] = None,
) -> None:
    """Start the server. It stops with Ctrl-C, or with atoll down; its sandboxes outlive it."""
    from atoll.settings import load

    overrides = {"server.host": host, "server.port": port, "data": data}
    settings = load(Path(config).absolute() if config else None, overrides=overrides)
    if detach:
        from atoll.cli.detached import start

        words = ["up", "--data", str(settings.data)]
        words += ["--host", host] if host is not None else []
        words += ["--port", str(port)] if port is not None else []
        words += ["--config", str(Path(config).absolute())] if config else []
        _announce(settings, start(words, settings.data), as_json, on_its_own=True)
        return
    _serve(settings, as_json, notify)


def down(
    data: options.DataFolder = None,
    keep: Annotated[bool, typer.Option("--keep-sandboxes", help="Stop the server only.")] = False,
    as_json: output.Json = False,
) -> None:
    """Stop the server of a data folder, and end its sandboxes."""
    from atoll.cli.stopping import stop_all, stop_server

    settings = _readable_settings(data)
    pid, ended = (stop_server(settings.folder, settings.server.drain_s), 0) if keep else stop_all(settings)
    told = f"{output.count(ended, 'sandbox', 'sandboxes')} ended"
    if as_json:
        output.print_json({"stopped": pid, "sandboxes": ended})
    elif pid is None:
        typer.echo(f"no server ran on {settings.data}" + (f"; {told}" if ended else ""))
    else:
        kept = "its sandboxes go on" if keep else told
        typer.echo(f"the server on {settings.data} (pid {pid}) has stopped, {kept}")


def _readable_settings(data: str | None) -> Settings:
    """The settings; where they are wrong and the data folder is named all the same, that folder with the defaults."""
    from atoll.cli.failure import say
    from atoll.settings import load
    from atoll.settings.section import SettingsError

    try:
        return load(overrides={"data": data})
    except SettingsError as error:
        data = data or os.environ.get("ATOLL_DATA")
        if not data:
            raise
        say(f"{error.message} (going on without the settings)")
        return load(Path(os.devnull), {}, {"data": data})


def _serve(settings: Settings, as_json: bool, notify: int | None) -> None:
    import asyncio
    import gc

    gc.disable()  # all that is made until the server is ready stays: it need not be looked through
    import uvloop

    from atoll.sdk.local_server import remove_note
    from atoll.serve import serve

    def ready(told: Ready) -> None:
        gc.freeze()  # nor later, while answers wait
        gc.enable()
        said = _note(settings, told)
        if notify is None:
            _announce(settings, said, as_json, on_its_own=False)
        else:
            os.write(notify, json.dumps(said).encode())
            os.close(notify)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, ready))
    except Exception as error:
        if notify is not None:
            from atoll.domain.errors import AtollError

            message = error.message if isinstance(error, AtollError) else f"{type(error).__name__}: {error}"
            os.write(notify, json.dumps({"error": message}).encode())
        raise
    finally:
        remove_note(settings.data, os.getpid())


def _note(settings: Settings, told: Ready) -> dict[str, Any]:
    """Leave the note that `down` and clients look for; what to tell the user."""
    from atoll.sdk.local_server import LocalServer, boot_id, start_ticks, write_note

    pid = os.getpid()
    write_note(settings.data, LocalServer(pid, told.url, time.time(), boot_id(), start_ticks(pid) or 0))
    key_file = settings.folder.owner_key
    return {
        "url": told.url,
        "pid": pid,
        "api_key_file": str(key_file) if told.owner_key is not None else None,
    } | ({"listeners": dict(told.beside)} if told.beside else {})


def _announce(settings: Settings, said: dict[str, Any], as_json: bool, *, on_its_own: bool) -> None:
    from atoll.sdk.local_server import data_folder

    if as_json:
        output.print_json(said)
    else:
        screen = output.console()
        screen.print(f"[bold green]Atoll is ready[/] at [bold]{said['url']}[/] (pid {said['pid']})")
        for name, url in said.get("listeners", {}).items():
            screen.print(f"  {name} at {url}")
        if said["api_key_file"]:
            screen.print(f"Your key is in {said['api_key_file']}, where the commands on this machine find it.")
        if settings.data != data_folder().root:  # where the commands look
            screen.print(f"In other terminals first: [bold]export ATOLL_DATA={shlex.quote(str(settings.data))}[/]")
        screen.print("Try: [bold]atoll run --rm -- echo hello[/]")
        screen.print("It stops with: atoll down" if on_its_own else "It stops with Ctrl-C; its sandboxes go on.")
    sys.stdout.flush()
