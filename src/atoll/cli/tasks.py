"""`atoll tasks` and `atoll sessions`: what agents were asked to do, and what successive tasks continue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli import output

if TYPE_CHECKING:
    from atoll.sdk import TaskInfo

PANEL = "Agents"
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="Its id.")]
_SHOWN_CHARS = 60


def add_to(app: typer.Typer) -> None:
    tasks = typer.Typer(help="Look at tasks of agents, follow and cancel them.", no_args_is_help=True)
    tasks.command("list")(list_tasks)
    tasks.command("show")(show)
    tasks.command("events")(events)
    tasks.command("cancel")(cancel)
    app.add_typer(tasks, name="tasks", rich_help_panel=PANEL)
    sessions = typer.Typer(help="Look at sessions, which tasks continue, and delete them.", no_args_is_help=True)
    sessions.command("list")(list_sessions)
    sessions.command("delete")(delete_session)
    app.add_typer(sessions, name="sessions", rich_help_panel=PANEL)


def list_tasks(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000, help="The newest so many.")] = 50,
    session: Annotated[str | None, typer.Option("--session", help="Of this session alone.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="queued, running, succeeded, failed, ...")] = None,
    as_json: output.Json = False,
) -> None:
    """One's own, the newest first."""
    from atoll.cli.agent_progress import plain
    from atoll.sdk import AsyncTasks

    found = asyncio.run(AsyncTasks().list(limit=limit, session=session, state=state))
    if as_json:
        output.print_json([task.raw for task in found])
        return
    rows = [
        (
            task.id,
            _state(task),
            task.agent,
            f"{task.usage.total_tokens:,}",
            f"${task.usage.total_cost:f}",
            output.age(task.created_at),
            plain(" ".join(task.task.split()))[:_SHOWN_CHARS],
        )
        for task in found
    ]
    output.print_table(("TASK", "STATE", "AGENT", "TOKENS", "COST", "AGE", "WHAT"), rows, empty="no tasks")


def show(task: TaskId, as_json: output.Json = False) -> None:
    """What is known of one."""
    from atoll.cli.agent_progress import plain, price
    from atoll.sdk import AsyncTasks

    found = asyncio.run(AsyncTasks().get(task))
    if as_json:
        output.print_json(found.raw)
        return
    told: list[tuple[str, str]] = [
        ("task", found.id),
        ("state", _state(found)),
        ("agent", found.agent),
        ("workspace", found.workspace_id),
        ("session", found.session_id or ""),
        ("begun", output.age(found.started_at) + " ago" if found.started_at else "not yet"),
        ("used", price(found.usage)),
        ("asked", found.task),
        ("error", found.error),
    ]
    for name, value in told:
        if value:
            typer.echo(f"{name:<10} {plain(value)}")
    if found.output:
        typer.echo(f"\n{plain(found.output)}")


def events(
    task: TaskId,
    after: Annotated[int, typer.Option("--after", min=0, help="Only those after this number.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print each as a line of JSON.")] = False,
) -> None:
    """What it did and does, until it ends."""
    asyncio.run(_events(task, after, as_json))


async def _events(task: str, after: int, as_json: bool) -> None:
    from atoll.cli.agent_progress import lines_of, plain
    from atoll.sdk import AsyncTasks

    async for event in AsyncTasks().events(task, after=after):
        if as_json:
            at = event.at and event.at.isoformat()
            output.print_json({"seq": event.seq, "type": event.type, "at": at, "data": event.data})
            continue
        if event.type == "message":
            typer.echo(plain(event.text))
        elif event.type == "task.ended":
            typer.echo(f"{event.data.get('state')}: {event.data.get('reason')}")
        for line in lines_of(event):
            typer.echo(plain(line), nl=not line.endswith("\n"))


def cancel(task: TaskId, as_json: output.Json = False) -> None:
    """End it; what it did is kept."""
    from atoll.sdk import AsyncTasks

    found = asyncio.run(AsyncTasks().cancel(task))
    if as_json:
        output.print_json(found.raw)
    else:
        typer.echo(f"{found.id} {_state(found)}")


def list_sessions(as_json: output.Json = False) -> None:
    """One's own, the last used first."""
    from atoll.sdk import AsyncTasks

    found = asyncio.run(AsyncTasks().sessions())
    if as_json:
        output.print_json([session.raw for session in found])
        return
    rows = [(one.id, one.workspace_id, one.tasks, output.age(one.last_at)) for one in found]
    output.print_table(("SESSION", "WORKSPACE", "TASKS", "LAST"), rows, empty="no sessions")


def delete_session(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Its id.")],
) -> None:
    """Forget one: no task continues it any more. Files stay."""
    from atoll.sdk import AsyncTasks

    asyncio.run(AsyncTasks().delete_session(session))
    typer.echo(f"{session} deleted")


def _state(task: TaskInfo) -> str:
    return f"{task.state} ({task.reason})" if task.reason and task.reason not in ("done", task.state) else task.state
