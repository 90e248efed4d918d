"""`atoll exec`, `shell` and `attach`: processes in a sandbox that exists, on this terminal."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli import options
from atoll.cli.failure import OURS, TIMED_OUT, explain, say

if TYPE_CHECKING:
    from atoll.sdk import AsyncProcess, AsyncSandbox

PANEL = "Sandboxes"


def add_to(app: typer.Typer) -> None:
    add = {"rich_help_panel": PANEL, "no_args_is_help": True}
    app.command("exec", context_settings=options.COMMAND_FOLLOWS, **add)(exec_)  # type: ignore[arg-type]
    app.command("shell", rich_help_panel=PANEL)(shell)
    app.command("attach", **add)(attach)  # type: ignore[arg-type]


def exec_(
    sandbox: options.SandboxName,
    command: options.CommandWords,
    interactive: options.Interactive = False,
    terminal: options.Terminal = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the process's id and leave it.")] = False,
    env: options.Environment = None,
    secret: options.Secrets = None,
    workdir: options.Workdir = None,
    timeout: Annotated[str | None, typer.Option("--timeout", help="End it after this time, such as 30s.")] = None,
    as_json: options.ResultAsJson = False,
) -> None:
    """Run a command in a sandbox: [bold]atoll exec mybox -- ls -l[/bold]. Its exit code is this command's."""
    from atoll.cli import amounts

    how: dict[str, Any] = {
        "env": amounts.environment(env or []),
        "cwd": workdir,
        "timeout": amounts.seconds(timeout, "--timeout"),
        "secrets": amounts.secrets(secret or []),
    }
    _finish(_exec(sandbox, options.words(command), how, interactive, terminal, detach, as_json))


def shell(
    sandbox: Annotated[
        str | None, typer.Argument(metavar="[SANDBOX]", help="Its id or name; without one a new sandbox is made.")
    ] = None,
    workdir: options.Workdir = None,
    env: options.Environment = None,
    secret: options.Secrets = None,
) -> None:
    """Open a shell in a sandbox; without a sandbox, in a new one that is removed at the end."""
    from atoll.cli import amounts

    how: dict[str, Any] = {"env": amounts.environment(env or []), "cwd": workdir}
    how["secrets"] = amounts.secrets(secret or [])
    _finish(_shell(sandbox, how))


def attach(
    sandbox: options.SandboxName,
    process: Annotated[str, typer.Option("--process", help="Which process; atoll exec -d prints its id.")] = "main",
    offset: Annotated[int, typer.Option("--offset", help="Show its output from this byte on.")] = 0,
) -> None:
    """See the output of a process from its beginning, as far as it is kept, and go on with it."""
    _finish(_attach(sandbox, process, offset))


def _finish(work: Coroutine[Any, Any, int]) -> None:
    import asyncio

    try:
        code = asyncio.run(work)
    except Exception as error:
        code = explain(error, OURS)
    raise typer.Exit(code)


async def _exec(
    name: str, command: list[str], how: dict[str, Any], interactive: bool, terminal: bool, detach: bool, as_json: bool
) -> int:
    from atoll.cli import output, session
    from atoll.cli.finding import find

    sandbox = await find(name)
    if terminal:
        how |= {"tty": session.terminal_size(), "env": options.with_term(how["env"])}
    reads_stdin = not detach and options.reads_stdin(interactive)
    process = await sandbox.exec(command, stdin=reads_stdin or terminal, **how)
    if detach:
        await process.close()
        if as_json:
            output.print_json({"id": sandbox.id, "process": process.id})
        else:
            typer.echo(process.id)
        return 0
    keep = session.Kept() if as_json else None
    outcome = await session.follow(sandbox, process, tty=terminal, reads_stdin=reads_stdin, keep=keep)
    if how["timeout"] is not None and not outcome.left and await _timed_out(process):
        say("the command has ended: timeout")
        outcome = session.Outcome(TIMED_OUT)
    if keep is not None:
        output.print_json(await keep.report(sandbox, process, outcome))
    if outcome.left:
        _say_goes_on(sandbox, process.id)
    return outcome.code


async def _shell(name: str | None, how: dict[str, Any]) -> int:
    from atoll.cli import session
    from atoll.cli.finding import find
    from atoll.sdk import AsyncSandbox

    how["env"] = options.with_term(how["env"])
    sandbox = await find(name) if name else await AsyncSandbox.create()
    try:
        process = await sandbox.terminal(*session.terminal_size(), **how)
        outcome = await session.follow(sandbox, process, tty=True, reads_stdin=True)
    except BaseException:
        if name is None:
            await sandbox.kill(remove=True)
        raise
    if outcome.left:
        _say_goes_on(sandbox, process.id)
    elif name is None:
        await sandbox.kill(remove=True)
    return outcome.code


async def _attach(name: str, process_id: str, offset: int) -> int:
    from atoll.cli import session
    from atoll.cli.finding import find

    sandbox = await find(name)
    terminal = sandbox.created.raw.get("tty") is True if process_id == "main" else False
    if process_id != "main":
        terminal = any(info.id == process_id and info.tty for info in await sandbox.processes())
    process = await sandbox.attach(process_id, offset=offset)
    if terminal:
        await process.resize(*session.terminal_size())
    outcome = await session.follow(sandbox, process, tty=terminal, reads_stdin=options.reads_stdin(terminal))
    if outcome.left:
        _say_goes_on(sandbox, process_id)
    return outcome.code


async def _timed_out(process: AsyncProcess) -> bool:
    from atoll.domain.errors import AtollError

    try:
        return (await process.how_ended()).timed_out
    except AtollError:
        return False  # its sandbox is gone, and `follow` has said so


def _say_goes_on(sandbox: AsyncSandbox, process_id: str) -> None:
    which = "" if process_id == "main" else f" --process {process_id}"
    typer.echo(f"\nit goes on: atoll attach {sandbox.id}{which}", err=True)
