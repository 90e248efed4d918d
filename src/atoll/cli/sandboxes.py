"""`atoll ps`, `logs`, `stop`, `kill` and `rm`: look at sandboxes and end them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli import options, output
from atoll.cli.failure import Failed

if TYPE_CHECKING:
    from atoll.sdk import Sandbox, SandboxInfo

PANEL = "Sandboxes"
_COMMAND_CHARS = 40


def add_to(app: typer.Typer) -> None:
    app.command("ps", rich_help_panel=PANEL)(ps)
    for name, function in {"logs": logs, "stop": stop, "kill": kill, "rm": rm}.items():
        app.command(name, rich_help_panel=PANEL, no_args_is_help=True)(function)


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Ids only.")] = False,
    as_json: output.Json = False,
) -> None:
    """List sandboxes, the newest first, with what they use."""
    from atoll.sdk import Sandbox

    found = [info for info in Sandbox.list() if everything or info.live]
    if as_json:
        output.print_json([info.raw for info in found])
    elif quiet:
        for info in found:
            typer.echo(info.id)
    else:
        columns = ("ID", "NAME", "IMAGE", "COMMAND", "STATE", "AGE", "CPU", "MEMORY", "NETWORK")
        output.print_table(columns, map(_row, found), empty="no sandboxes" if everything else "no live sandboxes")


def logs(
    sandbox: options.SandboxName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the process ends.")] = False,
    offset: Annotated[int, typer.Option("--offset", help="From this byte on.")] = 0,
    as_json: output.Json = False,
) -> None:
    """Show the output of a sandbox's main process, as far as it is kept."""
    import asyncio

    asyncio.run(_logs(sandbox, follow, offset, as_json))


def stop(sandboxes: options.SandboxNames, as_json: output.Json = False) -> None:
    """End sandboxes: TERM to all of their processes, a grace time, then KILL to everything."""
    for found in each(sandboxes):
        found.stop()
        tell(found.id, "stopped", as_json)


def kill(sandboxes: options.SandboxNames, as_json: output.Json = False) -> None:
    """End sandboxes at once."""
    for found in each(sandboxes):
        found.kill()
        tell(found.id, "killed", as_json)


def rm(
    sandboxes: options.SandboxNames,
    force: Annotated[bool, typer.Option("--force", "-f", help="End those that run.")] = False,
    as_json: output.Json = False,
) -> None:
    """Forget sandboxes that have ended; with --force end them first."""
    for found in each(sandboxes):
        if found.created.live and not force:
            raise Failed(f"{found.id} is {found.created.state}: stop it first, or use --force")
        found.kill(remove=True)
        tell(found.id, "removed", as_json)


def tell(sandbox_id: str, done: str, as_json: bool) -> None:
    """One line for each sandbox, as soon as it is done."""
    if as_json:
        output.print_json({"id": sandbox_id, "done": done})
    else:
        typer.echo(sandbox_id)


def each(names: list[str]) -> Iterator[Sandbox]:
    """The sandboxes of those names, each looked up once."""
    from atoll.cli.finding import pick
    from atoll.domain.ids import SANDBOX_ID
    from atoll.sdk import Sandbox

    known = [] if all(SANDBOX_ID.match(name) for name in names) else list(Sandbox.list())
    for name in names:
        yield Sandbox.connect(name if SANDBOX_ID.match(name) else pick(name, known).id)


async def _logs(name: str, follow: bool, offset: int, as_json: bool) -> None:
    import sys

    from atoll.cli.finding import find

    sandbox = await find(name)
    if as_json:
        pieces = sandbox.follow_logs(offset=offset) if follow else sandbox.read_logs(offset=offset)
        data = b"".join([piece async for piece in pieces])
        output.print_json({"id": sandbox.id, "offset": offset, "output": data.decode("utf-8", "replace")})
        return
    async for piece in sandbox.follow_logs(offset=offset) if follow else sandbox.read_logs(offset=offset):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _row(info: SandboxInfo) -> tuple[object, ...]:
    command = " ".join(info.command)
    state = "paused" if info.paused else "suspended" if info.suspended else info.state
    ended = f" ({info.exit_code})" if info.exit_code is not None else ""
    ports = " ".join(f"{port.container_port}->{port.host_port}" for port in info.ports)
    return (
        info.id,
        info.name,
        info.image,
        command if len(command) <= _COMMAND_CHARS else command[: _COMMAND_CHARS - 1] + "…",
        state + ended + (f" {info.reason}" if info.reason and info.reason != state else ""),
        output.age(info.created_at),
        f"{info.usage.cpu_s:.2f}s",
        output.size(info.usage.memory_peak_bytes),
        f"{info.network} {ports}".strip(),
    )
