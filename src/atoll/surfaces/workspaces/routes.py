"""Every operation of `/v1/workspaces`, declared in one table; app.py makes the routes and the document of it."""

from __future__ import annotations

from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.operation import BYTES, Answer, Once, Operation
from atoll.surfaces.workspaces import answers, requests
from atoll.surfaces.workspaces.entries import MEDIA as ENTRIES_MEDIA
from atoll.surfaces.workspaces.history import HistoryHandlers
from atoll.surfaces.workspaces.requests import (
    AFTER,
    BASE,
    BEFORE,
    BELOW,
    DEPTH,
    ENTRIES_LIMIT,
    FROM,
    MESSAGE,
    NAME,
    PATH,
    REVISION,
    REVISIONS_LIMIT,
    SHARED,
    SINCE,
    STRIP,
    TAG,
    TEXT,
    TO,
)
from atoll.surfaces.workspaces.transfers import ARCHIVE_MEDIA, TransferHandlers
from atoll.surfaces.workspaces.workspaces import WorkspaceHandlers

WORKSPACES = "/v1/workspaces"
WORKSPACE = WORKSPACES + "/{ws}"
SYNC = WORKSPACE + "/sync"
TAGGED = "workspaces"
LOST = (404, 503, 504)  # errors of everything that acts on a workspace
BODY = (400, 413)
FRAMES_TEXT = """Frames: 32 bytes id, u32 size, u32 stored size (big endian), then that many bytes of zstd.
In an answer a frame of stored size 0 says that there is no such chunk."""
ENTRIES_TEXT = """Lines of JSON, compressed with zstd as a whole: `[path, kind, mode, mtime_ns, uid, gid, size, chunks,
target, holes, xattrs]`, sorted by path; `[path]` alone: that path is gone."""


def operations(workspaces: Workspaces, settings: Settings) -> list[Operation]:
    """What this dialect serves."""
    transfers = TransferHandlers(workspaces, settings)
    return [
        *_workspaces(WorkspaceHandlers(workspaces, settings)),
        *_history(HistoryHandlers(workspaces, settings)),
        *_archives(transfers),
        *_sync(transfers),
    ]


def _workspaces(of: WorkspaceHandlers) -> list[Operation]:
    workspace = Answer(200, "the workspace", answers.WorkspaceAnswer)
    made = Answer(201, "the workspace", answers.WorkspaceAnswer)
    collaborators = Answer(200, "who may do what", answers.CollaboratorsAnswer)
    return [
        Operation(
            "POST", WORKSPACES, of.create, "createWorkspace", "Create a workspace",
            answers=(made,), body=requests.WorkspaceBody, errors=(*BODY, 402, 404, 409, 503, 504), tag=TAGGED,
            once=Once.MADE,
        ),
        Operation(
            "GET", WORKSPACES, of.list, "listWorkspaces", "List your workspaces, newest first",
            answers=(Answer(200, "the workspaces", answers.WorkspacesAnswer),),
            parameters=(NAME, TAG, SHARED), errors=(400, 503), tag=TAGGED,
        ),
        Operation(
            "GET", WORKSPACE, of.get, "getWorkspace", "Look at a workspace",
            answers=(workspace,), errors=LOST, tag=TAGGED,
        ),
        Operation(
            "PATCH", WORKSPACE, of.change, "changeWorkspace", "Change what a workspace is called and may hold",
            answers=(workspace,), body=requests.ChangesBody, errors=(*BODY, 409, *LOST), tag=TAGGED,
        ),
        Operation(
            "DELETE", WORKSPACE, of.delete, "deleteWorkspace", "Delete a workspace with its revisions",
            answers=(Answer(200, "it is gone", answers.DeletedAnswer),), errors=(409, *LOST), tag=TAGGED,
        ),
        Operation(
            "POST", WORKSPACE + "/fork", of.fork, "forkWorkspace", "A new workspace that begins as this one is",
            answers=(made,), body=requests.ForkBody, errors=(*BODY, 402, 409, *LOST), tag=TAGGED, once=Once.RAN,
        ),
        Operation(
            "POST", WORKSPACE + "/merge", of.merge, "mergeWorkspace", "Take over what another workspace changed",
            answers=(Answer(200, "what came of it", answers.MergedAnswer),),
            body=requests.MergeBody, errors=(*BODY, 409, *LOST), tag=TAGGED,
        ),
        Operation(
            "POST", WORKSPACE + "/verify", of.verify, "verifyWorkspace", "Read every byte and compare",
            answers=(Answer(200, "what was read and found", answers.ReportAnswer),), errors=LOST, tag=TAGGED,
        ),
        Operation(
            "GET", WORKSPACE + "/collaborators", of.collaborators, "listCollaborators", "Who shares a workspace",
            answers=(collaborators,), errors=LOST, tag=TAGGED,
        ),
        Operation(
            "PUT", WORKSPACE + "/collaborators/{principal}", of.share, "shareWorkspace", "Share a workspace",
            answers=(collaborators,), body=requests.ShareBody, errors=(*BODY, 409, *LOST), tag=TAGGED,
        ),
        Operation(
            "DELETE", WORKSPACE + "/collaborators/{principal}", of.revoke, "unshareWorkspace", "Take a share back",
            answers=(Answer(200, "it is no collaborator any more", answers.RevokedAnswer),),
            errors=LOST, tag=TAGGED,
        ),
    ]  # fmt: skip


