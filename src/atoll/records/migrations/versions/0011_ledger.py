"""The ledger: accounts, transfers, holds, budgets and uses, with Testbase's names for them as views."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

# The division by 1000000.0 is exact in PostgreSQL (numeric); SQLite has no decimals and gives the nearest number.
VIEWS = {
    "billing_accounts": """
SELECT id, id AS api_key_id, balance / 1000000.0 AS credits_balance, spent / 1000000.0 AS total_spent,
    daily_limit / 1000000.0 AS daily_limit, monthly_limit / 1000000.0 AS monthly_limit, created_at, updated_at
FROM ledger_accounts WHERE id NOT IN ('issued', 'earned')""",
    "transactions": """
SELECT id, account AS api_key_id, kind AS type,
    CASE WHEN credit = account THEN amount ELSE -amount END / 1000000.0 AS amount,
    balance_after / 1000000.0 AS balance_after, description, detail AS metadata, at AS timestamp
FROM ledger_transfers""",
    "usage_records": """
SELECT task AS id, account AS api_key_id, max(thread) AS session_id, max(workspace) AS workspace_id,
    max(at) AS timestamp, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
    sum(input_tokens + output_tokens) AS total_tokens, sum(input_cost) / 1000000.0 AS input_cost,
    sum(output_cost) / 1000000.0 AS output_cost, sum(input_cost + output_cost) / 1000000.0 AS total_cost,
    max(model) AS model, sum(seconds) AS duration, 'recorded' AS status, '/execute' AS endpoint
FROM ledger_uses WHERE task IS NOT NULL AND NOT internal GROUP BY task, account""",
}

# PostgreSQL alone; on SQLite each connection of the program has such triggers of its own, see records/append_only.py.
STAY = (
    "CREATE FUNCTION ledger_stays() RETURNS trigger AS $$"
    " BEGIN RAISE EXCEPTION '% are append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege'; END $$"
    " LANGUAGE plpgsql"
)


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    _accounts(moment)
    _holds(moment)
    _uses(moment)
    for name, query in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(STAY)
        for table in ("ledger_transfers", "ledger_uses"):
            op.execute(
                f"CREATE TRIGGER {table}_stay BEFORE UPDATE OR DELETE ON {table}"
                " FOR EACH ROW EXECUTE FUNCTION ledger_stays()"
            )
            op.execute(
                f"CREATE TRIGGER {table}_not_truncated BEFORE TRUNCATE ON {table} EXECUTE FUNCTION ledger_stays()"
            )


def _accounts(moment: sa.DateTime) -> None:
    op.create_table(
        "ledger_accounts",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("daily_limit", sa.BigInteger),
        sa.Column("monthly_limit", sa.BigInteger),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_accounts"),
    )

    op.create_table(
        "ledger_transfers",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("debit", sa.String, nullable=False),
        sa.Column("credit", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("balance_after", sa.BigInteger, nullable=False),
        sa.Column("key", sa.String),
        sa.Column("hold", sa.String),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_transfers"),
    )
    op.create_index("ix_ledger_transfers_account_id", "ledger_transfers", ["account", "id"])
    op.create_index("ix_ledger_transfers_account_key", "ledger_transfers", ["account", "key"], unique=True)
    op.create_index("ix_ledger_transfers_hold", "ledger_transfers", ["hold"], unique=True)


def _holds(moment: sa.DateTime) -> None:
    op.create_table(
        "ledger_holds",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.Column("budgets", sa.Text, nullable=False),
        sa.Column("task", sa.String),
        sa.Column("posted", sa.BigInteger, nullable=False),
        sa.Column("resolved_at", moment),
        sa.Column("use", sa.String),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_holds"),
    )
    pending = sa.text("state = 'pending'")
    op.create_index(
        "ix_ledger_holds_pending", "ledger_holds", ["expires_at"], sqlite_where=pending, postgresql_where=pending
    )
    op.create_index(
        "ix_ledger_holds_pending_task", "ledger_holds", ["task"], sqlite_where=pending, postgresql_where=pending
    )
    op.create_table(
        "ledger_budgets",
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_ledger_budgets"),
    )

    op.create_table(
        "ledger_days",
        sa.Column("account", sa.String, nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("account", "day", name="pk_ledger_days"),
    )


def _uses(moment: sa.DateTime) -> None:
    op.create_table(
        "ledger_uses",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("input_cost", sa.BigInteger, nullable=False),
        sa.Column("output_cost", sa.BigInteger, nullable=False),
        sa.Column("charged", sa.BigInteger, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("credential", sa.String, nullable=False),
        sa.Column("task", sa.String),
        sa.Column("thread", sa.String),
        sa.Column("sandbox", sa.String),
        sa.Column("workspace", sa.String),
        sa.Column("workspace_owner", sa.String),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("internal", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_uses"),
    )
    op.create_index("ix_ledger_uses_account_at", "ledger_uses", ["account", "at"])
    op.create_index("ix_ledger_uses_task", "ledger_uses", ["task"])
    op.create_index("ix_ledger_uses_sandbox", "ledger_uses", ["sandbox"])
    op.create_index("ix_ledger_uses_workspace", "ledger_uses", ["workspace"])
    op.create_index("ix_ledger_uses_workspace_owner_at", "ledger_uses", ["workspace_owner", "at"])
    op.create_index("ix_ledger_uses_at", "ledger_uses", ["at"])
