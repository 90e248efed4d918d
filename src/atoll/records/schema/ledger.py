"""The tables of the ledger, and Testbase's names for them: views of the same rows with amounts in dollars.

Amounts are whole micro-dollars; `sql_ledger.py` and its neighbours are the only ones who write here.
"""

from __future__ import annotations

from sqlalchemy import DDL, BigInteger, Boolean, Column, Double, Index, String, Table, Text, event

from atoll.records.schema.columns import Utc, metadata, some_rows

ledger_accounts = Table(
    "ledger_accounts",
    metadata,
    Column("id", String, primary_key=True),
    Column("balance", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),  # by all its pending holds
    Column("spent", BigInteger, nullable=False),  # ever
    Column("daily_limit", BigInteger),
    Column("monthly_limit", BigInteger),
    Column("created_at", Utc, nullable=False),
    Column("updated_at", Utc, nullable=False),
)

ledger_transfers = Table(
    "ledger_transfers",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),  # without gaps, in the order of the commits
    Column("at", Utc, nullable=False),
    Column("debit", String, nullable=False),
    Column("credit", String, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("kind", String, nullable=False),
    Column("account", String, nullable=False),
    Column("balance_after", BigInteger, nullable=False),
    Column("key", String),
    Column("hold", String),
    Column("description", Text, nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    Index(None, "account", "id"),
    Index(None, "account", "key", unique=True),
    Index(None, "hold", unique=True),  # that a hold is charged once does not rest on the program alone
)

ledger_holds = Table(
    "ledger_holds",
    metadata,
    Column("id", String, primary_key=True),
    Column("account", String, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("budgets", Text, nullable=False),  # JSON: [subject, limit at that time]
    Column("task", String),
    Column("posted", BigInteger, nullable=False),
    Column("resolved_at", Utc),
    Column("use", String),  # which one it was charged for: one that expired can be charged once, too
    some_rows("ix_ledger_holds_pending", "expires_at", where="state = 'pending'"),
    some_rows("ix_ledger_holds_pending_task", "task", where="state = 'pending'"),
)

ledger_budgets = Table(
    "ledger_budgets",
    metadata,
    Column("subject", String, primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
)

ledger_days = Table(
    "ledger_days",
    metadata,
    Column("account", String, primary_key=True),
    Column("day", String(10), primary_key=True),  # 2026-03-01, UTC
    Column("spent", BigInteger, nullable=False),
)

ledger_uses = Table(
    "ledger_uses",
    metadata,
    Column("id", String, primary_key=True),
    Column("account", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("at", Utc, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("input_cost", BigInteger, nullable=False),
    Column("output_cost", BigInteger, nullable=False),
    Column("charged", BigInteger, nullable=False),
    Column("model", String, nullable=False),
    Column("credential", String, nullable=False),
    Column("task", String),
    Column("thread", String),
    Column("sandbox", String),
    Column("workspace", String),
    Column("workspace_owner", String),
    Column("seconds", Double, nullable=False),
    Column("internal", Boolean, nullable=False),
    Index(None, "account", "at"),
    Index(None, "task"),
    Index(None, "sandbox"),
    Index(None, "workspace"),
    Index(None, "workspace_owner", "at"),
    Index(None, "at"),
)

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
for _name, _query in VIEWS.items():
    event.listen(metadata, "after_create", DDL(f"CREATE VIEW {_name} AS {_query}"))
    event.listen(metadata, "before_drop", DDL(f"DROP VIEW IF EXISTS {_name}"))

__all__ = [
    "VIEWS",
    "ledger_accounts",
    "ledger_budgets",
    "ledger_days",
    "ledger_holds",
    "ledger_transfers",
    "ledger_uses",
]
