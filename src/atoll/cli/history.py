"""The time machine on the command line: `atoll workspace log`, `diff`, `show`, `restore`, `undo`, `fork`, `merge`."""

from __future__ import annotations

import stat
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli import output
from atoll.cli.failure import FAILED, MISUSED, Failed, say
from atoll.cli.workspaces import Name, with_workspace

if TYPE_CHECKING:
    from atoll.sdk import AsyncWorkspace, PathChange, RestoreResult, RevisionInfo, TreeEntry

HEAD = "HEAD"
_KINDS = {"directory": "d", "symlink": "l", "hardlink": "h", "fifo": "p"}
_SIGNS = {"added": "+", "changed": "~", "deleted": "-", "renamed": ">"}


def add_to(group: typer.Typer) -> None:
    group.command("log", no_args_is_help=True)(log)
    group.command("diff", no_args_is_help=True)(diff)
    group.command("show", no_args_is_help=True)(show)
    group.command("restore", no_args_is_help=True)(restore)
    group.command("undo", no_args_is_help=True)(undo)
    group.command("commit", no_args_is_help=True)(commit)
    group.command("fork", no_args_is_help=True)(fork)
    group.command("merge", no_args_is_help=True)(merge)
    group.command("verify", no_args_is_help=True)(verify)


def split_revision(text: str) -> tuple[str, str]:
    """PATH@REV, PATH or @REV -> (path, revision)."""
    path, at, revision = text.rpartition("@")
    if not at:
        return text, HEAD
    return path, revision or HEAD


def log(
    name: Name,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.")] = 20,
    as_json: output.Json = False,
) -> None:
    """Its revisions, the newest first."""
    found = with_workspace(name, lambda workspace: workspace.log(limit=limit))
    if as_json:
        output.print_json([revision.raw for revision in found])
        return
    rows = [
        (
            revision.number,
            revision.id,
            output.age(revision.created_at),
            revision.reason,
            revision.entries,
            output.size(revision.bytes),
            " ".join([revision.message or "", *(f"[{snapshot}]" for snapshot in revision.snapshots)]).strip()
            + ("" if revision.state == "ready" else f" ({revision.state})"),
        )
        for revision in found
    ]
    output.print_table(("REVISION", "ID", "AGE", "REASON", "ENTRIES", "SIZE", "MESSAGE"), rows)


def diff(
    name: Name,
    a: Annotated[str, typer.Argument(metavar="[FROM]", help="A revision.")] = "HEAD~1",
    b: Annotated[str, typer.Argument(metavar="[TO]", help="Another.")] = HEAD,
    path: Annotated[str | None, typer.Option("--path", help="Only this path and what is below it.")] = None,
    text: Annotated[bool, typer.Option("--text", "-p", help="Unified diffs of text files.")] = False,
    as_json: output.Json = False,
) -> None:
    """What changed: [bold]atoll workspace diff project HEAD~3 HEAD --text[/bold]

    A revision is HEAD, HEAD~2, a number, a rev_ id, a snapshot's id or name, or a moment such as 2026-01-31T12:00Z.
    """
    from dataclasses import asdict

    found = with_workspace(name, lambda workspace: workspace.diff(a, b, path=path, text=text))
    if as_json:
        output.print_json([asdict(change) for change in found])
        return
    for change in found:
        if text and change.text:
            typer.echo(_printable(change.text), nl=not change.text.endswith("\n"))
        else:
            typer.echo(_printable(_changed(change)))


def _changed(change: PathChange) -> str:
    where = f"{change.renamed_from} => {change.path}" if change.renamed_from else change.path
    sizes = ""
    if change.kind == "file" and change.size_before != change.size_after:
        before = "" if change.size_before is None else output.size(change.size_before)
        after = "" if change.size_after is None else output.size(change.size_after)
        sizes = f"  {before} -> {after}" if before and after else f"  {before or after}"
    return f"{_SIGNS.get(change.change, '?')} {where}{sizes}"


def show(
    name: Name,
    what: Annotated[str, typer.Argument(metavar="[PATH][@REV]", help="A file or folder, and of which revision.")] = "",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="All below a folder.")] = False,
    as_json: output.Json = False,
) -> None:
    """Print a file, or list a folder, as it was: [bold]atoll workspace show project notes.txt@HEAD~2[/bold]"""
    path, revision = split_revision(what)
    path = path.strip("/")

    async def look(workspace: AsyncWorkspace) -> list[TreeEntry] | None:
        """None: it was a file, and is printed."""
        from atoll.sdk import AtollError

        depth = 256 if recursive else 1
        if path:
            parent, _, base = path.rpartition("/")
            async for entry in workspace.files(parent, revision=revision):
                if entry.path in (path, base) and entry.kind != "directory":
                    if as_json:
                        return [entry]
                    await workspace.download_into(path, sys.stdout.buffer, revision=revision)
                    return None
        try:
            return [entry async for entry in workspace.files(path, revision=revision, depth=depth)]
        except AtollError as error:
            raise Failed(f"{path}@{revision}: {error.message}") from None

    entries = with_workspace(name, look)
    if entries is None:
        sys.stdout.buffer.flush()
        return
    if as_json:
        from dataclasses import asdict

        output.print_json([asdict(entry) for entry in entries])
        return
    for entry in entries:
        kind = _KINDS.get(entry.kind, "-")
        target = f" -> {entry.target}" if entry.target else ""
        mode = stat.filemode(entry.mode)[1:]
        typer.echo(
            _printable(
                f"{kind}{mode} {output.size(entry.size):>6} {output.age(entry.modified_at):>5} {entry.path}{target}"
            )
        )


