"""What a group, a user or a key leaves behind that is nobody's any more: shares, webhooks, quotas of their own.

`sql_groups.py`, `sql_users.py` and `sql_accounts.py` take it away in the transaction that deletes the owner.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from atoll.records.schema import quota_overrides, shares, webhook_cursors, webhooks


def forget_leavings(connection: Connection, principal: str) -> None:
    """Take all of that away; whoever would add more waits for the owner's row, and finds it gone."""
    theirs = list(connection.execute(select(webhooks.c.id).where(webhooks.c.owner == principal)).scalars())
    connection.execute(delete(webhooks).where(webhooks.c.id.in_(theirs)))
    connection.execute(delete(webhook_cursors).where(webhook_cursors.c.webhook.in_(theirs)))
    connection.execute(delete(shares).where(shares.c.principal == principal))
    connection.execute(delete(quota_overrides).where(quota_overrides.c.subject == principal))
