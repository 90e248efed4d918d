"""`atoll pause`, `unpause`, `suspend` and `resume`: hold sandboxes, with their memory or with their files only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from atoll.cli import options, output
from atoll.cli.sandboxes import PANEL, each, tell

if TYPE_CHECKING:
    from atoll.sdk import Sandbox


def add_to(app: typer.Typer) -> None:
    for name, function in {"pause": pause, "unpause": unpause, "suspend": suspend, "resume": resume}.items():
        app.command(name, rich_help_panel=PANEL, no_args_is_help=True)(function)


def pause(sandboxes: options.SandboxNames, as_json: output.Json = False) -> None:
    """Freeze sandboxes where they are: they keep their memory and use no CPU."""
    _with_each(sandboxes, lambda found: found.pause(), "paused", as_json)


def unpause(sandboxes: options.SandboxNames, as_json: output.Json = False) -> None:
    """Let frozen sandboxes go on."""
    _with_each(sandboxes, lambda found: found.resume(), "running", as_json)


def suspend(sandboxes: options.SandboxNames, as_json: output.Json = False) -> None:
    """Stop sandboxes that have a workspace; their next use, a request to a port too, makes them again."""
    _with_each(sandboxes, lambda found: found.suspend(), "suspended", as_json)


def resume(sandboxes: options.SandboxNames, as_json: output.Json = False) -> None:
    """Make suspended sandboxes again, and those that were lost with a restart of the machine; let frozen ones go on."""
    _with_each(sandboxes, lambda found: found.resume(), "running", as_json)


def _with_each(names: list[str], act: Callable[[Sandbox], None], state: str, as_json: bool) -> None:
    for found in each(names):
        act(found)
        tell(found.id, state, as_json)