def restore(
    name: Name,
    what: Annotated[str, typer.Argument(metavar="[PATH]@REV", help="A revision or snapshot, whole or one path of it.")],
    as_json: output.Json = False,
) -> None:
    """Bring back how it was: [bold]atoll workspace restore project src/main.py@HEAD~1[/bold], or all of it: @HEAD~1

    That is a new revision: `undo` takes it back. Sandboxes that have it mounted see it at once.
    """
    if "@" not in what:
        raise Failed(f"say which revision: {what}@HEAD~1 brings back a path, @HEAD~1 all of it", MISUSED)
    path, revision = split_revision(what)
    done = with_workspace(name, lambda workspace: workspace.restore(revision, path.strip("/") or None))
    print_restored(done, as_json)


def print_restored(done: RestoreResult, as_json: bool) -> None:
    if as_json:
        before = None if done.before is None else done.before.raw
        written = {"entries": done.entries, "bytes": done.bytes}
        output.print_json({"revision": done.revision.raw, **written, "before": before, "changed": done.changed})
    elif done.changed:
        entries = output.count(done.entries, "entry", "entries")
        typer.echo(f"restored {entries} ({output.size(done.bytes)}): {_revision(done.revision)}{_kept(done.before)}")
    else:
        typer.echo(f"nothing to restore, it is so already: {_revision(done.revision)}")


def undo(name: Name, as_json: output.Json = False) -> None:
    """Take the newest change back, as a new revision."""

    async def take_back(workspace: AsyncWorkspace) -> tuple[RevisionInfo, RevisionInfo | None]:
        made = await workspace.undo()
        return made, None if as_json or made.parent is None else await workspace.revision(made.parent)

    made, before = with_workspace(name, take_back)
    if as_json:
        output.print_json(made.raw)
    else:
        typer.echo(f"back to {made.message or 'what was before'}: {_revision(made)}{_kept(before)}")


def commit(
    name: Name,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What it is.")] = None,
    as_json: output.Json = False,
) -> None:
    """Take a revision now; the newest one stays when nothing changed."""
    _print(with_workspace(name, lambda workspace: workspace.commit(message)), as_json)


def fork(
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="What to call the fork.")],
    revision: Annotated[str | None, typer.Option("--revision", "-r", help="Which state it begins with.")] = None,
    as_json: output.Json = False,
) -> None:
    """A new workspace that begins as this one is, at once: [bold]atoll workspace fork project experiment[/bold]"""
    from atoll.cli.failure import call_fields

    call_fields({"name": "NEW", "revision": "--revision"})
    made = with_workspace(name, lambda workspace: workspace.fork(new_name, revision=revision))
    if as_json:
        output.print_json(made.found.raw)
    else:
        typer.echo(f"{made.name}  {made.id}")


def merge(
    name: Name,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The workspace whose changes are to come in.")],
    revision: Annotated[str | None, typer.Option("--revision", "-r", help="Of the other; default: its newest.")] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Where both began; default: where they were forked.")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Bring another one's changes into this one. What both changed is kept twice."""
    from dataclasses import asdict

    from atoll.cli.failure import call_fields

    call_fields({"source": "OTHER", "revision": "--revision", "base": "--base"})
    done = with_workspace(name, lambda workspace: workspace.merge(other, revision=revision, base=base))
    if as_json:
        conflicts = [asdict(conflict) for conflict in done.conflicts]
        output.print_json({"revision": done.revision.raw, "changes": done.changes, "conflicts": conflicts})
        return
    for conflict in done.conflicts:
        say(
            _printable(
                f"conflict: {conflict.path}: {conflict.reason or 'changed on both sides'}; theirs is {conflict.kept}"
            )
        )
    changes = output.count(done.changes, "change", "changes")
    conflicts = output.count(len(done.conflicts), "conflict", "conflicts")
    typer.echo(f"{changes}, {conflicts}: {_revision(done.revision)}")


def verify(name: Name, as_json: output.Json = False) -> None:
    """Read every byte that is stored of it, and compare; exit code 1 when something is damaged."""
    from dataclasses import asdict

    found = with_workspace(name, lambda workspace: workspace.verify())
    if as_json:
        output.print_json({**asdict(found), "ok": found.ok})
    else:
        for damage in found.corrupt:
            where = " ".join(filter(None, (damage.revision, damage.snapshot, damage.path)))
            typer.echo(_printable(f"damaged: {where}: {damage.message}"))
        typer.echo(
            f"{found.revisions} revisions, {found.snapshots} snapshots, {found.chunks} chunks, "
            f"{output.size(found.bytes)}: {'all as stored' if found.ok else f'{len(found.corrupt)} damaged'}"
        )
    if not found.ok:
        raise typer.Exit(FAILED)


def _print(revision: RevisionInfo, as_json: bool) -> None:
    if as_json:
        output.print_json(revision.raw)
    else:
        typer.echo(_revision(revision))


def _revision(revision: RevisionInfo) -> str:
    return f"revision {revision.number}  {revision.id}"


def _kept(before: RevisionInfo | None) -> str:
    return "" if before is None else f"  (what was there is kept as r{before.number})"


def _printable(text: str) -> str:
    """Names may hold bytes that are no text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
