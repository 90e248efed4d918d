"""Counters that servers share, in SQL: one guarded upsert for each take, by the database's own clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from atoll.domain.rate import Pace, Rate, Taken
from atoll.records.rates import RateRecords
from atoll.records.sql_store import SqlStore, storable

# What differs between the two: the clock in seconds, and the greater of two numbers.
_WORDS = {
    "postgresql": {"now": "CAST(extract(epoch FROM clock_timestamp()) AS double precision)", "greatest": "greatest"},
    "sqlite": {"now": "((julianday('now') - 2440587.5) * 86400.0)", "greatest": "max"},
}
# A bucket: what was spent flows away at `flow`, whoever asks moves it to now.
_BUCKET = """
INSERT INTO rates (name, spent, since) VALUES (:name, :tokens, {now})
ON CONFLICT (name) DO UPDATE SET
    spent = {greatest}(0.0, rates.spent - {greatest}(0.0, excluded.since - rates.since) * :flow) + :tokens,
    since = {greatest}(excluded.since, rates.since)
WHERE {greatest}(0.0, rates.spent - {greatest}(0.0, excluded.since - rates.since) * :flow) + :tokens <= :most
RETURNING spent, {now} - since AS age_s"""
# A window: it begins with the first, and again with the first after its end.
_WINDOW = """
INSERT INTO rates (name, spent, since) VALUES (:name, :tokens, {now})
ON CONFLICT (name) DO UPDATE SET
    spent = CASE WHEN excluded.since >= rates.since + :flow THEN 0.0 ELSE rates.spent END + :tokens,
    since = CASE WHEN excluded.since >= rates.since + :flow THEN excluded.since ELSE rates.since END
WHERE excluded.since >= rates.since + :flow OR rates.spent + :tokens <= :most
RETURNING spent, {now} - since AS age_s"""
# After a power cut the count may begin anew: nobody waits for the disk.
_NOT_DURABLE = text("SET LOCAL synchronous_commit TO off")
_LOOK = "SELECT spent, {now} - since AS age_s FROM rates WHERE name = :name"
_GIVE_BACK = "UPDATE rates SET spent = {greatest}(0.0, spent - 1.0) WHERE name = :name"
_PRUNE = "DELETE FROM rates WHERE since < {now} - :unused_s"


class SqlRates(SqlStore, RateRecords):
    """See `RateRecords`."""

    async def take_tokens(self, name: str, pace: Pace, tokens: int = 1) -> Taken:
        flow = pace.per_s if isinstance(pace, Rate) else pace.window_s
        taking = _BUCKET if isinstance(pace, Rate) else _WINDOW
        values = storable({"name": name, "flow": float(flow), "most": float(pace.limit)})

        def take(connection: Connection) -> Taken:
            words = _WORDS[connection.dialect.name]
            if connection.dialect.name == "postgresql":
                connection.execute(_NOT_DURABLE)
            for wanted in dict.fromkeys((tokens, 1)):
                statement = text(taking.format(**words))
                row = connection.execute(statement, {**values, "tokens": float(wanted)}).mappings().first()
                if row is not None:
                    return Taken(wanted, row["spent"], max(0.0, row["age_s"]))
            found: Any = connection.execute(text(_LOOK.format(**words)), values).mappings().first()
            return Taken(0, *_now(pace, found["spent"], max(0.0, found["age_s"])))

        return await self._database.write(take)

    async def give_back_token(self, name: str) -> None:
        values = storable({"name": name})

        def give_back(connection: Connection) -> None:
            if connection.dialect.name == "postgresql":
                connection.execute(_NOT_DURABLE)
            connection.execute(text(_GIVE_BACK.format(**_WORDS[connection.dialect.name])), values)

        await self._database.write(give_back)

    async def prune_rates(self, unused_s: float) -> None:
        def prune(connection: Connection) -> None:
            statement = text(_PRUNE.format(**_WORDS[connection.dialect.name]))
            connection.execute(statement, {"unused_s": unused_s})

        await self._database.write(prune)


def _now(pace: Pace, spent: float, age_s: float) -> tuple[float, float]:
    """A count that was last moved `age_s` ago, as it is now."""
    moved, since = pace.moved(spent, -age_s, 0.0)
    return moved, -since
