"""What the demo has done so far, and how long each step of it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Steps:
    """Says what happens and how long each step took; the times come back as a table at the end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.times: list[tuple[str, float]] = []

    @contextmanager
    def step(self, label: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        taken_ms = (time.perf_counter() - began) * 1e3
        self.times.append((label, taken_ms))
        self.console.print(f"[green]ok[/]  {escape(label)}  [bold]{taken_ms:.1f} ms[/]")

    def table(self) -> Table:
        table = Table("step", title="How long it took", title_justify="left")
        table.add_column("ms", justify="right")
        for label, taken_ms in self.times:
            table.add_row(escape(label), f"{taken_ms:.1f}")
        return table
