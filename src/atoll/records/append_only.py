"""What keeps the program itself from changing an event, a transfer or a use on SQLite: triggers of its own connections.

They are no part of the file: whoever may write that can take triggers out of it as well. What is changed there shows
in `atoll audit verify` and `atoll ledger verify`. PostgreSQL, where not everybody who connects owns the table, has
them in the database.
"""

from __future__ import annotations

ROWS_STAY = tuple(
    f"CREATE TEMP TRIGGER IF NOT EXISTS {table}_stay_{what.lower()} BEFORE {what} ON main.{table}"
    f" BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
    for table in ("events", "ledger_transfers", "ledger_uses")
    for what in ("UPDATE", "DELETE")
)
