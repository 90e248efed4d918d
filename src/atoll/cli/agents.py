"""`atoll agent`: run a task, and install, list and remove the programs that do tasks, on the server's machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli import agent_run, options, output

if TYPE_CHECKING:
    from atoll.services.agents.installed import Installed, Progress
    from atoll.services.agents.installs import AgentInstalls

Agent = Annotated[str, typer.Argument(metavar="AGENT", help="codex or claude_code.")]
_STEPS = {
    "waiting": "waiting for another installation",
    "fetching": "fetching",
    "copying": "copying",
    "checking": "checking",
    "unpacking": "unpacking",
}


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Let agents do tasks, and install their programs.", no_args_is_help=True)
    agent_run.add_run(group)
    group.command("install")(install)
    group.command("list")(list_agents)
    group.command("remove")(remove)
    app.add_typer(group, name="agent", rich_help_panel="Agents")


def install(agent: Agent, data: options.DataFolder = None, as_json: output.Json = False) -> None:
    """Fetch an agent's program with pip or npm, for the sandboxes of tasks. On the server's machine, as its user.

    A task that needs a program which is not there installs it, too: this only does so earlier.
    """
    import asyncio

    installs = _installs(data)

    async def run() -> Installed:
        await installs.start()
        try:
            with _Shown(quiet=as_json) as shown:
                return await installs.install(agent, shown)
        finally:
            await installs.close()

    made = asyncio.run(run())
    if as_json:
        output.print_json(made)
        return
    typer.echo(f"{made.agent} {made.version}: {output.size(made.bytes)} in {made.folder.parent}")


def list_agents(data: options.DataFolder = None, as_json: output.Json = False) -> None:
    """What is installed, and which of it tasks get."""
    installs = _installs(data)
    there = installs.all()
    if as_json:
        output.print_json([{**_plain(one), "wanted": one.version == installs.version(one.agent)} for one in there])
        return
    rows: list[tuple[str, ...]] = []
    for agent in installs.agents:
        version = installs.version(agent)
        found = [one for one in there if one.agent == agent]
        for one in found:
            state = "in use" if one.version == version else f"the settings want {version}"
            rows.append((agent, one.version, one.source, output.size(one.bytes), output.age(one.installed_at), state))
        if version not in {one.version for one in found}:
            rows.append((agent, version, "", "", "", f"not installed: atoll agent install {agent}"))
    output.print_table(("AGENT", "VERSION", "FROM", "SIZE", "AGE", ""), rows)


def remove(agent: Agent, data: options.DataFolder = None, as_json: output.Json = False) -> None:
    """Remove every version of an agent's program. Tasks that run with it fail."""
    import asyncio

    gone = asyncio.run(_installs(data).remove(agent))
    if as_json:
        output.print_json([_plain(one) for one in gone])
        return
    for one in gone:
        typer.echo(f"removed {one.agent} {one.version}")
    if not gone:
        typer.echo(f"{agent} is not installed", err=True)


class _Shown:
    """How far an installation is, on stderr: a bar for people, a line for each step otherwise."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        console = output.console(stderr=True)
        self._lines = not quiet and not console.is_terminal
        self._step = ""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TimeElapsedColumn())
        self._bar = Bar(*columns, console=console, transient=True, disable=quiet or self._lines)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> _Shown:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        words = _STEPS.get(progress.step)
        if words and progress.step != self._step and self._lines:
            typer.echo(f"{progress.agent}: {words}", err=True)
        self._step = progress.step
        if words:
            self._bar.update(
                self._task, description=words, completed=progress.done_bytes, total=progress.total_bytes or None
            )


def _installs(data: str | None) -> AgentInstalls:
    from atoll.adapters import make_installs
    from atoll.settings import load
    from atoll.telemetry import logs

    logs.configure(level="error")
    return make_installs(load(overrides={"data": data}))


def _plain(one: Installed) -> dict[str, object]:
    import dataclasses

    return dataclasses.asdict(one)
