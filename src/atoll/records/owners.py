"""What each owner has stored, in SQL: a sum that every transaction changes which adds packs or takes them away.

`sql_chunks.py` calls it last in those: an owner's row is the last lock that they take, so none waits in a circle.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from atoll.domain.errors import QuotaExceeded
from atoll.records.prepared import Prepared
from atoll.records.schema import owners


def _add(kind: type[sqlite.Insert] | type[postgresql.Insert]) -> sqlite.Insert | postgresql.Insert:
    new = kind(owners).inline()
    total = owners.c.stored_bytes + new.excluded.stored_bytes
    return new.on_conflict_do_update(index_elements=[owners.c.id], set_={"stored_bytes": total})


_ADD = Prepared(_add(sqlite.Insert), on_postgres=_add(postgresql.Insert))
_GET = Prepared(select(owners).where(owners.c.id == bindparam("wanted")))


def charge(connection: Connection, added: Mapping[str, int], quota: int | None = None) -> None:
    """Add so many bytes to what each owner has stored; QuotaExceeded when an owner then has more than `quota`."""
    for owner, size in sorted(added.items()):
        if not size:
            continue
        _ADD.run(connection, {"id": owner, "stored_bytes": size})
        if quota is not None and size > 0 and (stored := stored_by(connection, owner)) > quota:
            raise QuotaExceeded(f"{owner} has {stored - size} of {quota} bytes stored, and would add {size}")


def stored_by(connection: Connection, owner: str) -> int:
    return (_GET.first(connection, {"wanted": owner}) or {"stored_bytes": 0})["stored_bytes"]
