"""`atoll cp`: files and folders into and out of a sandbox, streamed, with a bar on a terminal."""

# ruff: noqa: ASYNC240 (nothing else waits while this command looks at a local path)
from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Generator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli import output
from atoll.cli.failure import MISUSED, Failed, say

if TYPE_CHECKING:
    from atoll.sdk import AsyncSandbox

_REMOTE = re.compile(r"([A-Za-z0-9][\w.-]*):(.*)", re.DOTALL)


def add_to(app: typer.Typer) -> None:
    app.command("cp", rich_help_panel="Sandboxes", no_args_is_help=True)(cp)


def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A local path, or SANDBOX:PATH; - is the input.")],
    destination: Annotated[str, typer.Argument(metavar="DEST", help="The same; - is the output.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    as_json: output.Json = False,
) -> None:
    """Copy a file or a folder: [bold]atoll cp notes.txt mybox:/tmp/[/bold], [bold]atoll cp mybox:/etc .[/bold]"""
    import asyncio

    there, here = _REMOTE.fullmatch(source), _REMOTE.fullmatch(destination)
    if bool(there) == bool(here):
        raise Failed("one of SOURCE and DEST must be SANDBOX:PATH, and the other a local path", MISUSED)
    bytes_moved = 0
    with _progress(quiet or as_json) as shown:

        def progress(what: str, total: int | None) -> Callable[[int], None]:
            show = shown(what, total)

            def moved(count: int) -> None:
                nonlocal bytes_moved
                bytes_moved += count
                show(count)

            return moved

        if here:
            asyncio.run(_upload(source, here[1], here[2] or ".", progress))
        elif there:
            asyncio.run(_download(there[1], there[2] or ".", destination, progress))
    if as_json:
        output.print_json({"source": source, "destination": destination, "bytes": bytes_moved})


Start = Callable[[str, int | None], Callable[[int], None]]  # (what, bytes in all) -> called with bytes moved


async def _upload(source: str, name: str, path: str, progress: Start) -> None:
    from atoll.cli.finding import find

    sandbox = await find(name)
    if source == "-":
        progress("-", None)(await sandbox.files.write(path, sys.stdin.buffer))
        return
    local = Path(source)
    if not local.exists():
        raise Failed(f"{source}: no such file or directory")
    into = path.endswith("/") or await _is_directory(sandbox, path)
    target = str(PurePosixPath(path, local.resolve().name)) if into and not source.endswith("/.") else path
    if local.is_dir():
        from atoll.cli.trees import send_tree

        await send_tree(sandbox, local, target, progress)
    else:
        await sandbox.files.upload(local, target, progress=progress(local.name, local.stat().st_size))


async def _download(name: str, path: str, destination: str, progress: Start) -> None:
    from atoll.cli.finding import find

    sandbox = await find(name)
    if destination == "-":
        await sandbox.files.download_into(path, sys.stdout.buffer, progress=progress("-", None))
        return
    local = Path(destination)
    if destination.endswith("/") and not local.is_dir():
        raise Failed(f"{destination}: no such directory")
    entry = await sandbox.files.stat(path)
    base = PurePosixPath(path).name or sandbox.id
    if await _is_directory(sandbox, path):
        from atoll.cli.trees import fetch_tree

        target = local / base if local.is_dir() and not path.endswith("/.") else local
        skipped = await fetch_tree(sandbox, path, target, progress)
        if skipped:
            say(f"{skipped} links and special files were left out")
        return
    target = local / base if local.is_dir() else local
    await sandbox.files.download(path, target, progress=progress(base, entry.size))
    if entry.kind == "file":
        os.chmod(target, entry.mode & 0o777)


async def _is_directory(sandbox: AsyncSandbox, path: str) -> bool:
    """Whether it is one, by whatever links."""
    from atoll.domain.errors import AtollError

    try:
        entry = await sandbox.files.stat(path)
        if entry.kind == "symlink":
            await sandbox.files.list(path)
            return True
    except AtollError:
        return False
    return entry.kind == "directory"


@contextlib.contextmanager
def _progress(quiet: bool) -> Generator[Start]:
    if quiet or not sys.stderr.isatty():
        yield lambda what, total: lambda moved: None
        return
    with output.progress() as shown:

        def start(what: str, total: int | None) -> Callable[[int], None]:
            task = shown.add_task(what, total=total)
            return lambda moved: shown.advance(task, moved)

        yield start
