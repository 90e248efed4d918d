"""Which events the mutations leave at which the sweep over all routes is refused, and which the door writes itself.

The tests of A17 read it: whoever adds a route that the sweep is refused at adds a line to `CALLS`.
"""

from __future__ import annotations

from tests.security.parts import PARTS

# What happens inside of sandboxes, and chunks that no revision names yet: the door tells of these and of nothing else.
BESIDE = {
    "exec": "process.started",
    "execStream": "process.started",
    "execInAgentWorkspace": "process.started",
    "signalProcess": "process.signalled",
    "writeFile": "file.written",
    "removeFile": "file.removed",
    "moveFile": "file.moved",
    "syncChunks": "workspace.chunks_stored",
    "putObject": "object.written",
    "deleteObject": "object.removed",
}
# In this order; test_a17_effects.py says what each is called with.
CALLS: list[tuple[str, set[str]]] = [
    ("writeFile", {"file.written"}),
    ("removeFile", {"file.removed"}),
    ("addGroupMember", {"member.added"}),
    ("setGroupRole", {"member.changed"}),
    ("setGroupRole", {"member.changed"}),
    ("changeGroupRole", {"member.changed"}),
    ("removeGroupMember", {"member.removed"}),
    ("deleteGroup", {"group.deleted"}),
    ("shareWorkspace", {"workspace.shared"}),
    ("unshareWorkspace", {"workspace.unshared"}),
    ("shareAgentWorkspace", {"workspace.shared"}),
    ("revokeAgentShare", {"workspace.unshared"}),
    ("syncChunks", {"workspace.chunks_stored"}),
    ("syncCommit", {"workspace.revised"}),
    ("uploadFile", {"workspace.revised"}),
    ("deleteFile", {"workspace.revised"}),
    ("undoRevision", {"workspace.revised"}),
    ("importWorkspace", {"workspace.revised"}),
    ("deleteSecret", {"secret.deleted"}),
    ("deleteWebhook", {"webhook.deleted"}),
    ("deleteWorkspaceSnapshot", {"snapshot.deleted"}),
    ("changePassword", {"user.password_changed"}),
    ("login", {"login.created"}),
    ("refresh", {"login.refreshed"}),
    ("logout", {"login.ended"}),
    ("register", {"user.created", "workspace.created", "login.created"}),
    ("revokeMintedKey", {"key.revoked"}),
    ("revokeAccessKey", {"access_key.revoked"}),
    ("deleteAccountKey", {"key.revoked"}),
    ("revokeApiKey", {"key.revoked"}),
    ("adminChangeKey", {"key.changed"}),
    ("adminRevokeKey", {"key.revoked"}),
    ("adminDeleteKey", {"key.deleted"}),
    ("adminGiveCredits", {"billing.credited"}),
    ("adminRefund", {"billing.refunded"}),
    ("adminSetSpendingLimits", {"billing.limited"}),
    ("killSession", {"sandbox.killed"}),
    ("setSessionNetwork", {"sandbox.network_changed"}),
    ("suspendSession", {"sandbox.suspending"}),
    ("stopSession", {"sandbox.stopping"}),
    ("deleteAgentWorkspace", {"workspace.deleted", "lineage.shredded"}),
    ("deleteFilesystem", {"workspace.deleted", "lineage.shredded"}),
    ("deleteWorkspace", {"workspace.deleted", "lineage.shredded"}),
    ("deleteUser", {"user.deleted", "workspace.deleted"}),
]
# Asked for once more, or where there is nothing to change, they change no record: `request.done` is all that is told.
UNCHANGED = {
    *("restoreSnapshot", "restoreFilesystem", "restoreWorkspace", "mergeWorkspace", "takeRevision"),
    *("cancelTask", "clearThreadCache"),
}
for _part in PARTS:
    BESIDE |= _part.BESIDE
    CALLS[:0] = _part.CALLS
    UNCHANGED |= _part.UNCHANGED
