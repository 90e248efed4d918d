"""`atoll run`: a new sandbox with one command as its main process, on this terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli import options
from atoll.cli.failure import MISUSED, OURS, Failed, explain
from atoll.domain.errors import NotFound

if TYPE_CHECKING:
    from atoll.sdk import AsyncSandbox


def add_to(app: typer.Typer) -> None:
    app.command("run", rich_help_panel="Sandboxes", no_args_is_help=True, context_settings=options.COMMAND_FOLLOWS)(run)


def run(
    command: options.CommandWords,
    image: Annotated[str, typer.Option("--image", help="The template to make it of.")] = "host",
    remove: Annotated[bool, typer.Option("--rm", help="Forget the sandbox when the command has ended.")] = False,
    interactive: options.Interactive = False,
    terminal: options.Terminal = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print its id and leave it running.")] = False,
    cpus: Annotated[float | None, typer.Option("--cpus", help="CPUs it may use, such as 0.5.")] = None,
    memory: Annotated[str | None, typer.Option("--memory", "-m", help="Memory, such as 512m or 2g.")] = None,
    disk: Annotated[str | None, typer.Option("--disk", help="Writable space, such as 256m.")] = None,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", help="End it after this time, such as 30s; default: as the server says, 1h."),
    ] = None,
    idle: Annotated[str | None, typer.Option("--idle", help="End it after so long without use, such as 10m.")] = None,
    network: Annotated[
        str | None, typer.Option("--network", help="none, outgoing or exposed; default: none, with --publish exposed.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", help="A name that it may reach, such as pypi.org or *.example.org; repeatable."),
    ] = None,
    capability: Annotated[
        list[str] | None,
        typer.Option(
            "--capability",
            help="What its programs may do with this API, without a key: read, write, execute; repeatable.",
        ),
    ] = None,
    capability_expires: Annotated[
        str | None, typer.Option("--capability-expires", help="... for so long, such as 10m; default: while it lives.")
    ] = None,
    env: options.Environment = None,
    secret: options.Secrets = None,
    publish: Annotated[
        list[int] | None,
        typer.Option("--publish", "-p", help="A port inside to reach at a URL that is printed; repeatable."),
    ] = None,
    workdir: Annotated[
        str | None, typer.Option("--workdir", "-w", help="Where in the sandbox it starts; made if it is not there.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="A name to call it by. Another may have it; then use the id.")
    ] = None,
    workspace: Annotated[
        list[str] | None,
        typer.Option(
            "--workspace",
            "-W",
            metavar="NAME[:PATH[:ro]]",
            help="Mount a workspace at PATH (/workspace), and begin there; repeatable.",
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="It belongs to this group (its id or name), instead of to you.")
    ] = None,
    as_json: options.ResultAsJson = False,
) -> None:
    """Make a sandbox and run a command in it: [bold]atoll run --rm -- python3 -c 'print(1)'[/bold].

    Its input, output and exit code are this command's. Without --rm it can be looked at afterwards (atoll logs).
    """
    import asyncio

    from atoll.cli import amounts

    if allow and network is not None:
        raise Failed("--allow and --network exclude each other: a list is a network of its own", MISUSED)
    if publish and network not in (None, "exposed"):
        raise Failed(f"--publish needs --network exposed, not {network}", MISUSED)
    mounts = amounts.mounts(workspace or [])
    wanted: dict[str, Any] = {
        "image": image,
        "command": options.words(command),
        "cpus": cpus,
        "memory_mb": amounts.megabytes(memory, "--memory"),
        "disk_mb": amounts.megabytes(disk, "--disk"),
        "timeout": amounts.seconds(timeout, "--timeout"),
        "idle_timeout": amounts.seconds(idle, "--idle"),
        "network": allow or network,
        "capability": _capability(capability or [], amounts.seconds(capability_expires, "--capability-expires")),
        "env": amounts.environment(env or []),
        "ports": publish,
        "cwd": workdir,
        "name": name,
        "workspaces": mounts,
        "secrets": amounts.secrets(secret or []),
        "group": group,
    }
    try:
        code = asyncio.run(_run(wanted, remove, interactive, terminal, detach, as_json))
    except Exception as error:
        code = explain(error, OURS)
    raise typer.Exit(code)


async def _run(
    wanted: dict[str, Any], remove: bool, interactive: bool, terminal: bool, detach: bool, as_json: bool
) -> int:
    from atoll.cli import output, session
    from atoll.sdk import AsyncSandbox

    if terminal:
        wanted["tty"] = session.terminal_size()
        wanted["env"] = options.with_term(wanted["env"])
    if wanted["group"] is not None:
        from atoll.cli.groups import group_id

        wanted["group"] = await group_id(wanted["group"])
    try:
        sandbox = await AsyncSandbox.create(**wanted)
    except NotFound as error:
        names = [one.workspace for one in wanted["workspaces"] or ()]
        missing = next((name for name in names if _is_missing(name, error)), None)
        if missing is None:
            raise
        raise Failed(f"{error.message}: `atoll workspace create {missing}` makes it") from None
    if detach:
        _print_made(sandbox, as_json)
        return 0
    try:
        if wanted["ports"]:
            _print_ports(sandbox)
        process = await sandbox.attach()
        reads_stdin = options.reads_stdin(interactive)
        keep = session.Kept() if as_json else None
        outcome = await session.follow(sandbox, process, tty=terminal, reads_stdin=reads_stdin, keep=keep)
        if keep is not None:
            output.print_json(await keep.report(sandbox, process, outcome))
    except Exception as error:
        await _end(sandbox, remove, said=error)
        raise
    except BaseException:
        await _end(sandbox, remove)
        raise
    if outcome.left and not remove:
        typer.echo(f"\n{sandbox.id} goes on: atoll attach {sandbox.id}", err=True)
        return 0
    if remove:
        await _end(sandbox, remove)
    if outcome.left:
        return 130
    # what reads our output must not take it for the whole
    return outcome.code or (OURS if process.lost_bytes and not terminal else 0)


def _is_missing(workspace: str, error: NotFound) -> bool:
    """Whether it is that workspace which was not found, and one of this name can be made."""
    from atoll.domain.ids import workspace_id_of

    possible = "/" not in workspace and not workspace_id_of(workspace)
    return possible and error.message == f"workspace not found: {workspace!r}"


async def _end(sandbox: AsyncSandbox, remove: bool, said: Exception | None = None) -> None:
    from atoll.domain.errors import AtollError

    try:
        await sandbox.kill(remove=remove)
    except AtollError as error:
        if type(error) is not type(said):  # it will be told, once
            explain(error)


def _capability(scopes: list[str], expires_in: float | None) -> dict[str, Any] | None:
    if expires_in is not None and not scopes:
        raise Failed("--capability-expires needs --capability", MISUSED)
    return {"scopes": scopes, "expires_in": expires_in} if scopes else None


def _print_made(sandbox: AsyncSandbox, as_json: bool) -> None:
    from atoll.cli import output

    if as_json:
        output.print_json(sandbox.created.raw)
    else:
        typer.echo(sandbox.id)
        _print_ports(sandbox)


def _print_ports(sandbox: AsyncSandbox) -> None:
    for port in sandbox.created.ports:
        typer.echo(f"port {port.container_port} is at {port.url}", err=True)