def _history(of: HistoryHandlers) -> list[Operation]:
    revision = Answer(200, "the revision", answers.RevisionAnswer)
    snapshot = Answer(201, "the snapshot", answers.SnapshotAnswer)
    revisions, snapshots = WORKSPACE + "/revisions", WORKSPACE + "/snapshots"
    return [
        Operation(
            "GET", revisions, of.log, "listRevisions", "The revisions of a workspace, newest first",
            answers=(Answer(200, "the revisions", answers.RevisionsAnswer),),
            parameters=(REVISIONS_LIMIT, BEFORE), errors=(400, *LOST), tag=TAGGED,
        ),
        Operation(
            "POST", revisions, of.take, "takeRevision", "Record the workspace as it is now",
            answers=(Answer(201, "the revision; the head itself when nothing changed", answers.RevisionAnswer),),
            body=requests.MessageBody, body_required=False, errors=(*BODY, 409, *LOST), tag=TAGGED,
        ),
        Operation(
            "GET", revisions + "/{rev}", of.revision, "getRevision", "Look at a revision",
            answers=(revision,), errors=(400, *LOST), tag=TAGGED,
        ),
        Operation(
            "GET", WORKSPACE + "/files", of.files, "listWorkspaceFiles", "The entries of a revision",
            answers=(Answer(200, "the entries", answers.ListingAnswer),),
            parameters=(REVISION, BELOW, DEPTH, ENTRIES_LIMIT, AFTER), errors=(400, *LOST), tag=TAGGED,
        ),
        Operation(
            "GET", WORKSPACE + "/file", of.file, "readWorkspaceFile", "A file as a revision has it",
            answers=(Answer(200, "its bytes", None, BYTES, headers=(("Atoll-Mode", "octal mode"),)),),
            parameters=(REVISION, PATH), errors=(400, *LOST), tag=TAGGED,
        ),
        Operation(
            "GET", WORKSPACE + "/diff", of.diff, "diffRevisions", "What differs between two revisions",
            answers=(Answer(200, "one change for each path", answers.DiffAnswer),),
            parameters=(FROM, TO, BELOW, TEXT), errors=(400, *LOST), tag=TAGGED,
        ),
        Operation(
            "POST", WORKSPACE + "/restore", of.restore, "restoreWorkspace", "Go back to a revision, or one path of it",
            answers=(Answer(200, "the revision that this made", answers.RestoredAnswer),),
            body=requests.RestoreBody, errors=(*BODY, 409, *LOST), tag=TAGGED,
        ),
        Operation(
            "POST", WORKSPACE + "/undo", of.undo, "undoRevision", "Go back to before the newest change",
            answers=(Answer(200, "the revision that this made", answers.UndoneAnswer),),
            errors=(409, *LOST), tag=TAGGED,
        ),
        Operation(
            "POST", snapshots, of.keep, "createWorkspaceSnapshot", "Keep the workspace as it is now",
            answers=(snapshot,), body=requests.SnapshotBody, body_required=False,
            errors=(*BODY, 409, *LOST), tag=TAGGED,
        ),
        Operation(
            "GET", snapshots, of.snapshots, "listWorkspaceSnapshots", "The snapshots of a workspace, newest first",
            answers=(Answer(200, "the snapshots", answers.SnapshotsAnswer),), errors=LOST, tag=TAGGED,
        ),
        Operation(
            "DELETE", snapshots + "/{snap}", of.forget, "deleteWorkspaceSnapshot", "Delete a snapshot",
            answers=(Answer(200, "it is gone", answers.DeletedAnswer),), errors=(409, *LOST), tag=TAGGED,
        ),
    ]  # fmt: skip


