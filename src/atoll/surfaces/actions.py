"""What requests are called in the audit trail where no change of the records tells of them; the routes ask it.

A command in a sandbox, or a file there, is no record: that somebody started or changed it is an event all the same.
"""

from __future__ import annotations

DONE = "request.done"

# By operation; each is in the past, as the actions of all events are.
ACTIONS = {
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
# Their methods say otherwise, and they change nothing.
READING = frozenset({"attachSession", "syncMissing", "syncFetch", "verifyWorkspace"})


def action_of(operation_id: str) -> str:
    """The action of an operation that succeeded."""
    return ACTIONS.get(operation_id, DONE)
