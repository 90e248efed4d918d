"""`atoll db`: move the records from one database to another."""

from __future__ import annotations

from typing import Annotated

import typer

from atoll.cli import options, output


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Move the records to another database.", no_args_is_help=True)
    group.callback()(_group)
    group.command("copy")(copy)
    app.add_typer(group, name="db", rich_help_panel="Server")


def _group() -> None:
    """Move the records to another database."""


def copy(
    to: Annotated[str, typer.Option("--to", help="postgresql://USER:PASSWORD@HOST:PORT/NAME, an empty database.")],
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Copy every record from the data folder's SQLite to an empty PostgreSQL and compare the counts.

    The server must be down. Afterwards start it with ATOLL_DATABASE_URL set to the new one.
    """
    import asyncio

    from atoll.cli.failure import MISUSED, Failed
    from atoll.records.copy import copy_database
    from atoll.records.data_folder import DataFolderLock
    from atoll.settings import database_url, load

    settings = load(overrides={"data": data})
    if not settings.folder.root.is_dir():
        raise Failed(f"there is no data folder {settings.folder.root}")
    try:
        target = database_url(to)
    except ValueError as error:
        raise Failed(f"--to: {error}", MISUSED) from None
    lock = DataFolderLock(settings.folder)
    lock.acquire()
    try:
        counts = asyncio.run(copy_database(settings.database_url, target))
    finally:
        lock.release()
    if as_json:
        output.print_json({name: {"source": here, "target": there} for name, (here, there) in counts.items()})
    else:
        output.print_table(("TABLE", "ROWS", "COPIED"), [(name, *pair) for name, pair in counts.items()])
