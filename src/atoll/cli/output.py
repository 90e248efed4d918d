"""How commands show things: rich tables for people, JSON for programs, and times and sizes in short."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: object) -> None:
    """One line of JSON."""
    typer.echo(json.dumps(value, default=_plain, separators=(", ", ": ")))


def console(*, stderr: bool = False) -> Console:
    """A rich console; colours and widths are as the terminal, NO_COLOR and COLUMNS say."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # A pipe has no width: never wrap what another program reads.
    return Console(stderr=stderr, soft_wrap=not stream.isatty(), highlight=False)


def progress() -> Progress:
    """Bars of bytes on standard error, gone when they are done."""
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(binary_units=True),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    return bars.Progress(*columns, console=console(stderr=True), transient=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
    """A table with a heading; `empty` is said instead when there is no row."""
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    if not rows and empty:
        typer.echo(empty, err=True)
        return
    screen = console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ignore" if not screen.is_terminal else "ellipsis")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    if not screen.is_terminal:
        screen.width = 10_000
    screen.print(table)


def age(moment: datetime | None) -> str:
    """How long ago: 5s, 3m, 2h, 4d."""
    if moment is None:
        return "-"
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for limit, unit_s, unit in ((100, 1, "s"), (6_000, 60, "m"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{int(seconds / unit_s)}{unit}"
    return f"{int(seconds / 86_400)}d"


def size(count: int) -> str:
    """Bytes in binary units: 512B, 3.4M."""
    value = float(count)
    for unit in "BKMGT":
        if value < 1024 or unit == "T":
            return f"{value:.0f}{unit}" if unit == "B" or value >= 100 else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError


def count(number: int, one: str, several: str) -> str:
    """`1 entry`, `2 entries`."""
    return f"{number} {one if number == 1 else several}"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)  # type: ignore[type-var]
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
