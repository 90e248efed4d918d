"""Stamps: what each working tree was when it was last looked at, so that the next look reads only what changed.

A cache: a file that is lost or damaged costs one full read. What must not be lost is the *mark* of a tree that somebody
may have changed since: it is on the disk before a sandbox gets the tree to write in.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from atoll.domain.tree import Entry, EntryKind
from atoll.sidekick.keeper_client import Seen

FRESH_NS = 20_000_000  # the kernel's clock of files is coarse: a later change may bear the same time within this
_MAGIC = b"atoll stamps 3\n"
_DIGEST_BYTES = 16
_STAMP_FIELDS = len(Seen._fields)
_VALUES = {kind: kind.value for kind in EntryKind}
_UNTRUSTED = -1  # in place of an inode: no scan ever sees it

Known = dict[bytes, tuple[Seen, Entry]]


@dataclass(frozen=True, slots=True)
class Scanned:
    """Folders, as a keeper packed what it saw in them, all of whose entries are known with stamps to trust."""

    folders: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    linked: frozenset[bytes] = frozenset()  # those of them with files that have several names


@dataclass(frozen=True, slots=True)
class TreeState:
    """What a working tree was: `tree` is the revision's tree that it equalled, `known` how each path looked, sorted;
    `scanned`, in memory only, lets a look pass over what is as it was."""

    tree: str
    known: Known
    scanned: Scanned = field(default_factory=Scanned)


def stamped(seen: Seen, moment_ns: int) -> Seen:
    """The stamp to keep of a path that was seen at that moment; one that the next scan cannot equal where it is so
    young that a later change could look the same."""
    return seen if seen.ctime_ns < moment_ns - FRESH_NS else seen._replace(inode=_UNTRUSTED)


class Stamps:
    """The states by tree id, in files of one folder, the newest in memory too; blocking."""

    def __init__(self, folder: Path, cached_max: int) -> None:
        self._folder = folder
        self._cached_max = cached_max  # paths over all trees
        self._cache: OrderedDict[str, TreeState] = OrderedDict()
        self._lock = threading.Lock()  # of the cache: calls come from threads

    def load(self, tree_id: str) -> TreeState | None:
        """None when it is not known."""
        with self._lock:
            state = self._cache.get(tree_id)
        if state is None:
            try:
                state = _decode((self._folder / f"{tree_id}.stamps").read_bytes())
            except (OSError, ValueError, EOFError, TypeError, LookupError):
                return None
        self._keep(tree_id, state)
        return state

    def save(self, tree_id: str, state: TreeState) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f"{tree_id}.partial"
        partial.write_bytes(encode_state(state))
        partial.rename(self._folder / f"{tree_id}.stamps")
        self._keep(tree_id, state)

    def remember(self, tree_id: str, state: TreeState) -> None:
        """As `save`, of a state that differs in `scanned` alone."""
        self._keep(tree_id, state)

    def mark(self, tree_id: str, workspace_id: str) -> None:
        """From now on that workspace's tree may differ from its state; durable when this returns."""
        path = self._folder / f"{tree_id}.touched"
        if path.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f"{tree_id}.partial"
        with partial.open("w") as file:
            file.write(workspace_id)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def unmark(self, tree_id: str) -> None:
        """It was looked at, and nobody can write in it now."""
        (self._folder / f"{tree_id}.touched").unlink(missing_ok=True)

    def marked_by(self, tree_id: str) -> str | None:
        """The workspace that a marked tree belongs, or belonged, to."""
        try:
            return (self._folder / f"{tree_id}.touched").read_text()
        except OSError:
            return None

    def is_marked(self, tree_id: str) -> bool:
        return (self._folder / f"{tree_id}.touched").exists()

    def forget(self, tree_id: str) -> None:
        with self._lock:
            self._cache.pop(tree_id, None)
        for suffix in ("stamps", "touched", "partial"):
            (self._folder / f"{tree_id}.{suffix}").unlink(missing_ok=True)

    def trees(self) -> set[str]:
        """The ids of all that something is kept of."""
        return {path.stem for path in self._folder.glob("*.*")} if self._folder.exists() else set()

    def _keep(self, tree_id: str, state: TreeState) -> None:
        with self._lock:
            self._cache[tree_id] = state
            self._cache.move_to_end(tree_id)
            held = sum(len(one.known) for one in self._cache.values())
            while held > self._cached_max and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                held -= len(dropped.known)


def known_of(seen: Iterable[Seen], entries: Iterable[Entry], moment_ns: int) -> Known:
    """What is known of paths that were written and seen afterwards, in the same order."""
    return {entry.path: (stamped(one, moment_ns), entry) for one, entry in zip(seen, entries, strict=True)}


def encode_state(state: TreeState) -> bytes:
    rows = [(*seen, _VALUES[entry[1]], *entry[2:]) for seen, entry in state.known.values()]
    # Our own file, checked by its digest: nobody else's bytes are loaded. This version looks for nothing to share.
    body = marshal.dumps((state.tree, rows), 2)
    return _MAGIC + hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() + body


def _decode(data: bytes) -> TreeState:
    begin = len(_MAGIC) + _DIGEST_BYTES
    body = memoryview(data)[begin:]
    digest = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
    if data[:begin] != _MAGIC + digest:
        raise ValueError("not a file of stamps")
    tree, rows = marshal.loads(body)
    kinds = {kind.value: kind for kind in EntryKind}
    known: Known = {}
    for row in rows:
        kind, *fields = row[_STAMP_FIELDS:]
        known[row[0]] = (Seen(*row[:_STAMP_FIELDS]), Entry(row[0], kinds[kind], *fields))
    return TreeState(tree, known)
