"""`atoll doctor`: the isolation rules, proved on a probe sandbox of this machine in a data folder of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from atoll.cli import output

if TYPE_CHECKING:
    from atoll.runtimes.base import Report


def add_to(app: typer.Typer) -> None:
    app.command("doctor", rich_help_panel="Server")(doctor)


def doctor(as_json: output.Json = False) -> None:
    """Prove how well this machine isolates sandboxes, and say how to mend what is missing. Exit code 1: one fails."""
    import asyncio
    import shutil
    import tempfile

    # Beside a server that runs, not through it: its node and its sandboxes are left alone.
    folder = tempfile.mkdtemp(prefix="atoll-doctor-")
    try:
        report = asyncio.run(_examine(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        output.print_json(
            {
                "tier": report.tier,
                "isolated": report.isolated,
                "checks": [
                    {
                        "name": check.name,
                        "ok": check.ok,
                        "enforced": check.enforced,
                        "detail": check.detail,
                        "fix": check.fix,
                    }
                    for check in report.checks
                ],
            }
        )
    else:
        _show(report)
    raise typer.Exit(0 if report.passed else 1)


async def _examine(folder: str) -> Report:
    from atoll.adapters import open_runtime
    from atoll.domain.errors import AtollError
    from atoll.runtimes.local.doctor import unavailable
    from atoll.settings import load

    runtime = open_runtime(load(overrides={"data": folder}))
    try:
        await runtime.start()
    except AtollError as error:
        await runtime.close()
        return unavailable(error)
    try:
        return await runtime.doctor()
    finally:
        await runtime.shutdown()


def _show(report: Report) -> None:
    from rich.markup import escape

    screen = output.console()
    for check in report.checks:
        mark = "[red]FAIL[/]" if check.failed else "[green]ok  [/]" if check.ok else "[yellow]--  [/]"
        detail = check.detail if check.ok or check.failed else f"not enforced in this tier: {check.detail}"
        screen.print(f"{mark} {check.name:<24} {escape(detail)}")
        if check.fix:
            screen.print(f"     [yellow]fix:[/] {escape(check.fix)}")
    verdict = "[green]isolated[/]" if report.isolated else "[red]not isolated[/]"
    missing = sum(not check.ok and not check.enforced for check in report.checks)
    but = f"; {missing} rules of the root tier are not enforced" if missing else ""
    screen.print(f"\ntier [bold]{report.tier}[/], {verdict}{but}")
