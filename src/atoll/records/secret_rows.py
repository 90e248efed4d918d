"""Secrets to rows and back; `sql_secrets.py` calls it."""

from __future__ import annotations

import json
from typing import Any

from atoll.domain.secret import Secret
from atoll.records.rows import Row


def secret_row(secret: Secret) -> dict[str, Any]:
    return {
        "id": secret.id,
        "owner": secret.owner,
        "name": secret.name,
        "vault": secret.vault,
        "key": secret.key,
        "sealed": secret.sealed,
        "created_at": secret.created_at,
        "rotated_at": secret.rotated_at,
        "revision": secret.revision,
        "hosts": json.dumps(secret.hosts),
        "description": secret.description,
        "version": secret.version,
    }


def secret_of(row: Row) -> Secret:
    plain = {name: value for name, value in row.items() if name != "hosts"}
    return Secret(hosts=tuple(json.loads(row["hosts"])), **plain)
