"""What a tenant has, for the tests of tenancy: each thing is made through the API, once for each tenant.

Whoever adds a kind of thing adds a function here that makes one, under the name by which `routes.py` calls it, and an
id of that form that nobody has.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from tests.security.parts import PARTS

Ids = dict[str, str]


@dataclass
class Tenant:
    """One key's holder, with the ids of what it has."""

    name: str
    id: str
    key: str
    has: Ids
    admin: str = ""  # the owner key of the server
    token: str = ""  # of a user of that name, who has an API key


async def sandbox(house: Any, tenant: Tenant) -> Ids:
    body = {"image": "host", "network": "none", "command": ["sleep", "60"]}
    made = (await post(house, tenant, "/v1/sessions", body))["id"]
    wrote = await house.call("POST", f"/v1/sessions/{made}/files?path=/tmp/a", tenant.key, content=b"secret")
    assert wrote.status_code == 201, wrote.text
    return {"sandbox": made}


async def workspace(house: Any, tenant: Tenant) -> Ids:
    """By every name that paths know it by, with a snapshot and its revision."""
    digits = (await post(house, tenant, "/v1/workspaces", {"name": "default"}))["id"].removeprefix("ws_")
    kept = await snapshot(house, tenant, f"/v1/workspaces/ws_{digits}/snapshots")
    ids = {"workspace": f"ws_{digits}", "uuid": str(uuid.UUID(digits)), "filesystem": f"fs_{digits}"}
    return ids | {"revision": kept["revision"], "snapshot": kept["id"]}


async def snapshot(house: Any, tenant: Tenant, path: str) -> dict[str, Any]:
    """A snapshot's id is the second in which it was made, with a number if it is not the first of its workspace then:
    bob's has one, and alice's has none, or both could be the same."""
    kept = await post(house, tenant, path, {})
    while tenant.name == "bob" and kept["id"].count("_") == NOBODYS["snapshot"].count("_"):
        plain, kept = kept, await post(house, tenant, path, {})
        gone = await house.call("DELETE", f"{path}/{plain['id']}", tenant.key)
        assert gone.status_code == 200, gone.text
    return kept


async def group(house: Any, tenant: Tenant) -> Ids:
    return {"group": (await post(house, tenant, "/api/groups", {"name": f"{tenant.name}s"}))["id"]}


async def secret(house: Any, tenant: Tenant) -> Ids:
    return {"secret": (await post(house, tenant, "/api/secrets", {"name": "TOKEN", "value": "canary"}))["id"]}


async def webhook(house: Any, tenant: Tenant) -> Ids:
    """One that is told of nothing: nobody answers there."""
    body = {"url": "https://example.com/", "events": ["none.such"]}
    return {"webhook": (await post(house, tenant, "/api/webhooks", body))["id"]}


async def user(house: Any, tenant: Tenant) -> Ids:
    """A user of that name, logged in, with a key of their own; the server's administrator makes them."""
    password = "correct horse battery staple"
    made = await post(house, tenant, "/api/users", {"username": tenant.name, "password": password}, tenant.admin)
    logged_in = await post(house, tenant, "/auth/login", {"username": tenant.name, "password": password}, None)
    tenant.token = logged_in["access_token"]
    own = await post(house, tenant, "/auth/api-keys", {"name": "own"}, tenant.token)
    return {"user": made["id"], "key": own["id"]}


async def child(house: Any, tenant: Tenant) -> Ids:
    return {"child": (await post(house, tenant, "/api/keys", {"name": "narrow", "scopes": ["read"]}))["id"]}


async def access_key(house: Any, tenant: Tenant) -> Ids:
    return {"access key": (await post(house, tenant, "/api/access-keys", None))["id"]}


async def account_key(house: Any, tenant: Tenant) -> Ids:
    return {"account key": (await post(house, tenant, "/v1/account/keys", {"name": "of the account"}))["id"]}


async def task(house: Any, tenant: Tenant) -> Ids:
    """One that has ended, paid by ten dollars."""
    operator = Principal("key_000000000000", KeyKind.OWNER, frozenset(Scope), admin=True)
    await house.app.ledger.credit(operator, tenant.id, 10_000_000)
    body = {"task": "t", "workspaceId": "of-tasks", "agent": "command", "command": ["true"]}
    made = await post(house, tenant, "/execute", body)
    return {"task": made["taskId"], "thread": made["sessionId"]}


MAKERS: tuple[Callable[[Any, Tenant], Awaitable[Ids]], ...] = (
    sandbox,
    workspace,
    group,
    secret,
    webhook,
    user,
    child,
    access_key,
    account_key,
    task,
    *(make for part in PARTS for make in part.MAKERS),
)
# Of the same form, and nobody's.
NOBODYS: Ids = {
    "sandbox": "sess_0123456789ab",
    "workspace": "ws_" + "5" * 32,
    "uuid": str(uuid.UUID(int=5)),
    "filesystem": "fs_" + "5" * 32,
    "revision": "rev_" + "5" * 24,
    "snapshot": "snap_2000_01_01_000000",
    "group": "grp_" + "5" * 24,
    "secret": "sec_" + "5" * 24,
    "webhook": "hook_" + "5" * 24,
    "principal": "key_0123456789ab",
    "key": "key_0123456789ac",
    "child": "key_0123456789ad",
    "access key": "hmac_" + "5" * 24,
    "account key": "key_0123456789ae",
    "task": "task_" + "5" * 24,
    "thread": "thread_" + "5" * 24,
    "user": "user_" + "5" * 24,
}
for _part in PARTS:
    NOBODYS |= _part.NOBODYS
# Of no thing's own: who that is, is no secret to whoever knows it, and all the rest is.
KNOWN = {"principal"}


async def post(house: Any, tenant: Tenant, path: str, body: Any, key: str | None = "") -> Any:
    answer = await house.call("POST", path, tenant.key if key == "" else key, json=body)
    assert answer.status_code in (200, 201), (path, answer.text)
    return answer.json()
