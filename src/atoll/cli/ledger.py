"""`atoll ledger`: the proof that no money was lost or made, straight in the database, whether a server runs or not."""

from __future__ import annotations

import typer

from atoll.cli import options, output


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Prove that the ledger adds up.", no_args_is_help=True)
    group.callback()(_group)
    group.command("verify")(verify)
    app.add_typer(group, name="ledger", rich_help_panel="Server")


def _group() -> None:
    """Prove that the ledger adds up."""


def verify(data: options.DataFolder = None, as_json: output.Json = False) -> None:
    """Replay all transfers from nothing and compare every balance, day, budget and hold. Exit code 1 when one is
    wrong."""
    import asyncio

    from atoll.records.ledger_proof import prove
    from atoll.settings import load

    settings = load(overrides={"data": data})
    proof = asyncio.run(prove(settings.database_url))
    if as_json:
        output.print_json(
            {
                "ok": not proof.wrong,
                "transfers": proof.transfers,
                "accounts": proof.accounts,
                "pendingHolds": proof.pending_holds,
                "totalMicroUsd": proof.total,
                "wrong": proof.wrong,
                "problems": list(proof.problems),
            }
        )
    else:
        for problem in proof.problems:
            typer.echo(problem)
        if proof.wrong > len(proof.problems):
            typer.echo(f"and {proof.wrong - len(proof.problems)} more")
        if not proof.wrong:
            typer.echo(
                f"{proof.transfers} transfers replayed: {proof.accounts} accounts and {proof.pending_holds} pending "
                "holds are as they should be, and all balances add up to 0"
            )
    if proof.wrong:
        raise typer.Exit(1)
