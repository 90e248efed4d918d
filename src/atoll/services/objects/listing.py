"""Listing: the bucket's keys in their order, a page at a time; what one delimiter groups is told once.

A key is `<workspace>/<path>`. Within one workspace the order is that of its tree, so that a page costs what is on it;
over all of them, workspaces come by the names that stand in the keys.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from operator import attrgetter

from atoll.domain.errors import InvalidInput
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry
from atoll.domain.workspace import Revision
from atoll.services.objects.batches import followed
from atoll.services.objects.names import key_of
from atoll.services.objects.objects import Objects, StoredObject
from atoll.services.workspaces.parts import Parts

SLASH, AFTER_SLASH = b"/", b"0"  # the byte that follows
PAGE_MAX = 1_000
_NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,128}")  # of a workspace, as it may stand in a key


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asks for: keys that begin so, behind that one."""

    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    limit: int = PAGE_MAX


@dataclass(slots=True)
class Listed:
    """A page: objects by their whole keys, and prefixes; `more` whether others follow, behind the last of both."""

    objects: list[tuple[str, StoredObject]] = field(default_factory=list[tuple[str, StoredObject]])
    prefixes: list[str] = field(default_factory=list[str])
    last: str = ""
    more: bool = False


class Listing:
    """Lists for a principal what it may read."""

    def __init__(self, parts: Parts, objects: Objects) -> None:
        self._parts = parts
        self._objects = objects

    async def page(self, principal: Principal, wanted: Wanted) -> Listed:
        """InvalidInput for a delimiter other than `/`. A workspace that is unknown, or somebody else's, holds
        nothing."""
        if wanted.delimiter not in ("", "/"):
            raise InvalidInput("the only delimiter is '/'", field="delimiter")
        listed = Listed()
        if wanted.limit <= 0:
            return listed
        if "/" in wanted.prefix:
            shown = wanted.prefix.partition("/")[0]
            if _may_hold(f"{shown}/", wanted.after):
                await self._add(listed, principal, wanted, shown)
            return listed
        for shown, ref in await self._workspaces(principal, wanted.prefix):
            if not _may_hold(f"{shown}/", wanted.after) or (wanted.delimiter and wanted.after == f"{shown}/"):
                continue
            if len(listed.objects) + len(listed.prefixes) >= wanted.limit:
                listed.more = True
                break
            if wanted.delimiter:
                listed.prefixes.append(f"{shown}/")
                listed.last = f"{shown}/"
            else:
                await self._add(listed, principal, wanted, shown, ref)
                if listed.more:
                    break
        return listed

    async def _workspaces(self, principal: Principal, prefix: str) -> list[tuple[str, str]]:
        """As they stand in keys, and what they are found by: one's own by their names, others by their ids."""
        found: list[tuple[str, str]] = []
        for workspace, _ in await self._parts.access.list(principal, shared=True):
            own = workspace.owner == principal.id and _NAME.fullmatch(workspace.name)
            shown = workspace.name if own else workspace.id
            if shown.startswith(prefix):
                found.append((shown, workspace.id))
        return sorted(found, key=lambda one: f"{one[0]}/".encode())

    async def _add(
        self, listed: Listed, principal: Principal, wanted: Wanted, shown: str, ref: str | None = None
    ) -> None:
        """What one workspace has of it, as far as there is room on the page."""
        revision = await self._objects.now(principal, ref or shown)
        if revision is None:
            return
        begin = f"{shown}/"
        prefix = wanted.prefix[len(begin) :].encode("utf-8", "surrogateescape")
        entries: list[Entry] = []
        room = wanted.limit - len(listed.objects) - len(listed.prefixes)
        start = _start(begin, wanted.after, wanted.delimiter)
        async with aclosing(self._found(revision, prefix, start, wanted.delimiter)) as found:
            async for key, entry in found:
                if not room:
                    listed.more = True
                    break
                room -= 1
                listed.last = f"{begin}{key}"
                if entry is None:
                    listed.prefixes.append(listed.last)
                else:
                    entries.append(entry)
        sums = await self._objects.checksums.of(principal.id, revision.lineage, entries)
        for entry, md5 in zip(entries, sums, strict=True):
            key = entry.path.decode()
            listed.objects.append((f"{begin}{key}", StoredObject(key, entry, md5)))

    async def _found(
        self, revision: Revision, prefix: bytes, start: bytes, delimiter: str
    ) -> AsyncGenerator[tuple[str, Entry | None]]:
        """Keys with their entries, and common prefixes with None, in their order."""
        begin: bytes | None = max(prefix, start)
        while begin is not None:
            resume = None
            async with aclosing(self._from(revision, begin)) as entries:
                async for entry in entries:
                    if not entry.path.startswith(prefix):
                        return
                    key = key_of(entry)
                    file = None if key is None else await followed(self._parts, revision, entry)
                    if key is None or file is None or file.size > self._objects.object_bytes:
                        continue
                    at = entry.path.find(SLASH, len(prefix)) if delimiter else -1
                    if at < 0:
                        yield key, file
                        continue
                    yield entry.path[: at + 1].decode(), None
                    resume = entry.path[:at] + AFTER_SLASH  # the first that does not lie below it
                    break
            begin = resume

    async def _from(self, revision: Revision, path: bytes) -> AsyncGenerator[Entry]:
        """The entries at and behind a path, read from its page on."""
        root = await self._parts.manifests.root(revision.lineage, revision.tree)
        number = max(0, bisect_right(root.pages, path, key=attrgetter("first")) - 1)
        async with aclosing(self._parts.manifests.pages(revision.lineage, root.pages[number:])) as pages:
            async for entries in pages:
                for entry in entries[bisect_left(entries, path, key=attrgetter("path")) :]:
                    yield entry


def _may_hold(begin: str, after: str) -> bool:
    """Whether a key that begins so can come behind that one."""
    return f"{begin}\U0010ffff".encode() > after.encode("utf-8", "surrogateescape")


def _start(begin: str, after: str, delimiter: str) -> bytes:
    """The first path of that workspace that comes behind a key."""
    if not after.startswith(begin):
        return b""  # it belongs to a workspace before this one: see `_may_hold`
    path = after[len(begin) :].encode("utf-8", "surrogateescape")
    return path[:-1] + AFTER_SLASH if delimiter and path.endswith(SLASH) else path + b"\0"
