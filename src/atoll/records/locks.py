"""What the requests of one owner wait for each other with, on PostgreSQL; `lock_owner` takes one kind for one owner."""

from __future__ import annotations

from enum import IntEnum


class Lock(IntEnum):
    """One number for each kind of thing: two kinds never wait for each other."""

    SANDBOXES = 1
    WORKSPACES = 2
    MEMBERS = 3
    LOGINS = 5
    SECRETS = 7
    SPENDS = 9
    WEBHOOKS = 11
    KEYS = 12
    SIGNUPS = 13
    ACCESS_KEYS = 14
    LEDGER = 19
    TASKS = 15
    SANDBOX_TOKENS = 23
    CLAIMS = 17  # one for all owners
    PREVIEWS = 29
    FIXTURES = 31
    WORKERS = 37
