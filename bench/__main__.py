"""`make bench`: every part on one server of its own, one table, and build/bench.json."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

from rich.console import Console

from bench import (
    audit,
    authentication,
    crowd,
    interactive,
    ledger,
    models,
    previews,
    running,
    snapshots,
    syncing,
    tasks,
    terminals,
    trees,
)
from bench.figures import Report
from bench.server import Server, server

WIDTH = 150  # of the table where there is no terminal to ask
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
OUT = Path(__file__).parents[1] / "build" / "bench.json"


def parts(quick: bool) -> dict[str, Callable[[Report, Server], None]]:
    """The benchmark's parts by name; `quick` takes few samples, to see that all of it works."""
    n = 10 if quick else 100
    idle, live = (20, 50) if quick else (200, 1000)
    size = (32 if quick else 256) * 2**20
    sizes = (trees.SMALL,) if quick else (*trees.SEED_SIZES, trees.LARGE)
    shape, large = (trees.SMALL, 64 * 2**20) if quick else (trees.LARGE, 2**31)
    return {
        "sequential": lambda report, _: interactive.sequential(report, n),
        "peers": lambda report, _: interactive.peers(report, n),
        "staggered": lambda report, _: interactive.staggered(report, n),
        "burst": lambda report, _: interactive.burst(report, n),
        "auth": lambda report, up: authentication.authentication(report, up, 3 * n),
        "audit": lambda report, _: audit.audit(report, 10_000 if quick else 100_000),
        "ledger": lambda report, _: ledger.ledger(report, 500 if quick else 5_000),
        "models": lambda report, _: models.models(report, 2 if quick else 8),
        "previews": lambda report, up: previews.previews(report, up, 1 if quick else 4, 1 if quick else 3),
        "exec": lambda report, _: running.execs(report, 3 * n),
        "terminal": lambda report, _: running.terminal_echo(report, 3 * n),
        "terminals": lambda report, up: terminals.terminals(
            report, up, size=(8 if quick else 64) * 2**20, rounds=3 if quick else 5, idle=20 if quick else 1000
        ),
        "file": lambda report, up: running.big_file(report, up.pid, size),
        "sync": lambda report, _: syncing.sync(report, sizes, 1 if quick else 3),
        "snapshots": lambda report, _: snapshots.snapshots(report, shape, 1 if quick else 5),
        "large": lambda report, up: snapshots.large_file(report, up.pid, large),
        "tasks": lambda report, up: tasks.tasks(report, up, n),
        "crowd": lambda report, up: crowd.crowd(report, up, idle=idle, live=live, asks=n),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="few samples: does it all work?")
    arguments.add_argument("--only", metavar="PART,...", help=f"some of: {', '.join(parts(True))}")
    arguments.add_argument("--readme", action="store_true", help="put the figures into README.md too")
    arguments.add_argument("--json", type=Path, default=OUT, help="where the figures go")
    chosen = arguments.parse_args()
    every = parts(chosen.quick)
    names = chosen.only.split(",") if chosen.only else list(every)
    if unknown := [name for name in names if name not in every]:
        arguments.error(f"no such part: {', '.join(unknown)}")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    report = Report()
    load = os.getloadavg()[0]
    with server() as up:
        for name in names:
            with console.status(f"measuring {name} ..."):
                every[name](report, up)
    report.write(chosen.json)
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    # Other people's work on the machine is in every figure: say how much there was.
    title = f"Atoll, {machine}, load before {load:.1f}"
    report.show(console, title)
    if chosen.readme:
        into_readme(f"{title} ({date.today()}):\n\n{report.markdown()}")
    console.print(f"figures: {os.path.relpath(chosen.json)}")


def into_readme(text: str) -> None:
    """Replace what stands between the marks of the README's figures."""
    page = README.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
