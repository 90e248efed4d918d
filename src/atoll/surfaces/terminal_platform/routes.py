"""Every operation of this dialect, declared in one table; app.py makes the routes and the document of it."""

from __future__ import annotations

from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.operation import Answer, Once, Operation
from atoll.surfaces.terminal_platform import snapshots, workspaces
from atoll.surfaces.terminal_platform.errors import DetailError
from atoll.surfaces.terminal_platform.snapshots import SnapshotHandlers
from atoll.surfaces.terminal_platform.workspaces import AgentWorkspaceHandlers

AGENT_WORKSPACE = "/workspaces/{workspace}"
LOST = (404, 503, 504)
BODY = (400, 413, 422)


def operations(facade: Workspaces, settings: Settings) -> list[Operation]:
    """What this dialect serves."""
    return [*_snapshots(SnapshotHandlers(facade, settings)), *_workspaces(AgentWorkspaceHandlers(facade, settings))]


def _snapshots(of: SnapshotHandlers) -> list[Operation]:
    tag, error = "snapshots", DetailError
    done = Answer(200, "what was done", snapshots.SnapshotDoneAnswer)
    return [
        Operation(
            "POST", "/snapshot/create", of.create, "createSnapshot", "Keep your default workspace as it is now",
            answers=(done,), errors=(409, *LOST), tag=tag, error=error,
        ),
        Operation(
            "POST", "/snapshot/restore", of.restore, "restoreSnapshot", "Go back to a snapshot",
            answers=(done,), body=snapshots.SnapshotIdBody, errors=(*BODY, 409, *LOST), tag=tag, error=error,
        ),
        Operation(
            "GET", "/snapshot/list", of.list, "listSnapshots", "Your snapshots, newest first",
            answers=(Answer(200, "the snapshots", snapshots.KeptListAnswer),), errors=LOST, tag=tag, error=error,
        ),
        Operation(
            "DELETE", "/snapshot/{snap}", of.delete, "deleteSnapshot", "Delete a snapshot",
            answers=(done,), errors=(400, 409, *LOST), tag=tag, error=error,
        ),
    ]  # fmt: skip


def _workspaces(of: AgentWorkspaceHandlers) -> list[Operation]:
    tag, error = "agent workspaces", DetailError
    workspace = Answer(200, "the workspace", workspaces.AgentWorkspaceAnswer)
    everybodys = {"type": "array", "items": {"type": "object"}}
    return [
        Operation(
            "POST", "/workspaces", of.create, "createAgentWorkspace", "Create a workspace",
            answers=(workspace,), body=workspaces.AgentWorkspaceBody, errors=(*BODY, 402, 404, 409, 503, 504),
            tag=tag, error=error, once=Once.MADE,
        ),
        Operation(
            "GET", "/workspaces", of.list, "listAgentWorkspaces", "Your own workspaces",
            answers=(Answer(200, "the workspaces", everybodys),), errors=(503,), tag=tag, error=error,
        ),
        Operation(
            "GET", AGENT_WORKSPACE, of.get, "getAgentWorkspace", "Look at a workspace",
            answers=(workspace,), errors=LOST, tag=tag, error=error,
        ),
        Operation(
            "DELETE", AGENT_WORKSPACE, of.delete, "deleteAgentWorkspace", "Delete a workspace",
            answers=(Answer(200, "it is gone", workspaces.AgentDeletedAnswer),), errors=(409, *LOST),
            tag=tag, error=error,
        ),
        Operation(
            "POST", AGENT_WORKSPACE + "/exec", of.exec, "execInAgentWorkspace",
            "Run a command in the workspace's sandbox, made when there is none",
            answers=(Answer(200, "how it ended and what it wrote", workspaces.AgentExecAnswer),),
            body=workspaces.CommandBody, errors=(*BODY, 409, 501, *LOST), tag=tag, error=error, once=Once.RAN,
        ),
        Operation(
            "POST", AGENT_WORKSPACE + "/share", of.share, "shareAgentWorkspace", "Share a workspace with agents",
            answers=(Answer(200, "who shares it now", workspaces.AgentSharedAnswer),),
            body=workspaces.AgentShareBody, errors=(*BODY, 409, *LOST), tag=tag, error=error,
        ),
        Operation(
            "GET", AGENT_WORKSPACE + "/collaborators", of.collaborators, "listAgentCollaborators", "Who shares it",
            answers=(Answer(200, "who may do what", workspaces.AgentCollaboratorsAnswer),), errors=LOST,
            tag=tag, error=error,
        ),
        Operation(
            "DELETE", AGENT_WORKSPACE + "/share/{agent}", of.revoke, "revokeAgentShare", "Take a share back",
            answers=(Answer(200, "it is no collaborator any more", workspaces.AgentRevokedAnswer),),
            errors=LOST, tag=tag, error=error,
        ),
    ]  # fmt: skip
