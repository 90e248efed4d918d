"""The matrix of authorisation: what each route of the server needs, and how it is called; test_tenancy.py holds it.

Whoever adds a route adds one line here: what opens it, and what its path, query and body name. `<workspace>` in a body
or a query, or a thing in `of`, stands for the id of such a thing of the tenant's; things.py says how each is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PUBLIC = "public"  # anybody, without a credential
ANY = ""  # any credential that is good, whatever its scopes
PERSON = "person"  # a user who has logged in, and no key of theirs
ADMIN = "admin"  # a principal that administers the server: an owner key, a user with that flag
ADMIN_KEY = "admin key"  # the ADMIN_API_KEY alone

# Where the protocol answers a key that is wrong with 403, and one that has expired with 401.
TESTBASE = ("/workspace/", "/execute", "/tasks", "/sessions", "/cache/", "/billing/", "/metrics/history")

# The frozen list of what anybody may ask for. It may only shrink.
ANYBODYS = {
    ("POST", "/auth/login"),
    ("POST", "/auth/refresh"),
    ("POST", "/auth/logout"),
    ("POST", "/auth/register"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/openapi.yaml"),
    ("GET", "/docs"),
    ("GET", "/redoc"),
    ("GET", "/docs/assets/{file}"),
}


@dataclass(frozen=True)
class Route:
    """What one operation needs. `opens`: one of the words above, or the scopes that the credential must carry."""

    opens: str
    of: dict[str, str] = field(default_factory=dict[str, str])  # path parameter -> thing, or a text with a / before it
    body: Any = None  # JSON, or bytes
    query: str = ""


# What stands in paths, where a line does not say otherwise.
PARAMETERS = {
    "ws": "workspace",
    "fs": "filesystem",
    "workspace": "uuid",
    "group": "group",
    "secret": "secret",
    "hook": "webhook",
    "user": "user",
    "key": "key",
    "task": "task",
    "session": "thread",
    "pid": "/main",
    "file": "/start.js",
    "rev": "/HEAD",
    "snap": "/snap_2026_01_01_000000",
    "principal": "/key_000000000000",
    "agent": "/key_000000000000",
    "member": "/key_000000000000",
}
SANDBOX = {"id": "sandbox"}

ROUTES: dict[str, Route] = {
    # pages
    "front": Route(PUBLIC),
    "health": Route(PUBLIC),
    "ready": Route(PUBLIC),
    "metrics": Route(PUBLIC),
    "openapiJson": Route(PUBLIC),
    "openapiYaml": Route(PUBLIC),
    "docs": Route(PUBLIC),
    "redoc": Route(PUBLIC),
    "docsAsset": Route(PUBLIC),
    # sessions
    "createSession": Route("execute", body={"image": "host", "network": "none"}),
    "listSessions": Route("read"),
    "getSession": Route("read", SANDBOX),
    "killSession": Route("execute", SANDBOX),
    "stopSession": Route("execute", SANDBOX),
    "keepSessionAlive": Route("execute", SANDBOX),
    "pauseSession": Route("execute", SANDBOX),
    "resumeSession": Route("execute", SANDBOX),
    "suspendSession": Route("execute", SANDBOX),
    "setSessionNetwork": Route("execute", SANDBOX, body={"allow": ["pypi.org"]}),
    "getPortUrl": Route("read", SANDBOX, query="port=80"),
    "listTemplates": Route("read"),
    "attachSession": Route("execute", SANDBOX),
    "execStream": Route("execute", SANDBOX, query="cmd=touch&cmd=/tmp/did"),
    "exec": Route("execute", SANDBOX, body={"command": ["touch", "/tmp/did"]}),
    "listProcesses": Route("read", SANDBOX),
    "signalProcess": Route("execute", SANDBOX, body={"signal": "KILL"}),
    "waitForProcess": Route("read", SANDBOX, query="timeoutMs=1"),
    "readLogs": Route("read", SANDBOX),
    "readFile": Route("read", SANDBOX, query="path=/tmp/a"),
    "writeFile": Route("write", SANDBOX, query="path=/tmp/b"),
    "removeFile": Route("write", SANDBOX, query="path=/tmp/a"),
    "moveFile": Route("write", SANDBOX, body={"from": "/tmp/a", "to": "/tmp/b"}),
    # workspaces
    "createWorkspace": Route("write", body={"name": "another"}),
    "listWorkspaces": Route("read", query="shared=true"),
    "getWorkspace": Route("read"),
    "changeWorkspace": Route("write", body={"description": "changed"}),
    "deleteWorkspace": Route("write"),
    "forkWorkspace": Route("read write", body={"name": "forked"}),
    "mergeWorkspace": Route("read write", body={"source": "<workspace>"}),
    "verifyWorkspace": Route("write"),
    "listCollaborators": Route("read"),
    "shareWorkspace": Route("write", body={"permission": "read"}),
    "unshareWorkspace": Route("write"),
    "listRevisions": Route("read"),
    "takeRevision": Route("write"),
    "getRevision": Route("read"),
    "listWorkspaceFiles": Route("read"),
    "readWorkspaceFile": Route("read", query="path=a"),
    "diffRevisions": Route("read"),
    "restoreWorkspace": Route("write", body={"revision": "1"}),
    "undoRevision": Route("write"),
    "createWorkspaceSnapshot": Route("write"),
    "listWorkspaceSnapshots": Route("read"),
    "deleteWorkspaceSnapshot": Route("write"),
    "exportWorkspace": Route("read"),
    "importWorkspace": Route("write", body=b"no archive"),
    "syncHead": Route("read"),
    "syncEntries": Route("read"),
    "syncMissing": Route("write", body=b"i" * 32),
    "syncChunks": Route("write", body=b"i" * 72),
    "syncFetch": Route("read", body=b"i" * 32),
    "syncCommit": Route("write", body=b"no entries", query="base=1"),
    # the agent workspace API
    "createSnapshot": Route("write"),
    "restoreSnapshot": Route("write", body={"snapshot_id": "<snapshot>"}),
    "listSnapshots": Route("read"),
    "deleteSnapshot": Route("write", {"snap": "snapshot"}),
    "createAgentWorkspace": Route("write", body={"name": "yet another"}),
    "listAgentWorkspaces": Route("read"),
    "getAgentWorkspace": Route("read"),
    "deleteAgentWorkspace": Route("write"),
    "execInAgentWorkspace": Route("execute", body={"command": "true"}),
    "shareAgentWorkspace": Route("write", body={"target_agent_ids": ["key_000000000000"]}),
    "listAgentCollaborators": Route("read"),
    "revokeAgentShare": Route("write"),
    # file systems
    "createFilesystem": Route("write", body={"name": "one more"}),
    "listFilesystems": Route("read"),
    "getFilesystem": Route("read"),
    "deleteFilesystem": Route("write"),
    "archiveFilesystem": Route("write"),
    "listFilesystemArchives": Route("read"),
    "restoreFilesystem": Route("write", body={"archive_id": "1"}),
    # groups
    "createGroup": Route("write", body={"name": "another"}),
    "listGroups": Route("read"),
    "getGroup": Route("read"),
    "changeGroup": Route("write", body={"name": "renamed"}),
    "deleteGroup": Route("write"),
    "listGroupMembers": Route("read"),
    "addGroupMember": Route("write", body={"principal": "<principal>"}),
    "setGroupRole": Route("write", {"member": "principal"}, body={"role": "member"}),
    "changeGroupRole": Route("write", {"member": "principal"}, body={"role": "member"}),
    "removeGroupMember": Route("write", {"member": "principal"}),
    # keys that keys make
    "mintKey": Route(ANY, body={"name": "narrow", "resources": ["<workspace>", "<sandbox>", "<group>"]}),
    "listMintedKeys": Route(ANY),
    "getMintedKey": Route(ANY, {"key": "child"}),
    "revokeMintedKey": Route(ANY, {"key": "child"}),
    "createAccessKey": Route(ANY),
    "listAccessKeys": Route(ANY),
    "revokeAccessKey": Route(ANY, {"access": "access key"}),
    # users
    "login": Route(PUBLIC, body={"username": "nobody", "password": "wrong"}),
    "refresh": Route(PUBLIC, body={"refresh_token": "wrong"}),
    "logout": Route(PUBLIC),
    "register": Route(PUBLIC, body={"username": "nobody", "password": "a long enough one"}),
    "jwks": Route(PUBLIC),
    "me": Route(ANY),
    "changePassword": Route(PERSON, body={"old_password": "wrong", "new_password": "another long one"}),
    "createApiKey": Route(PERSON, body={"name": "another"}),
    "listApiKeys": Route(PERSON),
    "getApiKey": Route(PERSON),
    "revokeApiKey": Route(PERSON),
    "createUser": Route(ADMIN, body={"username": "another"}),
    "listUsers": Route(ADMIN),
    "getUser": Route(ADMIN),
    "changeUser": Route(ADMIN, body={"name": "changed"}),
    "deleteUser": Route(ADMIN),
    "setPassword": Route(ADMIN, body={"password": "a long enough one"}),
    # the audit
    "listEvents": Route("read"),
    "streamEvents": Route("read"),
    "createWebhook": Route("read write", body={"url": "https://example.com/hook", "events": ["none.such"]}),
    "listWebhooks": Route("read"),
    "getWebhook": Route("read"),
    "changeWebhook": Route("write", body={"description": "changed"}),
    "deleteWebhook": Route("write"),
    "renewWebhookSecret": Route("write"),
    # accounts
    "getAccount": Route("read"),
    "getAccountUsage": Route("read"),
    "getAccountUsageHistory": Route("read"),
    "exportAccountUsage": Route("read"),
    "getAccountLimits": Route("read"),
    "setAccountLimits": Route(PERSON, body={"alert_threshold": 70}),
    "listAccountKeys": Route("read"),
    "createAccountKey": Route("write", body={"name": "another"}),
    "getAccountKey": Route("read", {"key": "account key"}),
    "changeAccountKey": Route("write", {"key": "account key"}, body={"name": "changed"}),
    "deleteAccountKey": Route("write", {"key": "account key"}),
    "rotateAccountKey": Route("write", {"key": "account key"}),
    # quotas
    "listQuotas": Route("read"),
    "getQuotas": Route(ADMIN, {"subject": "principal"}),
    "setQuotas": Route(ADMIN, {"subject": "principal"}, body={"quotas": {"concurrent_sandboxes": 3}}),
    "clearQuotas": Route(ADMIN, {"subject": "principal"}),
    # keys, administered
    "adminCreateKey": Route(ADMIN_KEY, body={"name": "another"}),
    "adminListKeys": Route(ADMIN_KEY),
    "adminGetKey": Route(ADMIN_KEY, {"key": "principal"}),
    "adminChangeKey": Route(ADMIN_KEY, {"key": "principal"}, body={"name": "changed"}),
    "adminDeleteKey": Route(ADMIN_KEY, {"key": "principal"}),
    "adminRevokeKey": Route(ADMIN_KEY, {"key": "principal"}),
    "adminGetKeyUsage": Route(ADMIN_KEY, {"key": "principal"}),
    # bills
    "getBillingAccount": Route("read"),
    "getBillingStats": Route("read"),
    "listUsage": Route("read"),
    "listTransactions": Route("read"),
    "listWorkspaceCosts": Route("read"),
    "listCosts": Route("read"),
    "adminListCosts": Route(ADMIN),
    "adminGetBillingAccount": Route(ADMIN, {"key": "principal"}),
    "adminGetBillingStats": Route(ADMIN, {"key": "principal"}),
    "adminGiveCredits": Route(ADMIN, {"key": "principal"}, body={"amount": 5}),
    "adminRefund": Route(ADMIN, {"key": "principal"}, body={"amount": 1}),
    "adminSetSpendingLimits": Route(ADMIN, {"key": "principal"}, body={"dailyLimit": 10}),
    # files, Testbase's way
    "listFiles": Route("read"),
    "uploadFile": Route("write", body=b"no form"),
    "downloadFile": Route("read", {"path": "/a"}),
    "deleteFile": Route("write", {"path": "/a"}),
    # tasks
    "execute": Route(
        "execute", body={"task": "t", "workspaceId": "<workspace>", "agent": "command", "command": ["true"]}
    ),
    "listTasks": Route("read"),
    "getTask": Route("read"),
    "streamTask": Route("read"),
    "cancelTask": Route("execute"),
    "listTaskSessions": Route("read"),
    "listActiveTaskSessions": Route("read"),
    "getTaskSession": Route("read"),
    "deleteTaskSession": Route("write"),
    "listTaskHistory": Route("read"),
    "clearThreadCache": Route("execute"),
    # secrets
    "createSecret": Route("write", body={"name": "ANOTHER", "value": "v"}),
    "listSecrets": Route("read"),
    "getSecret": Route("read"),
    "rotateSecret": Route("write", body={"value": "w"}),
    "changeSecret": Route("write", body={"description": "changed"}),
    "deleteSecret": Route("write"),
}
