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
    "execInHomeSandbox": "process.started",
    "openTerminal": "process.started",
    "openComputeTerminal": "process.started",
    "startJob": "job.started",
    "stopJob": "job.stopped",
    "mountInHomeSandbox": "sandbox.mounted",
    "writeHomeFile": "file.written",
    "signalProcess": "process.signalled",
    "writeFile": "file.written",
    "removeFile": "file.removed",
    "moveFile": "file.moved",
    "agentsExec": "process.started",
    "agentsTerminal": "process.started",
    "agentsWriteFile": "file.written",
    "agentsHydrate": "file.written",
    "syncChunks": "workspace.chunks_stored",
    "daemonRunCommand": "process.started",
    "daemonExecute": "process.started",
    "daemonRunCode": "process.started",
    "daemonRunInTerminal": "process.started",
    "daemonCreateTerminal": "process.started",
    "daemonCloseTerminal": "process.signalled",
    "daemonWriteFile": "file.written",
    "daemonReplaceFile": "file.written",
    "daemonChangeFiles": "file.written",
    "daemonRemoveFile": "file.removed",
    "createPreviewToken": "preview.token_created",
    "putObject": "object.written",
    "deleteObject": "object.removed",
    "daemonSetEnv": "file.written",
    "daemonUnsetEnv": "file.written",
    "daemonSignalPort": "signal.told",
    "daemonSignalPortBy": "signal.told",
    "daemonSignalServerReady": "signal.told",
    "daemonSignalError": "signal.told",
}
# Their methods say otherwise, and they change nothing.
READING = frozenset(
    {"agentsMount", "agentsPersist", "agentsUnmount"}  # buckets are not mounted
    # what goes through a preview is between its visitors and the program
    | {"previewPost", "previewPut", "previewPatch", "previewDelete", "previewWebsocket"}
    | {"attachSession", "daemonEvents", "gatewayFindSandbox", "syncMissing", "syncFetch", "verifyWorkspace"}
)


def action_of(operation_id: str) -> str:
    """The action of an operation that succeeded."""
    return ACTIONS.get(operation_id, DONE)
