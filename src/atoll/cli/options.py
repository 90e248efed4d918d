"""Options that several commands have, so that they mean the same everywhere."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

# What follows the first plain word belongs to the command that is to be run.
COMMAND_FOLLOWS = {"allow_interspersed_args": False}

CommandWords = Annotated[list[str], typer.Argument(metavar="[--] COMMAND...", help="The program and its arguments.")]
Interactive = Annotated[
    bool, typer.Option("--interactive", "-i", help="Send what is typed here. Pipes and files are always sent.")
]
Terminal = Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal. Enter ~ . leaves it running.")]
Environment = Annotated[
    list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, or NAME for its value here; repeatable.")
]
Secrets = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="NAME[=VARIABLE]",
        help="Give it a secret as a variable; NAME=/run/secrets/F: a file; broker:NAME: a placeholder; repeatable.",
    ),
]
Workdir = Annotated[str | None, typer.Option("--workdir", "-w", help="Where in the sandbox it starts.")]
SandboxName = Annotated[str, typer.Argument(metavar="SANDBOX", help="Its id, the beginning of it, or its name.")]
SandboxNames = Annotated[list[str], typer.Argument(metavar="SANDBOX...", help="Ids, beginnings of ids, or names.")]
Subject = Annotated[str, typer.Argument(metavar="ID", help="A user's name, or anybody's id.", show_default=False)]
AnySubject = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="A user's name, or anybody's id.", show_default=False)
]
ResultAsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object at the end: exit_code, stdout, stderr and more.")
]


def _named(folder: str | None) -> str | None:
    if folder == "":
        raise typer.BadParameter("it is empty: say a folder, or leave the option out for the default")
    return folder


DataFolder = Annotated[
    str | None,
    typer.Option("--data", callback=_named, help="The data folder; default: ATOLL_DATA, else this user's own."),
]


def words(command: list[str]) -> list[str]:
    """The command's words, without the -- that sets it off."""
    return command[1:] if command[:1] == ["--"] else command


def reads_stdin(interactive: bool) -> bool:
    """Whether this command's input goes to the sandbox: always when it is no terminal, else when asked for."""
    return interactive or (sys.stdin is not None and not os.isatty(0))


def with_term(env: dict[str, str]) -> dict[str, str]:
    """The environment for a terminal like this one."""
    return {"TERM": os.environ.get("TERM", "xterm-256color"), **env}
