"""What keeps the program itself from changing an event on SQLite: triggers of its own connections.

They are no part of the file: whoever may write that can take triggers out of it as well. What is changed there shows
in `atoll audit verify`. PostgreSQL, where not everybody who connects owns the table, has them in the database.
"""

from __future__ import annotations

EVENTS_STAY = tuple(
    f"CREATE TEMP TRIGGER IF NOT EXISTS events_stay_{what.lower()} BEFORE {what} ON main.events"
    " BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
    for what in ("UPDATE", "DELETE")
)
