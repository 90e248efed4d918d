"""The entry point `atoll`: finds the module of the command that was named, and loads only that one."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Annotated

import typer

from atoll.cli import failure

# Which module has which commands, in the order of the help.
MODULES: dict[str, tuple[str, ...]] = {
    "run": ("run",),
    "processes": ("exec", "shell", "attach"),
    "sandboxes": ("ps", "logs", "stop", "kill", "rm"),
    "resting": ("pause", "unpause", "suspend", "resume"),
    "copy": ("cp",),
    "watching": ("watch",),
    "workspaces": ("workspace", "workspaces"),
    "snapshots": ("snapshot",),
    "sync": ("sync",),
    "agents": ("agent",),
    "tasks": ("tasks", "sessions"),
    "mcp": ("mcp",),
    "server": ("up", "down"),
    "previews": ("preview",),
    "doctor": ("doctor",),
    "keys": ("keys",),
    "groups": ("groups",),
    "secrets": ("secrets",),
    "audit": ("audit",),
    "users": ("users",),
    "quota": ("quota",),
    "billing": ("billing",),
    "ledger": ("ledger",),
    "marketplace": ("marketplace",),
    "templates": ("template",),
    "database": ("db",),
    "backup": ("backup", "restore"),
    "vault": ("vault",),
    "version": ("version",),
}


def application(words: list[str]) -> typer.Typer:
    """The application with the one module that `words` name, or with all of them when it needs to show a list."""
    app = typer.Typer(
        name="atoll",
        help="A computer in milliseconds: isolated sandboxes for agents and developers.",
        context_settings={"help_option_names": ["-h", "--help"]},
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_root)
    named = next((module for module, names in MODULES.items() if words and words[0] in names), None)
    for module in [named] if named else MODULES:
        import_module(f"atoll.cli.{module}").add_to(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from atoll import __version__

        typer.echo(__version__)
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command line and exit with its code."""
    words = sys.argv[1:]
    try:
        application(words)(prog_name="atoll")
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BrokenPipeError:  # a reader that has seen enough, as in `| head`
        os._exit(128 + signal.SIGPIPE)
    except Exception as error:
        code = failure.explain(error)
    else:
        code = 0
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    finally:
        # A thread may wait for input that never comes: nothing may keep a finished command from ending.
        os._exit(code)


if __name__ == "__main__":
    main()
