"""The tables, as SQLAlchemy Core metadata, one file for each room; equal to the sum of the migrations, by a test.

`sql.py` and `copy.py` build their statements from it; `rows.py` says how objects become rows.
"""

from __future__ import annotations

from atoll.records.schema.access_keys import access_keys
from atoll.records.schema.audit import (
    audit_keys,
    checkpoint_heads,
    checkpoints,
    event_heads,
    events,
    webhook_cursors,
    webhooks,
)
from atoll.records.schema.columns import Utc, metadata
from atoll.records.schema.fixtures import fixtures
from atoll.records.schema.identity import group_members, groups, logins, refresh_tokens, secrets, signing_keys, users
from atoll.records.schema.keys import accounts, api_key_usage, api_keys
from atoll.records.schema.ledger import (
    ledger_accounts,
    ledger_budgets,
    ledger_days,
    ledger_holds,
    ledger_transfers,
    ledger_uses,
)
from atoll.records.schema.limits import idempotent_requests, quota_overrides, quota_requests, quota_spent, rates
from atoll.records.schema.previews import previews
from atoll.records.schema.sandbox_tokens import sandbox_tokens
from atoll.records.schema.sandboxes import sandboxes
from atoll.records.schema.tasks import task_events, tasks, threads
from atoll.records.schema.workers import worker_uses, worker_versions, workers
from atoll.records.schema.workspaces import chunks, lineages, owners, packs, revisions, shares, snapshots, workspaces

__all__ = [
    "TABLES",
    "Utc",
    "access_keys",
    "accounts",
    "api_key_usage",
    "api_keys",
    "audit_keys",
    "checkpoint_heads",
    "checkpoints",
    "chunks",
    "event_heads",
    "events",
    "fixtures",
    "group_members",
    "groups",
    "idempotent_requests",
    "ledger_accounts",
    "ledger_budgets",
    "ledger_days",
    "ledger_holds",
    "ledger_transfers",
    "ledger_uses",
    "lineages",
    "logins",
    "metadata",
    "owners",
    "packs",
    "previews",
    "quota_overrides",
    "quota_requests",
    "quota_spent",
    "rates",
    "refresh_tokens",
    "revisions",
    "sandbox_tokens",
    "sandboxes",
    "secrets",
    "shares",
    "signing_keys",
    "snapshots",
    "task_events",
    "tasks",
    "threads",
    "users",
    "webhook_cursors",
    "webhooks",
    "worker_uses",
    "worker_versions",
    "workers",
    "workspaces",
]

# In the order in which rows can be copied: what others refer to comes before them.
TABLES = (
    sandboxes,
    previews,
    sandbox_tokens,
    fixtures,
    api_keys,
    api_key_usage,
    access_keys,
    users,
    logins,
    refresh_tokens,
    signing_keys,
    events,
    event_heads,
    audit_keys,
    checkpoints,
    checkpoint_heads,
    webhooks,
    webhook_cursors,
    owners,
    lineages,
    workspaces,
    revisions,
    snapshots,
    shares,
    packs,
    chunks,
    groups,
    group_members,
    secrets,
    rates,
    accounts,
    quota_requests,
    quota_overrides,
    quota_spent,
    idempotent_requests,
    ledger_accounts,
    ledger_transfers,
    ledger_holds,
    ledger_budgets,
    ledger_days,
    ledger_uses,
    threads,
    tasks,
    task_events,
    workers,
    worker_versions,
    worker_uses,
)
