"""A figure, the table that shows all of them and the JSON file that keeps them; every part adds its rows here."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `ratio` is value / the value of the figure named `against`; `value` None: not measured."""

    name: str
    value: float | None
    unit: str
    ratio: float | None = None
    against: str | None = None


@dataclass(slots=True)
class Row:
    """One line of the table: what was measured, and up to three values in one unit."""

    name: str
    label: str
    unit: str
    value: float | None = None  # the median, or the only value
    p95: float | None = None
    p99: float | None = None
    against: str | None = None
    goal: str = ""
    why_not: str = "not measured"


class Report:
    """Rows in the order in which they were added; ratios are computed at the end, so `against` may come later."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def times(
        self, name: str, label: str, values_ms: Sequence[float], *, against: str | None = None, goal: str = ""
    ) -> None:
        """A row of milliseconds: median, p95 and p99 of the samples."""
        ordered = sorted(values_ms)
        self.rows[name] = Row(
            name, label, "ms", statistics.median(ordered), at(ordered, 0.95), at(ordered, 0.99), against, goal
        )

    def value(
        self, name: str, label: str, value: float, unit: str, *, against: str | None = None, goal: str = ""
    ) -> None:
        """A row with one value."""
        self.rows[name] = Row(name, label, unit, value, against=against, goal=goal)

    def missing(self, name: str, label: str, why: str) -> None:
        """A row that says why there is no value."""
        self.rows[name] = Row(name, label, "", why_not=why)

    def ratio(self, row: Row) -> float | None:
        base = self.rows.get(row.against or "")
        if row.value is None or base is None or not base.value:
            return None
        return row.value / base.value

    def figures(self) -> list[Figure]:
        """One figure for each value: `name`, and `name.p95`, `name.p99` for rows of times."""
        found: list[Figure] = []
        for row in self.rows.values():
            ratio = self.ratio(row)
            against = row.against if ratio is not None else None
            found.append(Figure(row.name, rounded(row.value), row.unit, rounded(ratio), against))
            for suffix, value in (("p95", row.p95), ("p99", row.p99)):
                if value is not None:
                    found.append(Figure(f"{row.name}.{suffix}", rounded(value), row.unit))
        return found

    def write(self, path: Path) -> None:
        """The JSON file: a list of `{name, value, unit, ratio, against}`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = Figure.__slots__
        rows = [{key: getattr(figure, key) for key in keys} for figure in self.figures()]
        path.write_text(json.dumps(rows, indent=1) + "\n")

    def show(self, console: Console, title: str) -> None:
        table = Table(title=title, title_justify="left")
        table.add_column("what")
        for heading in ("value", "p95", "p99"):
            table.add_column(heading, justify="right")
        table.add_column("unit")
        table.add_column("ratio")
        table.add_column("goal")
        for row in self.rows.values():
            ratio = self.ratio(row)
            table.add_row(
                row.label,
                text(row.value) or f"[dim]{row.why_not}",
                text(row.p95),
                text(row.p99),
                row.unit,
                f"{ratio:.2f}x {row.against}" if ratio is not None else "",
                row.goal,
            )
        console.print(table)

    def markdown(self) -> str:
        """The measured rows as a table for a page."""
        lines = ["| what | median | p99 | ratio |", "|---|---|---|---|"]
        for row in self.rows.values():
            if row.value is None:
                continue
            ratio = self.ratio(row)
            against = f"{ratio:.1f}x {row.against}" if ratio is not None else ""
            p99 = "" if row.p99 is None else f"{text(row.p99)} {row.unit}"
            label = row.label.replace("|", "\\|")  # else it would end the cell
            lines.append(f"| {label} | {text(row.value)} {row.unit} | {p99} | {against} |".replace("  ", " "))
        return "\n".join(lines)


def at(ordered: Sequence[float], quantile: float) -> float:
    """The nearest-rank quantile of sorted values."""
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


def rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
