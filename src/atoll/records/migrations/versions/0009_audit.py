"""The chains of events, their checkpoints, and who is told."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

GENESIS = bytes(32)
BATCH_ROWS = 1_000
# PostgreSQL alone; on SQLite each connection of the program has such triggers of its own, see records/append_only.py.
STAY = (
    "CREATE FUNCTION events_stay() RETURNS trigger AS $$"
    " BEGIN RAISE EXCEPTION 'events are append-only' USING ERRCODE = 'insufficient_privilege'; END $$ LANGUAGE plpgsql",
    "CREATE TRIGGER events_stay BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION events_stay()",
    "CREATE TRIGGER events_not_truncated BEFORE TRUNCATE ON events EXECUTE FUNCTION events_stay()",
)


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("events", sa.Column("credential", sa.String))
    op.add_column("events", sa.Column("address", sa.String))
    op.add_column("events", sa.Column("seq", sa.BigInteger))
    op.add_column("events", sa.Column("previous", sa.LargeBinary))
    op.add_column("events", sa.Column("hash", sa.LargeBinary))
    op.create_table(
        "event_heads",
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_event_heads"),
        sqlite_with_rowid=False,
    )
    _chain(op.get_bind())
    with op.batch_alter_table("events", table_kwargs={"sqlite_autoincrement": True}) as events:
        events.alter_column("seq", existing_type=sa.BigInteger, nullable=False)
        events.alter_column("previous", existing_type=sa.LargeBinary, nullable=False)
        events.alter_column("hash", existing_type=sa.LargeBinary, nullable=False)
    op.create_index("ix_events_tenant_seq", "events", ["tenant", "seq"], unique=True)
    op.create_table(
        "audit_keys",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("public", sa.LargeBinary, nullable=False),
        sa.Column("vault", sa.String, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_keys"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("previous", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_checkpoints"),
    )
    op.create_table(
        "checkpoint_heads",
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("checkpoint", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "seq", name="pk_checkpoint_heads"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_checkpoint_heads_checkpoint", "checkpoint_heads", ["checkpoint"])
    _webhooks(moment)
    if op.get_bind().dialect.name == "postgresql":
        for statement in STAY:
            op.execute(statement)


def _webhooks(moment: sa.DateTime) -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("actions", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("everyone", sa.Boolean, nullable=False),
        sa.Column("vault", sa.String, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("disabled_at", moment),
        sa.Column("disabled_why", sa.Text),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("maker", sa.String, nullable=False),
        sa.Column("credential", sa.String, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failing_since", moment),
        sa.Column("next_at", moment),
        sa.Column("delivered_at", moment),
        sa.Column("last_error", sa.Text),
        sa.Column("lease_holder", sa.String),
        sa.Column("leased_until", moment),
        sa.Column("leased_at", moment),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
    )
    op.create_index("ix_webhooks_owner_created_at", "webhooks", ["owner", "created_at"])
    op.create_table(
        "webhook_cursors",
        sa.Column("webhook", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("webhook", "tenant", name="pk_webhook_cursors"),
        sqlite_with_rowid=False,
    )


def _chain(connection: sa.Connection) -> None:
    """Number and hash the events that are there, in their order."""
    # On SQLite the moment as it is stored: what was written by hand may have another form than the program's.
    at = sa.String if connection.dialect.name == "sqlite" else sa.DateTime(timezone=True)
    words = ("action", "target", "tenant", "actor", "outcome", "request_id", "detail")
    events = sa.table(
        "events",
        sa.column("id", sa.BigInteger),
        sa.column("at", at),
        *(sa.column(name, sa.String) for name in words),
        sa.column("seq", sa.BigInteger),
        sa.column("previous", sa.LargeBinary),
        sa.column("hash", sa.LargeBinary),
    )
    heads: dict[str, tuple[int, bytes]] = {}
    after = 0
    while True:
        query = sa.select(events).where(events.c.id > after).order_by(events.c.id).limit(BATCH_ROWS)
        rows = list(connection.execute(query).mappings())
        if not rows:
            break
        links = [_link(dict(row), heads) for row in rows]
        connection.execute(
            events.update()
            .where(events.c.id == sa.bindparam("of"))
            .values({name: sa.bindparam(f"new_{name}") for name in ("seq", "previous", "hash")}),
            links,
        )
        after = rows[-1]["id"]
    table = sa.table(
        "event_heads",
        sa.column("tenant", sa.String),
        sa.column("seq", sa.BigInteger),
        sa.column("hash", sa.LargeBinary),
    )
    for tenant, (seq, digest) in heads.items():
        connection.execute(sa.insert(table).values(tenant=tenant, seq=seq, hash=digest))


def _link(row: dict[str, Any], heads: dict[str, tuple[int, bytes]]) -> dict[str, Any]:
    seq, previous = heads.get(row["tenant"], (0, GENESIS))
    seq += 1
    columns = [
        "event/1", row["tenant"], seq, row["id"], _moment(row["at"]), row["action"], row["target"], row["actor"],
        None, row["outcome"], row["request_id"], None, row["detail"],
    ]  # fmt: skip
    text = json.dumps(columns, separators=(",", ":"))
    digest = hashlib.sha256(previous + text.encode("ascii")).digest()
    heads[row["tenant"]] = seq, digest
    return {"of": row["id"], "new_seq": seq, "new_previous": previous, "new_hash": digest}


def _moment(at: str | datetime) -> str:
    if isinstance(at, str):
        return at.replace(" ", "T") + "+00:00"
    return at.astimezone(UTC).isoformat(timespec="microseconds")