def _archives(of: TransferHandlers) -> list[Operation]:
    return [
        Operation(
            "GET", WORKSPACE + "/export", of.export, "exportWorkspace", "A revision as an archive",
            answers=(Answer(200, "a tar.zst of the tree", None, ARCHIVE_MEDIA),),
            parameters=(REVISION,), errors=(400, *LOST), tag=TAGGED,
        ),
        Operation(
            "POST", WORKSPACE + "/import", of.import_archive, "importWorkspace", "Replace the tree by an archive's",
            answers=(Answer(201, "the revision that this made", answers.RevisionAnswer),),
            body=ARCHIVE_MEDIA, parameters=(STRIP, MESSAGE), errors=(*BODY, 402, 409, *LOST), tag=TAGGED,
        ),
    ]  # fmt: skip


def _sync(of: TransferHandlers) -> list[Operation]:
    tag = "sync"
    return [
        Operation(
            "GET", SYNC + "/head", of.head, "syncHead", "The state now: a mounted workspace is looked at first",
            answers=(Answer(200, "its revision", answers.RevisionOnlyAnswer),), errors=(409, *LOST), tag=tag,
        ),
        Operation(
            "GET", SYNC + "/entries", of.entries, "syncEntries", "The entries of a revision, or what changed since",
            answers=(Answer(200, "entries", None, ENTRIES_MEDIA),),
            parameters=(REVISION, SINCE), errors=(400, *LOST), tag=tag, description=ENTRIES_TEXT,
        ),
        Operation(
            "POST", SYNC + "/missing", of.missing, "syncMissing", "Which of these chunks the workspace has not",
            answers=(Answer(200, "their ids", None, BYTES),),
            body=BYTES, errors=(*BODY, *LOST), tag=tag,
        ),
        Operation(
            "POST", SYNC + "/chunks", of.chunks, "syncChunks", "Send chunks",
            answers=(Answer(200, "they are durable", answers.StoredAnswer),),
            body=BYTES, errors=(*BODY, 402, *LOST), tag=tag, description=FRAMES_TEXT,
        ),
        Operation(
            "POST", SYNC + "/fetch", of.fetch, "syncFetch", "Get chunks",
            answers=(Answer(200, "frames, in the order of the ids", None, BYTES),),
            body=BYTES, errors=(*BODY, *LOST), tag=tag, description=FRAMES_TEXT,
        ),
        Operation(
            "POST", SYNC + "/commit", of.commit, "syncCommit", "Make the changes the new head, all or none",
            answers=(Answer(201, "the revision", answers.RevisionAnswer),),
            body=ENTRIES_MEDIA, parameters=(BASE, MESSAGE), errors=(*BODY, 409, *LOST), tag=tag,
            description=ENTRIES_TEXT,
        ),
    ]  # fmt: skip
