# Made by scripts/unasync.py from ../_async/workspace.py: change that file, not this one.
"""Workspace: a file tree that outlives sandboxes, with its revisions: push, pull, look back, undo, fork, share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from atoll.domain.errors import AtollError, Conflict
from atoll.domain.workspace import Permission
from atoll.sdk._io import work, write
from atoll.sdk._sync.api import CALL_TIMEOUT_S, Api, connect
from atoll.sdk._sync.http import Upload
from atoll.sdk._sync.retry import Retry
from atoll.sdk.arguments import texts, whole
from atoll.sdk.requests import target_of
from atoll.sdk.sync.values import Direction, OnProgress, SyncOptions, SyncReport
from atoll.sdk.workspace_values import (
    MergeResult,
    PathChange,
    RestoreResult,
    RevisionInfo,
    SnapshotInfo,
    TreeEntry,
    Verification,
    WorkspaceInfo,
    change_of,
    merge_of,
    restore_of,
    revision_of,
    snapshot_of,
    tree_entry_of,
    verification_of,
    workspace_of,
)

BASE = "/v1/workspaces"
HEAD = "HEAD"
WORK_TIMEOUT_S = 600.0  # of silence, for calls that read or write a whole tree
READ_BYTES_MAX = 256 * 2**20  # `read`; `download` has no limit
WATCH_POLL_S = 3.0
WATCH_WAITS_S = 24 * 3600.0  # for a server that is away
_PAGE = 1_000


class Workspace:
    """A workspace of this key, or one that is shared with it.

    A revision is written as `HEAD`, `HEAD~2`, a number, `rev_...`, a snapshot's id or name, or an RFC 3339 moment.
    Errors of all calls: NotFound, Forbidden, Conflict, InvalidInput, Unauthenticated, ConnectionFailed.
    """

    def __init__(self, api: Api, info: WorkspaceInfo) -> None:
        self.id = info.id
        self.name = info.name
        self.found = info  # what the server said when it was made or found
        self._api = api
        self._base = f"{BASE}/{info.id}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.id!r})"

    @classmethod
    def create(
        cls,
        name: str,
        *,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        quota_bytes: int | None = None,
        quota_inodes: int | None = None,
        automatic: bool | None = None,
        group: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
    ) -> Workspace:
        """A new, empty one, one's own or that of the group of this id. `automatic`: revisions are taken after
        processes and daily. Conflict: the name is taken."""
        api = connect(url, api_key)
        body = _body(
            name=name,
            description=description,
            tags=texts(tags, "tags", "a list of strings"),
            quotaBytes=whole(quota_bytes, "quota_bytes", "a whole number of bytes"),
            quotaInodes=whole(quota_inodes, "quota_inodes", "a whole number"),
            automatic=automatic,
            group=group,
        )
        return cls(api, workspace_of(api.call("POST", BASE, body, once=True)))

    @classmethod
    def get(cls, name: str, *, url: str | None = None, api_key: str | None = None) -> Workspace:
        """One that exists, by its name or id; one that another shares: `OWNER/NAME`, OWNER their key's id or name."""
        api = connect(url, api_key)
        return cls(api, workspace_of(api.call("GET", target_of(BASE, name))))

    @classmethod
    def list(
        cls,
        *,
        name: str | None = None,
        tag: str | None = None,
        shared: bool = False,
        url: str | None = None,
        api_key: str | None = None,
    ) -> Sequence[WorkspaceInfo]:
        """One's own, the newest first, and with `shared` those of others that one may use."""
        target = target_of(BASE, name=name, tag=tag, shared=shared or None)
        answer = connect(url, api_key).call("GET", target)
        return [workspace_of(value) for value in answer["workspaces"]]

    def info(self) -> WorkspaceInfo:
        """What the server says about it now."""
        return workspace_of(self._api.call("GET", self._base))

    def update(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        quota_bytes: int | None = None,
        quota_inodes: int | None = None,
        automatic: bool | None = None,
    ) -> WorkspaceInfo:
        """Change what is given; the rest stays."""
        body = _body(
            name=name,
            description=description,
            tags=texts(tags, "tags", "a list of strings"),
            quotaBytes=whole(quota_bytes, "quota_bytes", "a whole number of bytes"),
            quotaInodes=whole(quota_inodes, "quota_inodes", "a whole number"),
            automatic=automatic,
        )
        info = workspace_of(self._api.call("PATCH", self._base, body))
        self.name = info.name
        return info

    def delete(self) -> None:
        """For good, with its revisions; only its owner may. Conflict while a sandbox has it mounted."""
        self._api.call("DELETE", self._base, timeout_s=WORK_TIMEOUT_S)

    # sync

    def sync(
        self,
        folder: str | os.PathLike[str],
        *,
        delete: bool = False,
        exclude: Sequence[str] = (),
        home: bool = False,
        ignore_files: bool = True,
        dry_run: bool = False,
        message: str | None = None,
        progress: OnProgress | None = None,
    ) -> SyncReport:
        """Bring a folder and the workspace together: what changed on either side since the last time goes to the other.

        What both changed is kept twice, the workspace's version as `name.conflict-<revision>`. A path that one side
        deleted is deleted on the other with `delete` only. `exclude` has patterns as in .gitignore.
        """
        options = SyncOptions(
            Direction.BOTH,
            delete,
            _patterns(exclude),
            home,
            ignore_files=ignore_files,
            dry_run=dry_run,
            message=message,
        )
        return self.sync_with(folder, options, progress)

    def push(
        self,
        folder: str | os.PathLike[str],
        *,
        delete: bool = False,
        exclude: Sequence[str] = (),
        home: bool = False,
        ignore_files: bool = True,
        dry_run: bool = False,
        message: str | None = None,
        progress: OnProgress | None = None,
    ) -> SyncReport:
        """Bring the workspace up to a folder, as one new revision; `delete` removes what the folder does not have.

        What changed in the workspace alone stays; what both changed is kept twice there.
        """
        options = SyncOptions(
            Direction.PUSH,
            delete,
            _patterns(exclude),
            home,
            ignore_files=ignore_files,
            dry_run=dry_run,
            message=message,
        )
        return self.sync_with(folder, options, progress)

    def pull(
        self,
        folder: str | os.PathLike[str],
        *,
        delete: bool = False,
        exclude: Sequence[str] = (),
        home: bool = False,
        ignore_files: bool = True,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> SyncReport:
        """Bring a folder, which is made, up to the workspace; `delete` removes what the workspace does not have.

        What changed in the folder alone stays; what both changed is kept twice there.
        """
        options = SyncOptions(
            Direction.PULL, delete, _patterns(exclude), home, ignore_files=ignore_files, dry_run=dry_run
        )
        return self.sync_with(folder, options, progress)

    def sync_with(
        self, folder: str | os.PathLike[str], options: SyncOptions, progress: OnProgress | None = None
    ) -> SyncReport:
        """`sync`, `push` or `pull` by options."""
        # Loads pathspec and zstandard, which nothing else needs.
        from atoll.sdk._sync.syncing import Syncing

        return Syncing(self._api, self.id, os.fspath(folder), options, progress).run()

    def watch(
        self, folder: str | os.PathLike[str], options: SyncOptions | None = None, *, poll_s: float = WATCH_POLL_S
    ) -> Iterator[SyncReport]:
        """Sync at once and with every change in the folder, and look at the workspace every `poll_s` seconds.

        Goes on until the caller leaves the loop. A server that is away for a while is waited for.
        """
        from atoll.sdk._sync.syncing import Syncing
        from atoll.sdk.sync.watch import Watcher

        syncing = Syncing(self._api, self.id, os.fspath(folder), options or SyncOptions())
        yield syncing.run()
        watcher = Watcher(syncing.folder, poll_s)
        retry = Retry(WATCH_WAITS_S)
        try:
            while work(watcher.wait):
                try:
                    report = syncing.run()
                except Conflict:
                    continue  # it did not come to rest
                except AtollError as error:
                    retry.after(error)
                    continue
                retry.reset()
                yield report
        finally:
            watcher.stop()

    # history

    def log(self, *, limit: int = 100, before: int | None = None) -> Sequence[RevisionInfo]:
        """Its revisions, the newest first; `before` is the number from which on they are left out."""
        answer = self._api.call("GET", target_of(f"{self._base}/revisions", limit=limit, before=before))
        return [revision_of(value) for value in answer["revisions"]]

    def commit(self, message: str | None = None) -> RevisionInfo:
        """A revision of the tree as it is now; the newest one when nothing changed."""
        body = _body(message=message)
        return revision_of(self._api.call("POST", f"{self._base}/revisions", body, timeout_s=WORK_TIMEOUT_S))

    def revision(self, revision: str | int = HEAD) -> RevisionInfo:
        """One of them."""
        return revision_of(self._api.call("GET", target_of(f"{self._base}/revisions", str(revision))))

    def diff(
        self, a: str | int = "HEAD~1", b: str | int = HEAD, *, path: str | None = None, text: bool = False
    ) -> Sequence[PathChange]:
        """What became of each path from revision `a` to `b`, one entry a path; `text` adds unified diffs."""
        target = target_of(f"{self._base}/diff", **{"from": str(a)}, to=str(b), path=path, text=text or None)
        answer = self._api.call("GET", target, timeout_s=WORK_TIMEOUT_S)
        return [change_of(value) for value in answer["changes"]]

    def files(self, path: str = "", *, revision: str | int = HEAD, depth: int = 1) -> Iterator[TreeEntry]:
        """What a revision has below `path`, sorted; `depth` 1 is a directory's own entries."""
        after: str | None = None
        while True:
            target = target_of(
                f"{self._base}/files", revision=str(revision), path=path, depth=depth, limit=_PAGE, after=after
            )
            answer = self._api.call("GET", target)
            for value in answer["entries"]:
                yield tree_entry_of(value)
            after = answer.get("next")
            if not after:
                return

    def read(self, path: str, revision: str | int = HEAD) -> bytes:
        """A file of a revision; TooLarge beyond READ_BYTES_MAX."""
        target = target_of(f"{self._base}/file", revision=str(revision), path=path)
        body = self._api.stream(target, timeout_s=CALL_TIMEOUT_S)
        return body.read(READ_BYTES_MAX)

    def download_into(self, path: str, file: IO[bytes], *, revision: str | int = HEAD) -> int:
        """Append a file of a revision to an open local one; returns its size."""
        target = target_of(f"{self._base}/file", revision=str(revision), path=path)
        return self._save(target, file)

    def restore(self, revision: str | int, path: str | None = None) -> RestoreResult:
        """Bring back a revision or snapshot, or one path of it, as a new revision: it can be undone."""
        body = _body(revision=str(revision), path=path)
        return restore_of(self._api.call("POST", f"{self._base}/restore", body, timeout_s=WORK_TIMEOUT_S))

    def undo(self) -> RevisionInfo:
        """The state before the newest change, as a new revision."""
        answer = self._api.call("POST", f"{self._base}/undo", {}, timeout_s=WORK_TIMEOUT_S)
        return revision_of(answer["revision"])

    def fork(self, name: str, *, revision: str | int | None = None) -> Workspace:
        """A new workspace that begins as this one is; instant, whatever its size."""
        body = _body(name=name, revision=None if revision is None else str(revision))
        answer = self._api.call("POST", f"{self._base}/fork", body, timeout_s=WORK_TIMEOUT_S, once=True)
        return type(self)(self._api, workspace_of(answer))

    def merge(
        self, other: Workspace | str, *, revision: str | int | None = None, base: str | int | None = None
    ) -> MergeResult:
        """Bring another one's changes into this one. What both changed is kept twice, theirs as `name.conflict-...`."""
        body = _body(
            source=other if isinstance(other, str) else other.id,
            revision=None if revision is None else str(revision),
            base=None if base is None else str(base),
        )
        return merge_of(self._api.call("POST", f"{self._base}/merge", body, timeout_s=WORK_TIMEOUT_S))

    # snapshots

    def snapshot(self, name: str | None = None, *, own_key: bool = False, keep: bool = False) -> SnapshotInfo:
        """Name the state as it is now and keep it. `own_key`: deleting it makes its bytes unreadable for ever."""
        body = _body(name=name, ownKey=own_key or None, keep=keep or None)
        return snapshot_of(self._api.call("POST", f"{self._base}/snapshots", body, timeout_s=WORK_TIMEOUT_S))

    def snapshots(self) -> Sequence[SnapshotInfo]:
        """The newest first."""
        answer = self._api.call("GET", f"{self._base}/snapshots")
        return [snapshot_of(value) for value in answer["snapshots"]]

    def delete_snapshot(self, snapshot: str) -> None:
        """By its id or name."""
        self._api.call("DELETE", target_of(f"{self._base}/snapshots", snapshot))

    # sharing

    def share(self, principal: str, permission: Permission | str = Permission.READ) -> Mapping[str, str]:
        """Let another principal read, write, or admin(istrate) it; all collaborators."""
        target = target_of(f"{self._base}/collaborators", principal)
        answer = self._api.call("PUT", target, {"permission": str(permission)})
        return answer["collaborators"]

    def revoke(self, principal: str) -> None:
        """Take that back."""
        self._api.call("DELETE", target_of(f"{self._base}/collaborators", principal))

    def collaborators(self) -> Mapping[str, str]:
        """Principals and their permissions."""
        answer = self._api.call("GET", f"{self._base}/collaborators")
        return answer["collaborators"]

    # archives

    def export(self, file: str | os.PathLike[str] | IO[bytes], *, revision: str | int = HEAD) -> int:
        """Write a revision as tar.zst; returns its size in bytes. A named file appears whole or not at all."""
        target = target_of(f"{self._base}/export", revision=str(revision))
        if not isinstance(file, (str, os.PathLike)):
            return self._save(target, file)
        path = Path(file)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(partial, "wb", buffering=0) as opened:
                size = self._save(target, opened)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return size

    def import_(
        self, file: str | os.PathLike[str] | IO[bytes], *, strip: int = 0, message: str | None = None
    ) -> RevisionInfo:
        """Replace the tree by a tar.zst, without the first `strip` parts of its names, as a new revision."""
        target = target_of(f"{self._base}/import", strip=strip or None, message=message)
        if not isinstance(file, (str, os.PathLike)):
            answer = self._api.upload(target, Upload(file, None), timeout_s=WORK_TIMEOUT_S, kind=ARCHIVE)
            return revision_of(answer)
        with open(file, "rb") as opened:
            body = Upload(opened, os.fstat(opened.fileno()).st_size)
            return revision_of(self._api.upload(target, body, timeout_s=WORK_TIMEOUT_S, kind=ARCHIVE))

    def verify(self) -> Verification:
        """Read every byte of all its revisions and snapshots, and compare them with what was stored."""
        return verification_of(self._api.call("POST", f"{self._base}/verify", {}, timeout_s=None))

    def _save(self, target: str, file: IO[bytes]) -> int:
        size = 0
        with self._api.stream(target, timeout_s=WORK_TIMEOUT_S) as body:
            for block in body.blocks():
                write(file, block)
                size += len(block)
        return size


ARCHIVE = "application/zstd"


def _patterns(exclude: Sequence[str]) -> tuple[str, ...]:
    return tuple(texts(exclude, "exclude", "a list of patterns") or ())


def _body(**fields: object) -> dict[str, object]:
    """Without the fields that are None: they are left to the server."""
    return {name: value for name, value in fields.items() if value is not None}
