"""Random trees for property tests, small enough that paths meet and differ often."""

from __future__ import annotations

from hypothesis import strategies as st

from atoll.domain.chunk_ids import HOLE
from atoll.domain.tree import Entry, EntryKind, chunk_id

NAMES = (b"a", b"b", b"c\xff", b"a.txt")
CONTENTS = (b"", b"one", b"two", b"three")


def root(mtime_ns: int = 0) -> Entry:
    return Entry(b"", EntryKind.DIRECTORY, 0o755, mtime_ns)


def file(path: bytes, data: bytes = b"one", mode: int = 0o644, mtime_ns: int = 0) -> Entry:
    """A file as a tree has it."""
    return Entry(path, EntryKind.FILE, mode, mtime_ns, size=len(data), chunks=chunk_id(data) if data else b"")


def folder(path: bytes, mode: int = 0o755, mtime_ns: int = 0) -> Entry:
    return Entry(path, EntryKind.DIRECTORY, mode, mtime_ns)


def sparse(path: bytes) -> Entry:
    return Entry(path, EntryKind.FILE, 0o600, 0, size=2**20, chunks=HOLE, holes=((0, 2**20),))


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    """A valid tree of at most a dozen entries."""
    found: dict[bytes, Entry] = {b"": root(draw(st.integers(0, 1)))}
    files: list[bytes] = []
    for _ in range(draw(st.integers(0, 10))):
        parents = sorted(path for path, entry in found.items() if entry.kind is EntryKind.DIRECTORY)
        parent = draw(st.sampled_from(parents))
        path = (parent + b"/" if parent else b"") + draw(st.sampled_from(NAMES))
        if path in found or path.count(b"/") > 2:
            continue
        kind = draw(st.sampled_from("ffddlh"))
        earlier = [name for name in files if name < path]
        if kind == "d":
            found[path] = folder(path, draw(st.sampled_from((0o755, 0o700))), draw(st.integers(0, 1)))
        elif kind == "l":
            found[path] = Entry(path, EntryKind.SYMLINK, 0, 0, target=draw(st.sampled_from(NAMES)))
        elif kind == "h" and earlier:
            found[path] = Entry(path, EntryKind.HARDLINK, 0, 0, target=draw(st.sampled_from(earlier)))
        else:
            found[path] = file(path, draw(st.sampled_from(CONTENTS)), mtime_ns=draw(st.integers(0, 1)))
            files.append(path)
    return [found[path] for path in sorted(found)]
