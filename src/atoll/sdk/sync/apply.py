"""Put the changes of a workspace into a folder: first all that is new, then what is to go.

Contents come from the folder itself where it has them, else from the workspace's chunks, in the order of `wanted`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TypeVar

from atoll.domain.chunk_ids import HOLE
from atoll.domain.errors import Corrupt
from atoll.domain.tree import Entry, EntryKind, chunk_id, text
from atoll.domain.tree_changes import Change
from atoll.sdk.sync.contents import Stamp, stamp_of
from atoll.sdk.sync.folder import IN_USE, NO_WAY, Folder, write_chunk

T = TypeVar("T")
Place = tuple[bytes, int]  # (path, offset)
Receiver = Generator[bytes, tuple[bytes, bytes | None], None]


class Applying:
    """One way from the folder as it was seen to the tree that it is to be.

    `before` and `stamps` tell how it was seen: what changed meanwhile is left alone and lands in `disturbed`.
    """

    def __init__(
        self,
        folder: Folder,
        found: Iterable[Change],
        after: Mapping[bytes, Entry],
        before: Mapping[bytes, Entry],
        stamps: Mapping[bytes, Stamp],
    ) -> None:
        self.disturbed: set[bytes] = set()
        self.done: set[bytes] = set()  # written paths
        self._folder = folder
        self._after = after
        self._before = before
        self._stamps = stamps
        found = list(found)
        self._gone = sorted((change.path for change in found if change.after is None), reverse=True)
        self._others: list[Entry] = []
        self._files: list[Entry] = []
        self._metadata: list[Entry] = []  # of files whose contents are right
        links = [entry for entry in before.values() if entry.kind is EntryKind.HARDLINK]
        self._linked = {path for entry in links for path in (entry.path, entry.target)}
        self._changed = {change.path for change in found}
        self._sources: dict[bytes, Place] = {}
        self._again: list[Entry] = []
        for change in found:
            if change.after is not None:
                self._sort_in(change)

    @property
    def bytes_wanted(self) -> int:
        """Of contents that have to come from the workspace, at most."""
        sizes = {chunk: size for entry in self._files for chunk, size in chunks_of(entry)}
        return sum(size for chunk, size in sizes.items() if chunk not in self._sources)

    @property
    def unfinished(self) -> bool:
        """Whether files wait for `receive`, for the first time or again."""
        return bool(self._files)

    def begin(self) -> None:
        """Clear the way for what is new, and make its directories."""
        for path in self._gone:
            if self._in_the_way(path):
                self._remove(path)
        for entry in self._others:
            if entry.kind is EntryKind.DIRECTORY:
                self._try(entry.path, lambda entry=entry: self._folder.make_directory(entry))
        for entry in self._metadata:
            if self._try(entry.path, lambda entry=entry: self._folder.change_metadata(entry)) is False:
                self.done.discard(entry.path)
                self._files.append(entry)

    def wanted(self) -> list[bytes]:
        """The ids of chunks that have to come, each once, in the order in which `receive` takes them."""
        return list(dict.fromkeys(chunk for entry in self._files for chunk, _ in chunks_of(entry)
                                  if chunk not in self._sources))  # fmt: skip

    def receive(self) -> Receiver:
        """Writes the files: is sent (id, contents) for each id that it asks for by yielding."""
        places = dict(self._sources)
        for entry in self._files:
            yield from self._write(entry, places)
        # What was here was not what it seemed.
        self._files, self._again, self._sources = self._again, [], {}

    def finish(self) -> None:
        """The rest: links, removals, times of directories."""
        for entry in [*self._others, *self._links_to_renew()]:
            if entry.kind is not EntryKind.DIRECTORY:
                self._try(entry.path, lambda entry=entry: self._folder.make_other(entry))
        for path in self._gone:
            self._remove(path)
        touched = {path.rpartition(b"/")[0] for path in (*self.done, *self._gone)}
        for path in touched:
            entry = self._after.get(path)
            if entry is not None and path not in self.disturbed:
                self._folder.directory_times(path, entry.mtime_ns)

    def _sort_in(self, change: Change) -> None:
        entry, before = change.after, change.before
        assert entry is not None
        if entry.kind is not EntryKind.FILE:
            self._others.append(entry)
        elif before is not None and (before.kind, before.chunks, before.size, before.holes) == (
            entry.kind, entry.chunks, entry.size, entry.holes,
        ):  # fmt: skip
            self._metadata.append(entry)
        else:
            self._files.append(entry)

    def use(self, known: Mapping[bytes, Entry]) -> None:
        """Contents that the folder has already, wherever they are."""
        if not self._files:
            return
        for path, entry in known.items():
            if entry.kind is EntryKind.FILE:
                for chunk, offset, _ in entry.pieces():
                    self._sources.setdefault(chunk, (path, offset))

    def _links_to_renew(self) -> list[Entry]:
        """Further names of files that were written anew."""
        return [
            entry
            for path, entry in self._after.items()
            if entry.kind is EntryKind.HARDLINK and entry.target in self.done and path not in self._changed
        ]

    def _in_the_way(self, path: bytes) -> bool:
        """Whether something that is no directory is to stand above it."""
        while path := path.rpartition(b"/")[0]:
            entry = self._after.get(path)
            if entry is not None:
                return entry.kind is not EntryKind.DIRECTORY
        return False

    def _write(self, entry: Entry, places: dict[bytes, Place]) -> Receiver:
        """The chunks that it asks for come even when there is nothing to write them to any more."""
        file = self._open(entry)
        good = True
        try:
            written: dict[bytes, int] = {}
            for chunk, offset, size in entry.pieces():
                if chunk == HOLE:
                    continue
                if file and chunk in written:
                    data: bytes | None = os.pread(file[1], size, written[chunk])
                elif chunk in places:
                    data = self._read(chunk, places[chunk], size)
                    good = good and data is not None
                else:
                    data = yield from _ask(chunk, size, entry)
                    places[chunk] = (entry.path, offset)
                if file and data is not None:
                    written[chunk] = offset
                    write_chunk(file[1], entry, offset, data)
            if file and good:
                name, descriptor = file
                self._try(entry.path, lambda: self._folder.finish_file(name, descriptor, entry))
            elif file:
                self._again.append(entry)
        finally:
            if file:
                os.close(file[1])
                if entry.path not in self.done:
                    self._folder.drop_file(file[0], entry.path)

    def _open(self, entry: Entry) -> tuple[bytes, int] | None:
        if not self._untouched(entry.path):
            return None
        try:
            return self._folder.new_file(entry.path)
        except OSError as error:
            if error.errno not in NO_WAY:
                raise
            self.disturbed.add(entry.path)
            return None

    def _read(self, chunk: bytes, place: Place, size: int) -> bytes | None:
        """A chunk that should be in the folder; None when it is not any more."""
        try:
            data = self._folder.read(*place, size)
        except OSError:
            return None
        return data if chunk_id(data) == chunk else None

    def _untouched(self, path: bytes) -> bool:
        """Whether what stands there is what was seen."""
        if path in self.done:
            return True
        now, then = self._folder.status(path), self._stamps.get(path)
        entry = self._before.get(path)
        if entry is not None and entry.kind is EntryKind.DIRECTORY and now is not None and then is not None:
            # What is in it is looked at on its own, and a full one is never removed.
            same = stat.S_ISDIR(now.st_mode) and now.st_ino == then.inode
            self.disturbed |= set() if same else {path}
            return same
        if entry is None and path in self._stamps:
            return False  # it is there, but could not be read
        same = (None if now is None else stamp_of(now)) == then
        if not same and now is not None and then is not None and path in self._linked:
            same = stamp_of(now)[:-1] == then[:-1]  # another name of it was written anew: that changed its ctime
        if not same:
            self.disturbed.add(path)
        return same

    def _try(self, path: bytes, step: Callable[[], T]) -> T | None:
        """Unless it was disturbed, or something stands in the way."""
        if not self._untouched(path):
            self.disturbed.add(path)
            return None
        try:
            result = step()
        except OSError as error:
            if error.errno not in NO_WAY | IN_USE:
                raise
            self.disturbed.add(path)
            return None
        self.done.add(path)
        return result

    def _remove(self, path: bytes) -> None:
        if path not in self.done and not (self._untouched(path) and self._folder.remove(path)):
            self.disturbed.add(path)


def chunks_of(entry: Entry) -> list[tuple[bytes, int]]:
    """(id, size) of the chunks of a file, holes left out."""
    return [(chunk, size) for chunk, _, size in entry.pieces() if chunk != HOLE]


def _ask(chunk: bytes, size: int, entry: Entry) -> Generator[bytes, tuple[bytes, bytes | None], bytes]:
    got, data = yield chunk
    if got != chunk:
        raise Corrupt("the server sent another chunk than it was asked for")
    if data is None or len(data) != size:
        raise Corrupt(f"the workspace has lost contents of {text(entry.path)!r}: `atoll workspace verify` tells more")
    return data
