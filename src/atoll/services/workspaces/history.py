"""History: what a workspace was: its log, the files of a revision, and what changed between two."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from operator import attrgetter

from atoll.domain import tree_changes
from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE
from atoll.domain.errors import InvalidInput, NotFound
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry, EntryKind, check_path, raw, text
from atoll.domain.workspace import Permission
from atoll.records.base import Records
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.refs import Refs, Resolved
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.manifests import Manifests
from atoll.services.workspaces.text_diffs import Budget, unified
from atoll.services.workspaces.viewing import Viewing
from atoll.services.workspaces.views import Change, Diff, Listing, RevisionView

ZEROS = bytes(CHUNK_BYTES)


class History:
    """Looks at revisions. Every method needs the permission `read`; NotFound `revision not found`; Corrupt."""

    def __init__(
        self,
        records: Records,
        access: WorkspaceAccess,
        refs: Refs,
        chunks: ChunkStore,
        manifests: Manifests,
        viewing: Viewing,
        limits: WorkspaceLimits,
    ) -> None:
        self._records = records
        self._access = access
        self._refs = refs
        self._chunks = chunks
        self._manifests = manifests
        self._viewing = viewing
        self._limits = limits

    async def log(
        self, principal: Principal, ref: str, *, limit: int = 100, before: int | None = None
    ) -> list[RevisionView]:
        """Newest first, those with a number below `before`."""
        found = await self._access.find(principal, ref, Permission.READ)
        limit = max(0, min(limit, self._limits.listed_max))
        listed = await self._records.list_revisions(workspace=found.workspace.id, before=before, limit=limit)
        return await self._viewing.revisions(listed, found.workspace.id)

    async def get(self, principal: Principal, ref: str, revision: str) -> RevisionView:
        resolved = await self.resolve(principal, ref, revision)
        return await self._viewing.revision(resolved.revision)

    async def resolve(self, principal: Principal, ref: str, revision: str) -> Resolved:
        """The revision of a ref, damaged or not."""
        found = await self._access.find(principal, ref, Permission.READ)
        return await self._refs.resolve(found.workspace, revision)

    async def files(
        self,
        principal: Principal,
        ref: str,
        revision: str = "HEAD",
        path: str = "",
        *,
        depth: int = 1,
        limit: int = 1000,
        after: str | None = None,
    ) -> Listing:
        """What is below a folder, `depth` levels of it, sorted, those behind the path `after`; of a file itself.

        NotFound when nothing is at the path.
        """
        resolved = (await self.resolve(principal, ref, revision)).readable()
        where = _path(path)
        limit = max(1, min(limit, self._limits.listed_max))
        entry = await self._manifests.find(resolved.lineage, resolved.tree, where)
        if entry is None:
            raise NotFound(f"{path!r} is not in revision {resolved.revision.number}")
        if entry.kind is not EntryKind.DIRECTORY:
            return Listing(resolved.revision, [entry])
        prefix = where + b"/" if where else b""
        deepest = prefix.count(b"/") + max(1, depth)
        found: list[Entry] = []
        begin = prefix if after is None else max(prefix, _path(after) + b"\0")
        async with aclosing(self._from(resolved, begin)) as entries:
            async for one in entries:
                if not one.path.startswith(prefix):
                    break
                if one.path == where or one.path.count(b"/") >= deepest:
                    continue
                if len(found) == limit:
                    return Listing(resolved.revision, found, text(found[-1].path))
                found.append(one)
        return Listing(resolved.revision, found)

    async def file(
        self, principal: Principal, ref: str, path: str, revision: str = "HEAD"
    ) -> tuple[Entry, AsyncGenerator[bytes]]:
        """A file's entry (its size is the length of what follows) and its bytes. NotFound; InvalidInput for what is no
        file."""
        resolved = (await self.resolve(principal, ref, revision)).readable()
        entry = await self._manifests.find(resolved.lineage, resolved.tree, _path(path))
        if entry is not None and entry.kind is EntryKind.HARDLINK:
            entry = await self._manifests.find(resolved.lineage, resolved.tree, entry.target)
        if entry is None:
            raise NotFound(f"{path!r} is not in revision {resolved.revision.number}")
        if entry.kind is not EntryKind.FILE:
            raise InvalidInput(f"{path!r} is not a file", field="path")
        return entry, self._contents(resolved.lineage, entry)

    async def diff(
        self,
        principal: Principal,
        ref: str,
        from_: str = "HEAD~1",
        to: str = "HEAD",
        *,
        path: str = "",
        texts: bool = True,
    ) -> Diff:
        """One change for each path at or below `path` that differs, renames told as such; unified diffs of text files
        as far as an answer holds them. A directory whose only change is its times is left out."""
        found = await self._access.find(principal, ref, Permission.READ)
        old = (await self._refs.resolve(found.workspace, from_)).readable()
        new = (await self._refs.resolve(found.workspace, to)).readable()
        before, after = await self._manifests.changed_pages(old.lineage, old.tree, new.tree, new.lineage)
        listed = await asyncio.to_thread(_compared, before, after)
        where = _path(path)
        if where:
            listed = [one for one in listed if _concerns(one, where)]
        most = self._limits.diff_changes_max
        changes: list[Change] = []
        room, budget = self._limits.diff_texts_bytes_max if texts else 0, Budget()
        for one in listed[:most]:
            change = _change(one)
            if room > 0:
                change = await self._with_text(change, old.lineage, new.lineage, budget)
                room -= len(change.text or "")
            changes.append(change)
        return Diff(old.revision, new.revision, changes, len(listed) > most)

    async def _from(self, resolved: Resolved, path: bytes) -> AsyncGenerator[Entry]:
        """The entries at and behind a path, read from its page on."""
        root = await self._manifests.root(resolved.lineage, resolved.tree)
        number = max(0, bisect_right(root.pages, path, key=attrgetter("first")) - 1)
        async with aclosing(self._manifests.pages(resolved.lineage, root.pages[number:])) as pages:
            async for entries in pages:
                for entry in entries[bisect_left(entries, path, key=attrgetter("path")) :]:
                    yield entry

    async def _contents(self, lineage: str, entry: Entry) -> AsyncGenerator[bytes]:
        async with aclosing(self._chunks.fetch(lineage, entry.chunk_ids())) as chunks:
            for id, _, length in entry.pieces():
                if id == HOLE:
                    for at in range(0, length, CHUNK_BYTES):
                        yield ZEROS[: length - at]
                        await asyncio.sleep(0)  # nothing else waits here, and there may be terabytes
                else:
                    yield (await anext(chunks))[1]

    async def _with_text(self, change: Change, lineage_before: str, lineage_after: str, budget: Budget) -> Change:
        files = [one for one in (change.before, change.after) if one is not None]
        if any(one.kind is not EntryKind.FILE for one in files) or len({one.chunks for one in files}) < len(files):
            return change  # no contents, or equal ones
        if any(one.size > self._limits.diff_text_bytes_max for one in files):
            return replace(change, binary=True)
        before = await self._text(lineage_before, change.before)
        after = await self._text(lineage_after, change.after)
        if before is None or after is None:
            return replace(change, binary=True)
        old_name = text(change.from_ or change.path) if change.before else "/dev/null"
        new_name = text(change.path) if change.after else "/dev/null"
        lines = await asyncio.to_thread(unified, before, after, old_name, new_name, budget)
        return replace(change, text=lines)

    async def _text(self, lineage: str, entry: Entry | None) -> str | None:
        """A file's contents; "" of one that is not there, None of one that is no text."""
        if entry is None:
            return ""
        data = b"".join([piece async for piece in self._contents(lineage, entry)])
        if b"\0" in data:
            return None
        try:
            return data.decode()
        except UnicodeDecodeError:
            return None


def _path(path: str) -> bytes:
    where = raw(path.strip("/"))
    check_path(where)
    return where


def _compared(before: list[Entry], after: list[Entry]) -> list[tree_changes.Change]:
    return tree_changes.with_renames(tree_changes.changes(before, after))


def _concerns(change: tree_changes.Change, where: bytes) -> bool:
    paths = [path for path in (change.path, change.renamed_from) if path is not None]
    return any(path == where or path.startswith(where + b"/") for path in paths)


def _change(one: tree_changes.Change) -> Change:
    there = one.after or one.before
    assert there is not None
    return Change(one.path, one.kind.value, there.kind, one.renamed_from, one.before, one.after)
