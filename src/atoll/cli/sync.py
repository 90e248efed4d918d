"""`atoll sync`: a folder of this machine and a workspace, brought together once or for as long as it runs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli import output
from atoll.cli.failure import MISUSED, Failed, say

if TYPE_CHECKING:
    from rich.progress import TaskID

    from atoll.sdk import AsyncWorkspace, SyncOptions, SyncProgress, SyncReport
    from atoll.sdk.sync.values import Direction

PREFIX = "ws:"
_SHOWN_PATHS = 20


def add_to(app: typer.Typer) -> None:
    app.command("sync", rich_help_panel="Workspaces", no_args_is_help=True)(sync)


def sync(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder, or ws:NAME: then it is a pull.")],
    destination: Annotated[str, typer.Argument(metavar="DEST", help="The other of them.")],
    push: Annotated[bool, typer.Option("--push", help="Only bring the workspace up to the folder.")] = False,
    pull: Annotated[bool, typer.Option("--pull", help="Only bring the folder up to the workspace.")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Carry deletions over; with --push or --pull mirror exactly.")
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Leave out, as .gitignore has it; repeatable."),
    ] = None,
    home: Annotated[bool, typer.Option("--home", help="The workspace's .home too.")] = False,
    no_ignore: Annotated[bool, typer.Option("--no-ignore", help="Do not heed .gitignore and .atollignore.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with every change, until Ctrl-C.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would be done.")] = False,
    create: Annotated[
        bool | None,
        typer.Option("--create/--no-create", help="Make a workspace that does not exist, or never; default: make it."),
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the revision that is made.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no list of paths.")] = False,
    as_json: output.Json = False,
) -> None:
    """Bring a folder and a workspace together: [bold]atoll sync ./project ws:project[/bold]

    Both ways: what changed on either side since the last time goes to the other, and only chunks that are missing
    travel. What both changed is kept twice. [bold]atoll sync ws:project ./copy[/bold] only fetches.
    A workspace that does not exist is made, unless [bold]--no-create[/bold]; another's is ws:OWNER/NAME.
    """
    import asyncio

    from atoll.sdk.sync.values import Direction, SyncOptions

    there = [text.startswith(PREFIX) for text in (source, destination)]
    if sum(there) != 1:
        raise Failed("one of SOURCE and DEST must be ws:NAME, and the other a folder", MISUSED)
    if push and pull:
        raise Failed("--push and --pull exclude each other", MISUSED)
    if there[0] and push:
        raise Failed("--push needs the folder as SOURCE and ws:NAME as DEST", MISUSED)
    if watch and dry_run:
        raise Failed("--watch and --dry-run exclude each other", MISUSED)
    name, folder = (source, destination) if there[0] else (destination, source)
    if not name.removeprefix(PREFIX).strip():
        raise Failed("ws: must be followed by the workspace's name", MISUSED)
    direction = Direction.PULL if pull or there[0] else Direction.PUSH if push else Direction.BOTH
    check_folder(folder, "DEST" if there[0] else "SOURCE", direction)
    options = SyncOptions(
        direction, delete, tuple(exclude or ()), home, ignore_files=not no_ignore, dry_run=dry_run, message=message
    )
    name = name.removeprefix(PREFIX)
    asyncio.run(_sync(name, folder, options, create=create, watch=watch, quiet=quiet, as_json=as_json))


def check_folder(folder: str, argument: str, direction: Direction) -> None:
    """Failed unless it is a folder that can be read, and written to where something may come. A pull may make it."""
    from atoll.sdk.sync.values import Direction

    if not folder:
        raise Failed(f"{argument} must name a folder", MISUSED)
    if not os.path.lexists(folder):
        if direction is Direction.PULL:
            return
        raise Failed(f"{argument}: there is no folder {folder}")
    if not os.path.isdir(folder):
        raise Failed(f"{argument}: {folder} is not a folder")
    needed = os.R_OK | os.X_OK | (0 if direction is Direction.PUSH else os.W_OK)
    if not os.access(folder, needed):
        cannot = "read" if not os.access(folder, os.R_OK | os.X_OK) else "written"
        fixed = cannot == "written" and os.statvfs(folder).f_flag & os.ST_RDONLY
        raise Failed(
            f"{argument}: {folder} cannot be {cannot}: {'read-only file system' if fixed else 'permission denied'}"
        )


async def _sync(
    name: str, folder: str, options: SyncOptions, *, create: bool | None, watch: bool, quiet: bool, as_json: bool
) -> None:
    workspace = await _find(name, folder, options, create)
    if workspace is None:
        return
    if watch:
        if not quiet and not as_json:
            say(f"watching {folder} and {PREFIX}{workspace.found.full_name}; Ctrl-C ends it")
        async for report in workspace.watch(folder, options):
            if report.changed or report.conflicts:
                _print(report, quiet=quiet, as_json=as_json)
                sys.stdout.flush()
        return
    with _progress(quiet or as_json) as show:
        report = await workspace.sync_with(folder, options, show)
    _print(report, quiet=quiet, as_json=as_json)


async def _find(name: str, folder: str, options: SyncOptions, create: bool | None) -> AsyncWorkspace | None:
    """The workspace, made where it does not exist and something could be sent; None when nothing is to be done."""
    from atoll.domain.ids import workspace_id_of
    from atoll.sdk import AsyncWorkspace, NotFound
    from atoll.sdk.sync.values import Direction

    try:
        return await AsyncWorkspace.get(name)
    except NotFound:
        if options.direction is Direction.PULL or create is False or "/" in name or workspace_id_of(name):
            raise
    if create is None:
        listed = await AsyncWorkspace.list(name=name, shared=True)
        shared = [one.full_name for one in listed if one.permission != "owner"]
        if shared:
            said = f"you have no workspace {name}, and {' and '.join(shared)} is shared with you"
            raise Failed(f"{said}: say ws:{shared[0]}, or --create for one of your own")
    if options.dry_run:
        say(f"there is no workspace {name}: it would be made, and all of {folder} sent")
        return None
    made = await AsyncWorkspace.create(name)
    say(f"made a new workspace {made.name} ({made.id})")
    return made


def _print(report: SyncReport, *, quiet: bool, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        shown = asdict(report) | {"revision": report.revision.raw or asdict(report.revision)}
        output.print_json(shown)
        return
    if not quiet:
        lines = [f"{_SIGNS.get(path.change, '?')} -> {_shown(path)}" for path in report.sent]
        lines += [f"{_SIGNS.get(path.change, '?')} <- {_shown(path)}" for path in report.received]
        for line in lines if len(lines) <= _SHOWN_PATHS or report.dry_run else lines[:_SHOWN_PATHS]:
            typer.echo(_printable(line))
        if len(lines) > _SHOWN_PATHS and not report.dry_run:
            typer.echo(f"... and {len(lines) - _SHOWN_PATHS} more")
    for conflict in report.conflicts:
        where = "both are kept" if conflict.kept != conflict.path else "the change is kept"
        kept = f", the workspace's as {conflict.kept}" if conflict.kept != conflict.path else ""
        say(_printable(f"conflict: {conflict.path}: {conflict.reason}; {where}{kept}"))
    for left in report.left_out:
        say(_printable(f"left out: {left.path}: {left.reason}"))
    if report.not_deleted and not quiet:
        say(f"{len(report.not_deleted)} deleted paths were left where they still are (--delete carries that over)")
    if not quiet:
        typer.echo(_summary(report))


_SIGNS = {"added": "+", "changed": "~", "deleted": "-", "renamed": ">"}


def _shown(path: object) -> str:
    name, before = getattr(path, "path", ""), getattr(path, "renamed_from", None)
    return f"{before} => {name}" if before else name


def _summary(report: SyncReport) -> str:
    if not report.changed:
        return f"nothing to do: revision {report.revision.number}"
    would = "would be " if report.dry_run else ""
    moved = f" ({output.size(report.bytes_sent)} up, {output.size(report.bytes_received)} down)"
    counts = f"{output.count(len(report.sent), 'path', 'paths')} {would}sent, {len(report.received)} {would}received"
    return counts + ("" if report.dry_run else moved + f": revision {report.revision.number}")


def _printable(text: str) -> str:
    """Names may hold bytes that are no text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@contextlib.contextmanager
def _progress(quiet: bool) -> Generator[Callable[[SyncProgress], None] | None]:
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with output.progress() as shown:
        tasks: dict[str, TaskID] = {}

        def show(progress: SyncProgress) -> None:
            if progress.phase not in tasks:
                tasks[progress.phase] = shown.add_task(progress.phase)
            shown.update(tasks[progress.phase], completed=progress.done, total=progress.total)

        yield show
