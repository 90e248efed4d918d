# Made by scripts/unasync.py from ../_async/syncing.py: change that file, not this one.
"""One sync of a folder with a workspace: look, plan, send, commit, fetch, write. `Workspace` calls it.

Whatever is cut off is taken up where it was; whoever was faster is merged with; a folder or workspace that changes
meanwhile is looked at again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound, Unavailable
from atoll.domain.tree import ID_BYTES, Entry, text
from atoll.domain.tree_changes import Change
from atoll.sdk._io import Background, work
from atoll.sdk._sync.api import CALL_TIMEOUT_S, Api
from atoll.sdk._sync.http import Upload
from atoll.sdk._sync.retry import Retry
from atoll.sdk.requests import target_of
from atoll.sdk.sync import ignore
from atoll.sdk.sync.apply import Applying
from atoll.sdk.sync.folder import Folder
from atoll.sdk.sync.index import Index, IndexFile
from atoll.sdk.sync.plan import Plan, Tree, plan
from atoll.sdk.sync.scan import Scan, scan
from atoll.sdk.sync.settle import (
    after_commit,
    changed_tree,
    chunks_in,
    commit_of,
    paths_of,
    remember,
    stamps_of_written,
)
from atoll.sdk.sync.upload import FileChanged, FrameFile, Source, sources_of
from atoll.sdk.sync.values import (
    Direction,
    LeftOut,
    OnProgress,
    SyncConflict,
    SyncOptions,
    SyncProgress,
    SyncReport,
)
from atoll.sdk.sync.wire import ENTRIES_TYPE, FrameReader, pack_entries
from atoll.sdk.workspace_values import RevisionInfo, revision_of

ATTEMPTS = 5  # at a folder or workspace that changes all the time
TRANSFER_TIMEOUT_S = 300.0  # of silence, while the server packs what it got
ASKED_AT_ONCE = 65_536  # chunk ids of one question
FETCHED_AT_ONCE = 4_096  # chunks of one request
UNASKED_BYTES = 2**20  # so little is sent without asking whether it is there


class Syncing:
    """One folder, one workspace, one way to go about it; `run` may be called again and again."""

    def __init__(
        self, api: Api, workspace: str, folder: str, options: SyncOptions, progress: OnProgress | None = None
    ) -> None:
        self.folder = os.path.realpath(folder)
        self._api = api
        self._base = target_of("/v1/workspaces", workspace) + "/sync"
        self._options = options
        self._on_progress = progress
        self._file = IndexFile(api.config.url, workspace, self.folder)
        self._index: Index | None = None
        self._asks_all = False
        self._retry = Retry()
        self._reached = False  # whether the server answered in this run
        self._bytes_sent = 0
        self._bytes_received = 0

    def run(self) -> SyncReport:
        """Errors: InvalidInput, NotFound, Conflict when it never comes to rest, and those of connections."""
        self._bytes_sent = self._bytes_received = 0
        self._retry, self._reached = Retry(), False
        work(self._check)
        with self._file.locked():
            self._index = work(self._file.load)
            attempts = 0
            while True:
                try:
                    return self._once(last=attempts == ATTEMPTS - 1)
                except (Conflict, FileChanged) as error:
                    attempts += 1
                    if attempts == ATTEMPTS:
                        if isinstance(error, FileChanged):
                            raise Conflict(f"{text(error.args[0])!r} changes while it is sent") from None
                        raise
                except InvalidInput as error:
                    # A chunk that was there may have been collected meanwhile: ask for each of them.
                    if self._asks_all or error.field not in ("path", "chunks"):
                        raise
                    self._asks_all = True
                except AtollError as error:
                    if not self._reached:
                        raise
                    self._retry.after(error)

    def _check(self) -> None:
        if self._options.direction is Direction.PUSH and not os.path.isdir(self.folder):
            raise InvalidInput(f"{self.folder} is no folder", field="folder")
        if not self._options.dry_run:
            os.makedirs(self.folder, exist_ok=True)

    def _once(self, *, last: bool) -> SyncReport:
        index = self._index or Index()
        known = index.revision
        rules = self._rules()
        looking = Background(work, _look, self.folder, rules, index)
        try:
            head = revision_of((self._api.call("GET", f"{self._base}/head"))["revision"])
        finally:
            seen: Scan = looking.join()
        self._reached = True
        if head.id != index.revision:
            index.workspace = self._entries(head, index)
            index.revision = head.id
        if self._options.ignore_files:
            rules = self._rules(self._ignore_files(index, seen))
        wanted = work(self._plan, index, seen, rules, head)
        if self._options.dry_run:
            return self._report(head, wanted, seen)
        revision = head
        here = seen.entries
        there = wanted.workspace
        to_workspace, to_folder = wanted.to_workspace, wanted.to_folder
        if to_workspace:
            entries, gone = commit_of(to_workspace, wanted)
            revision = self._commit(index, entries, gone, head)
            there = wanted.workspace_after
            index.workspace = after_commit(index.workspace, entries, gone)
            index.revision = revision.id
            if to_folder:  # which may fail: what is done is done
                remember(index, wanted, here, there, seen, {})
                work(self._file.save, index)
        disturbed: set[bytes] = set()
        if to_folder or seen.leftovers:
            disturbed, here = self._apply(wanted, to_folder, seen)
        stamps = work(stamps_of_written, self.folder, here, to_folder)
        before = index.base, index.folder
        remember(index, wanted, here, there, seen, stamps, frozenset(disturbed))
        if revision.id != known or before != (index.base, index.folder):
            work(self._file.save, index)
        if disturbed and not last:
            raise Conflict(f"{text(min(disturbed))!r} changes while the folder is written")
        for path in disturbed:
            seen.left_out[path] = "it changed meanwhile, or something is in its way"
        return self._report(revision, wanted, seen)

    def _rules(self, fetched: Mapping[bytes, bytes] | None = None) -> ignore.Rules:
        load = ignore.of_folder(self.folder, fetched or {}) if self._options.ignore_files else None
        return ignore.Rules(load, self._options.exclude, home=self._options.home)

    def _ignore_files(self, index: Index, seen: Scan) -> dict[bytes, bytes]:
        """Contents of the workspace's ignore files that the folder never had: they count from the beginning."""
        found = {
            path: chunks
            for path in sorted(index.workspace.keys() - seen.entries.keys() - index.base.keys())
            if path.rpartition(b"/")[2] in ignore.IGNORE_FILES
            and len(chunks := index.workspace[path].chunks) == ID_BYTES
        }
        if not found:
            return {}
        ids = b"".join(found.values())
        answer = self._api.stream(f"{self._base}/fetch", timeout_s=CALL_TIMEOUT_S, post=ids)
        chunks = dict(FrameReader().feed(answer.read()))
        return {path: chunks.get(chunk) or b"" for path, chunk in found.items()}

    def _plan(self, index: Index, seen: Scan, rules: ignore.Rules, head: RevisionInfo) -> Plan:
        return plan(
            index.base,
            seen.entries,
            index.workspace,
            rules,
            seen.left_out,
            direction=self._options.direction,
            delete=self._options.delete,
            label=str(head.number),
        )

    def _entries(self, head: RevisionInfo, index: Index) -> Tree:
        """The workspace's tree at `head`: what changed since the revision that is known, or all of it."""
        since = index.revision
        try:
            body = self._entries_since(head, since)
        except NotFound:
            if since is None:
                raise
            since = None  # that revision is gone
            body = self._entries_since(head, None)
        self._bytes_received += len(body)
        return work(changed_tree, index.workspace if since else {}, body)

    def _entries_since(self, head: RevisionInfo, since: str | None) -> bytes:
        target = target_of(f"{self._base}/entries", revision=head.id, since=since)
        answer = self._api.stream(target, timeout_s=TRANSFER_TIMEOUT_S)
        return answer.read()

    def _commit(self, index: Index, entries: list[Entry], gone: list[bytes], head: RevisionInfo) -> RevisionInfo:
        """Send what the workspace lacks, then the new tree; Conflict when its head moved."""
        sources = sources_of(entries)
        if sources and not self._asks_all:
            known = chunks_in(index.workspace)
            sources = {chunk: source for chunk, source in sources.items() if chunk not in known}
        if sources:
            self._send(sources)
        body = work(pack_entries, entries, gone)
        self._bytes_sent += len(body)
        target = target_of(f"{self._base}/commit", base=head.id, message=self._options.message)
        answer = self._api.upload(target, body, timeout_s=TRANSFER_TIMEOUT_S, kind=ENTRIES_TYPE)
        return revision_of(answer)

    def _send(self, sources: dict[bytes, Source]) -> None:
        """Send chunks until the workspace has them all; a cut stream is asked for and goes on."""
        asked = self._asks_all or sum(source.size for source in sources.values()) > UNASKED_BYTES
        while True:
            try:
                if asked:
                    missing = self._missing(list(sources))
                    if len(missing) < len(sources):
                        self._retry.reset()
                    sources = {chunk: sources[chunk] for chunk in missing if chunk in sources}
                if sources:
                    self._send_once(list(sources.values()))
                return
            except AtollError as error:
                self._retry.after(error)
                asked = True

    def _send_once(self, sources: Sequence[Source]) -> None:
        moved, total = 0, sum(source.size for source in sources)

        def progress(count: int) -> None:
            nonlocal moved
            moved += count
            self._progress("upload", moved, total)

        frames = FrameFile(self.folder, sources, progress)
        try:
            body = Upload(frames, None)  # type: ignore[arg-type]
            self._api.upload(f"{self._base}/chunks", body, timeout_s=TRANSFER_TIMEOUT_S)
        finally:
            self._bytes_sent += frames.bytes_read
            work(frames.close)

    def _missing(self, ids: Sequence[bytes]) -> list[bytes]:
        missing: list[bytes] = []
        for at in range(0, len(ids), ASKED_AT_ONCE):
            body = b"".join(ids[at : at + ASKED_AT_ONCE])
            answer = self._api.stream(f"{self._base}/missing", timeout_s=CALL_TIMEOUT_S, post=body)
            said = answer.read()
            missing += [said[start : start + ID_BYTES] for start in range(0, len(said), ID_BYTES)]
        return missing

    def _apply(self, wanted: Plan, found: list[Change], seen: Scan) -> tuple[set[bytes], Tree]:
        """Write the changes into the folder; (what could not be touched, the folder as it is now)."""
        folder = work(Folder, self.folder)
        try:
            for path in seen.leftovers:
                work(folder.drop_file, path.rpartition(b"/")[2], path)
            applying = Applying(folder, found, wanted.folder_after, wanted.folder, seen.stamps)
            work(applying.begin)
            work(applying.use, seen.entries)
            self._receive(applying)
            work(applying.finish)
        finally:
            work(folder.close)
        after = {path: entry for path, entry in wanted.folder_after.items() if path not in applying.disturbed}
        for path in applying.disturbed & wanted.folder.keys():
            after[path] = wanted.folder[path]
        return applying.disturbed, {path: after[path] for path in sorted(after)}

    def _receive(self, applying: Applying) -> None:
        total, done = applying.bytes_wanted, 0
        while applying.unfinished:
            ids = applying.wanted()
            receiver = applying.receive()
            try:
                expected = work(next, receiver, None)
                at = 0
                while expected is not None:
                    before = at
                    try:
                        some = b"".join(ids[at : at + FETCHED_AT_ONCE])
                        reader = FrameReader()
                        target = f"{self._base}/fetch"
                        with self._api.stream(target, timeout_s=TRANSFER_TIMEOUT_S, post=some) as body:
                            for piece in body.blocks():
                                self._bytes_received += len(piece)
                                count, size, expected = work(_take, reader, piece, receiver)
                                at, done = at + count, done + size
                                if count:
                                    self._retry.reset()
                                    self._progress("download", done, max(total, done))
                        if at == before:
                            raise Unavailable("the server sent no chunk of those that it was asked for")
                    except AtollError as error:
                        self._retry.after(error)
            finally:
                work(receiver.close)

    def _progress(self, phase: str, done: int, total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(SyncProgress(phase, done, total))

    def _report(self, revision: RevisionInfo, wanted: Plan | None, seen: Scan) -> SyncReport:
        left_out = tuple(LeftOut(text(path), why) for path, why in sorted(seen.left_out.items()))
        if wanted is None:
            return SyncReport(revision, left_out=left_out, dry_run=self._options.dry_run)
        return SyncReport(
            revision,
            sent=paths_of(wanted.to_workspace),
            received=paths_of(wanted.to_folder),
            conflicts=tuple(SyncConflict(text(one.path), text(one.kept), one.reason) for one in wanted.conflicts),
            not_deleted=tuple(map(text, wanted.not_deleted)),
            left_out=left_out,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            dry_run=self._options.dry_run,
        )


def _look(folder: str, rules: ignore.Rules, index: Index) -> Scan:
    return scan(folder, rules, index.folder) if os.path.isdir(folder) else Scan()


def _take(reader: FrameReader, piece: bytes, receiver: Any) -> tuple[int, int, bytes | None]:
    """Hand over the frames of a piece: (how many, their bytes, what is expected next)."""
    count = size = 0
    expected: bytes | None = b""
    for chunk, data in reader.feed(piece):
        count, size = count + 1, size + len(data or b"")
        try:
            expected = receiver.send((chunk, data))
        except StopIteration:
            return count, size, None
    return count, size, expected
