"""AsyncWorkspace: a file tree that outlives sandboxes, with its revisions: push, pull, look back, undo, fork, share."""

# ruff: noqa: ASYNC230 (opening and looking up a local file is quick; its bytes move in a thread)
from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from atoll.domain.errors import AtollError, Conflict
from atoll.domain.workspace import Permission
from atoll.sdk._async.api import CALL_TIMEOUT_S, AsyncApi, connect
from atoll.sdk._async.http import AsyncUpload
from atoll.sdk._async.retry import AsyncRetry
from atoll.sdk._async_io import async_work, async_write
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


class AsyncWorkspace:
    """A workspace of this key, or one that is shared with it.

    A revision is written as `HEAD`, `HEAD~2`, a number, `rev_...`, a snapshot's id or name, or an RFC 3339 moment.
    Errors of all calls: NotFound, Forbidden, Conflict, InvalidInput, Unauthenticated, ConnectionFailed.
    """

    def __init__(self, api: AsyncApi, info: WorkspaceInfo) -> None:
        self.id = info.id
        self.name = info.name
        self.found = info  # what the server said when it was made or found
        self._api = api
        self._base = f"{BASE}/{info.id}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.id!r})"

    @classmethod
    async def create(
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
    ) -> AsyncWorkspace:
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
        return cls(api, workspace_of(await api.call("POST", BASE, body, once=True)))

    @classmethod
    async def get(cls, name: str, *, url: str | None = None, api_key: str | None = None) -> AsyncWorkspace:
        """One that exists, by its name or id; one that another shares: `OWNER/NAME`, OWNER their key's id or name."""
        api = connect(url, api_key)
        return cls(api, workspace_of(await api.call("GET", target_of(BASE, name))))

    @classmethod
    async def list(
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
        answer = await connect(url, api_key).call("GET", target)
        return [workspace_of(value) for value in answer["workspaces"]]

    async def info(self) -> WorkspaceInfo:
        """What the server says about it now."""
        return workspace_of(await self._api.call("GET", self._base))

    async def update(
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
        info = workspace_of(await self._api.call("PATCH", self._base, body))
        self.name = info.name
        return info

    async def delete(self) -> None:
        """For good, with its revisions; only its owner may. Conflict while a sandbox has it mounted."""
        await self._api.call("DELETE", self._base, timeout_s=WORK_TIMEOUT_S)

    # sync

    async def sync(
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
        return await self.sync_with(folder, options, progress)

    async def push(
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
        return await self.sync_with(folder, options, progress)

    async def pull(
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
        return await self.sync_with(folder, options, progress)

    async def sync_with(
        self, folder: str | os.PathLike[str], options: SyncOptions, progress: OnProgress | None = None
    ) -> SyncReport:
        """`sync`, `push` or `pull` by options."""
        # Loads pathspec and zstandard, which nothing else needs.
        from atoll.sdk._async.syncing import AsyncSyncing

        return await AsyncSyncing(self._api, self.id, os.fspath(folder), options, progress).run()

    async def watch(
        self, folder: str | os.PathLike[str], options: SyncOptions | None = None, *, poll_s: float = WATCH_POLL_S
    ) -> AsyncIterator[SyncReport]:
        """Sync at once and with every change in the folder, and look at the workspace every `poll_s` seconds.

        Goes on until the caller leaves the loop. A server that is away for a while is waited for.
        """
        from atoll.sdk._async.syncing import AsyncSyncing
        from atoll.sdk.sync.watch import Watcher

        syncing = AsyncSyncing(self._api, self.id, os.fspath(folder), options or SyncOptions())
        yield await syncing.run()
        watcher = Watcher(syncing.folder, poll_s)
        retry = AsyncRetry(WATCH_WAITS_S)
        try:
            while await async_work(watcher.wait):
                try:
                    report = await syncing.run()
                except Conflict:
                    continue  # it did not come to rest
                except AtollError as error:
                    await retry.after(error)
                    continue
                retry.reset()
                yield report
        finally:
            watcher.stop()

    # history

    async def log(self, *, limit: int = 100, before: int | None = None) -> Sequence[RevisionInfo]:
        """Its revisions, the newest first; `before` is the number from which on they are left out."""
        answer = await self._api.call("GET", target_of(f"{self._base}/revisions", limit=limit, before=before))
        return [revision_of(value) for value in answer["revisions"]]

    async def commit(self, message: str | None = None) -> RevisionInfo:
        """A revision of the tree as it is now; the newest one when nothing changed."""
        body = _body(message=message)
        return revision_of(await self._api.call("POST", f"{self._base}/revisions", body, timeout_s=WORK_TIMEOUT_S))

    async def revision(self, revision: str | int = HEAD) -> RevisionInfo:
        """One of them."""
        return revision_of(await self._api.call("GET", target_of(f"{self._base}/revisions", str(revision))))

    async def diff(
        self, a: str | int = "HEAD~1", b: str | int = HEAD, *, path: str | None = None, text: bool = False
    ) -> Sequence[PathChange]:
        """What became of each path from revision `a` to `b`, one entry a path; `text` adds unified diffs."""
        target = target_of(f"{self._base}/diff", **{"from": str(a)}, to=str(b), path=path, text=text or None)
        answer = await self._api.call("GET", target, timeout_s=WORK_TIMEOUT_S)
        return [change_of(value) for value in answer["changes"]]

    async def files(self, path: str = "", *, revision: str | int = HEAD, depth: int = 1) -> AsyncIterator[TreeEntry]:
        """What a revision has below `path`, sorted; `depth` 1 is a directory's own entries."""
        after: str | None = None
        while True:
            target = target_of(
                f"{self._base}/files", revision=str(revision), path=path, depth=depth, limit=_PAGE, after=after
            )
            answer = await self._api.call("GET", target)
            for value in answer["entries"]:
                yield tree_entry_of(value)
            after = answer.get("next")
            if not after:
                return

    async def read(self, path: str, revision: str | int = HEAD) -> bytes:
        """A file of a revision; TooLarge beyond READ_BYTES_MAX."""
        target = target_of(f"{self._base}/file", revision=str(revision), path=path)
        body = await self._api.stream(target, timeout_s=CALL_TIMEOUT_S)
        return await body.read(READ_BYTES_MAX)

    async def download_into(self, path: str, file: IO[bytes], *, revision: str | int = HEAD) -> int:
        """Append a file of a revision to an open local one; returns its size."""
        target = target_of(f"{self._base}/file", revision=str(revision), path=path)
        return await self._save(target, file)

    async def restore(self, revision: str | int, path: str | None = None) -> RestoreResult:
        """Bring back a revision or snapshot, or one path of it, as a new revision: it can be undone."""
        body = _body(revision=str(revision), path=path)
        return restore_of(await self._api.call("POST", f"{self._base}/restore", body, timeout_s=WORK_TIMEOUT_S))

    async def undo(self) -> RevisionInfo:
        """The state before the newest change, as a new revision."""
        answer = await self._api.call("POST", f"{self._base}/undo", {}, timeout_s=WORK_TIMEOUT_S)
        return revision_of(answer["revision"])

    async def fork(self, name: str, *, revision: str | int | None = None) -> AsyncWorkspace:
        """A new workspace that begins as this one is; instant, whatever its size."""
        body = _body(name=name, revision=None if revision is None else str(revision))
        answer = await self._api.call("POST", f"{self._base}/fork", body, timeout_s=WORK_TIMEOUT_S, once=True)
        return type(self)(self._api, workspace_of(answer))

    async def merge(
        self, other: AsyncWorkspace | str, *, revision: str | int | None = None, base: str | int | None = None
    ) -> MergeResult:
        """Bring another one's changes into this one. What both changed is kept twice, theirs as `name.conflict-...`."""
        body = _body(
            source=other if isinstance(other, str) else other.id,
            revision=None if revision is None else str(revision),
            base=None if base is None else str(base),
        )
        return merge_of(await self._api.call("POST", f"{self._base}/merge", body, timeout_s=WORK_TIMEOUT_S))

    # snapshots

    async def snapshot(self, name: str | None = None, *, own_key: bool = False, keep: bool = False) -> SnapshotInfo:
        """Name the state as it is now and keep it. `own_key`: deleting it makes its bytes unreadable for ever."""
        body = _body(name=name, ownKey=own_key or None, keep=keep or None)
        return snapshot_of(await self._api.call("POST", f"{self._base}/snapshots", body, timeout_s=WORK_TIMEOUT_S))

    async def snapshots(self) -> Sequence[SnapshotInfo]:
        """The newest first."""
        answer = await self._api.call("GET", f"{self._base}/snapshots")
        return [snapshot_of(value) for value in answer["snapshots"]]

    async def delete_snapshot(self, snapshot: str) -> None:
        """By its id or name."""
        await self._api.call("DELETE", target_of(f"{self._base}/snapshots", snapshot))

    # sharing

    async def share(self, principal: str, permission: Permission | str = Permission.READ) -> Mapping[str, str]:
        """Let another principal read, write, or admin(istrate) it; all collaborators."""
        target = target_of(f"{self._base}/collaborators", principal)
        answer = await self._api.call("PUT", target, {"permission": str(permission)})
        return answer["collaborators"]

    async def revoke(self, principal: str) -> None:
        """Take that back."""
        await self._api.call("DELETE", target_of(f"{self._base}/collaborators", principal))

    async def collaborators(self) -> Mapping[str, str]:
        """Principals and their permissions."""
        answer = await self._api.call("GET", f"{self._base}/collaborators")
        return answer["collaborators"]

    # archives

    async def export(self, file: str | os.PathLike[str] | IO[bytes], *, revision: str | int = HEAD) -> int:
        """Write a revision as tar.zst; returns its size in bytes. A named file appears whole or not at all."""
        target = target_of(f"{self._base}/export", revision=str(revision))
        if not isinstance(file, (str, os.PathLike)):
            return await self._save(target, file)
        path = Path(file)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(partial, "wb", buffering=0) as opened:
                size = await self._save(target, opened)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return size

    async def import_(
        self, file: str | os.PathLike[str] | IO[bytes], *, strip: int = 0, message: str | None = None
    ) -> RevisionInfo:
        """Replace the tree by a tar.zst, without the first `strip` parts of its names, as a new revision."""
        target = target_of(f"{self._base}/import", strip=strip or None, message=message)
        if not isinstance(file, (str, os.PathLike)):
            answer = await self._api.upload(target, AsyncUpload(file, None), timeout_s=WORK_TIMEOUT_S, kind=ARCHIVE)
            return revision_of(answer)
        with open(file, "rb") as opened:
            body = AsyncUpload(opened, os.fstat(opened.fileno()).st_size)
            return revision_of(await self._api.upload(target, body, timeout_s=WORK_TIMEOUT_S, kind=ARCHIVE))

    async def verify(self) -> Verification:
        """Read every byte of all its revisions and snapshots, and compare them with what was stored."""
        return verification_of(await self._api.call("POST", f"{self._base}/verify", {}, timeout_s=None))

    async def _save(self, target: str, file: IO[bytes]) -> int:
        size = 0
        async with await self._api.stream(target, timeout_s=WORK_TIMEOUT_S) as body:
            async for block in body.blocks():
                await async_write(file, block)
                size += len(block)
        return size


ARCHIVE = "application/zstd"


def _patterns(exclude: Sequence[str]) -> tuple[str, ...]:
    return tuple(texts(exclude, "exclude", "a list of patterns") or ())


def _body(**fields: object) -> dict[str, object]:
    """Without the fields that are None: they are left to the server."""
    return {name: value for name, value in fields.items() if value is not None}
