"""The proof of the ledger: one state of the database, all transfers replayed, every stored sum compared.

`atoll ledger verify` calls it, whether a server runs or not.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from atoll.domain.errors import NotFound, Unavailable
from atoll.domain.ledger_replay import Replay
from atoll.records import postgres, sqlite
from atoll.records.copy import STATEMENT_S, batches
from atoll.records.dump import check_schema
from atoll.records.ledger_rows import account_of, hold_of, transfer_of
from atoll.records.schema import (
    ledger_accounts,
    ledger_budgets,
    ledger_days,
    ledger_holds,
    ledger_transfers,
    ledger_uses,
)


@dataclass(frozen=True, slots=True)
class Proof:
    """What was looked at. `problems` are the first ones in words; of `wrong` there are none when all is as it should
    be. `total` is the sum of all balances: 0."""

    transfers: int
    accounts: int
    pending_holds: int
    total: int
    wrong: int
    problems: tuple[str, ...]


async def prove(url: str) -> Proof:
    """NotFound without a database, Conflict when it needs a migration, Unavailable."""
    try:
        if make_url(url).get_backend_name() == "sqlite":
            return await asyncio.to_thread(_prove_file, Path(make_url(url).database or ""))
        engine = postgres.engine(url, connections=1, statement_s=STATEMENT_S)
        try:
            async with engine.connect() as opened:
                connection = await opened.execution_options(isolation_level="REPEATABLE READ")
                return await connection.run_sync(prove_in)
        finally:
            await engine.dispose()
    except (OSError, DBAPIError, sqlite3.Error) as error:
        raise Unavailable(f"the ledger could not be read: {getattr(error, 'orig', error)}") from error


def _prove_file(path: Path) -> Proof:
    if not path.is_file():
        raise NotFound(f"there is no database {path}")
    engine = sqlite.engine(path)
    try:
        with engine.connect() as connection:
            sqlite.execute(connection, "BEGIN")
            try:
                return prove_in(connection)
            finally:
                sqlite.execute(connection, "ROLLBACK")
    finally:
        engine.dispose()


def prove_in(connection: Connection) -> Proof:
    """In a transaction that sees one state of the database."""
    check_schema(connection)
    replay = Replay()
    accounts = pending = total = 0
    for row in _rows(connection, ledger_transfers):
        with _Reading(replay, "transfer", row["id"]):
            replay.add(transfer_of(row))
    for row in _rows(connection, ledger_holds):
        with _Reading(replay, "hold", row["id"]):
            replay.add_hold(hold_of(row))
            pending += row["state"] == "pending"
    for row in _rows(connection, ledger_accounts):
        accounts, total = accounts + 1, total + row["balance"]
        replay.check_account(account_of(row))
    for row in _rows(connection, ledger_days):
        replay.check_day(row["account"], row["day"], row["spent"])
    for row in _rows(connection, ledger_budgets):
        replay.check_budget(row["subject"], row["spent"], row["held"])
    replay.check_absent()
    _check_holds(connection, replay)
    _check_uses(connection, replay)
    if total:
        replay.problem(f"all balances together are {total} micro-dollars, not 0")
    return Proof(replay.transfers, accounts, pending, total, replay.wrong, tuple(replay.problems))


class _Reading:
    """What cannot be read is a problem, not the end of the proof."""

    def __init__(self, replay: Replay, what: str, which: Any) -> None:
        self._replay, self._name = replay, f"{what} {which}"

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if isinstance(error, ValueError | KeyError | TypeError):
            self._replay.problem(f"{self._name} is damaged: {error}")
            return True
        return False


def _rows(connection: Connection, table: Table) -> Iterator[Mapping[str, Any]]:
    for batch in batches(connection, table):
        yield from batch


def _check_holds(connection: Connection, replay: Replay) -> None:
    """Each hold was charged what its transfer says, and only what was resolved was."""
    holds, transfers = ledger_holds.c, ledger_transfers.c
    taken = func.coalesce(transfers.amount, 0)
    query: Any = select(holds.id, holds.state, holds.posted, taken.label("taken"))
    query = query.select_from(ledger_holds.outerjoin(ledger_transfers, transfers.hold == holds.id)).where(
        (holds.posted != taken) | ((taken > 0) & holds.state.in_(("pending", "voided")))
    )
    for row in connection.execute(query.order_by(holds.id)).mappings():
        replay.problem(
            f"hold {row['id']} ({row['state']}): charged {row['posted']} micro-dollars, "
            f"and its transfer says {row['taken']}"
        )


def _check_uses(connection: Connection, replay: Replay) -> None:
    """What the uses of an account say was charged is what the account spent."""
    uses, accounts = ledger_uses.c, ledger_accounts.c
    charged: Any = select(uses.account, func.sum(uses.charged).label("charged")).where(~uses.internal)
    charged = charged.group_by(uses.account).subquery()
    told = func.coalesce(charged.c.charged, 0)
    query: Any = select(accounts.id, accounts.spent, told.label("charged"))
    query = query.select_from(ledger_accounts.outerjoin(charged, charged.c.account == accounts.id))
    for row in connection.execute(query.where(accounts.spent != told).order_by(accounts.id)).mappings():
        replay.problem(
            f"account {row['id']}: spent {row['spent']} micro-dollars, and its uses say {int(row['charged'])}"
        )
