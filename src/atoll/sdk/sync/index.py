"""What a folder and a workspace were after their last sync: one file a pair, in the user's state folder.

It makes a sync cheap and conflicts visible; without it nothing is lost: the next sync compares everything anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path

from atoll.domain.errors import Conflict
from atoll.domain.tree import Entry
from atoll.sdk.sync.columns import (
    TIME_NS_MAX,
    pack_entries,
    pack_names,
    pack_stamps,
    unpack_entries,
    unpack_names,
    unpack_stamps,
)
from atoll.sdk.sync.contents import Stamp

VERSION = 2


class SyncUnderWay(Conflict):
    """Another sync of this folder runs just now."""

    retryable = True


@dataclass(slots=True)
class Index:
    """`workspace` is its tree at `revision`, `base` what both sides had in common, `folder` what was here then."""

    revision: str | None = None
    workspace: dict[bytes, Entry] = field(default_factory=dict[bytes, Entry])
    base: dict[bytes, Entry] = field(default_factory=dict[bytes, Entry])
    folder: dict[bytes, tuple[Stamp, Entry]] = field(default_factory=dict[bytes, tuple[Stamp, Entry]])


def state_folder() -> Path:
    """$XDG_STATE_HOME/atoll/sync, else below ~/.local/state."""
    named = os.environ.get("XDG_STATE_HOME")
    return (Path(named) if named else Path.home() / ".local" / "state") / "atoll" / "sync"


class IndexFile:
    """The index of one folder with one workspace of one server: a line of JSON, then the pieces that it measures."""

    def __init__(self, url: str, workspace: str, folder: str) -> None:
        self._pair = [url, workspace, folder]
        name = hashlib.blake2b(json.dumps(self._pair).encode(), digest_size=16).hexdigest()
        self.path = state_folder() / f"{name}.index"

    @contextmanager
    def locked(self) -> Generator[None]:
        """One sync of the pair at a time; SyncUnderWay."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SyncUnderWay(f"another sync of {self._pair[2]} with this workspace runs just now") from None
            yield

    def load(self) -> Index:
        """An empty one when there is none that can be read."""
        try:
            head, _, body = self.path.read_bytes().partition(b"\n")
            value = json.loads(head)
            described = (value["version"], value["pair"], value["digest"])
            if described != (VERSION, self._pair, _digest(body)):
                return Index()
            pieces = (body[start:end] for start, end in pairwise(accumulate(value["sizes"], initial=0)))
            workspace = {entry.path: entry for entry in unpack_entries(pieces)}
            base = _changed(workspace, pieces)
            here = _changed(workspace, pieces)
            paths = unpack_names(next(pieces))
            known = zip(unpack_stamps(pieces), map(here.__getitem__, paths), strict=True)
            return Index(value["revision"], workspace, base, dict(zip(paths, known, strict=True)))
        except (OSError, ValueError, TypeError, KeyError, IndexError, StopIteration, RecursionError):
            return Index()

    def save(self, index: Index) -> None:
        """Replace the file in one step."""
        known = {path: one for path, one in index.folder.items() if abs(one[0].mtime_ns) <= TIME_NS_MAX}
        pieces = [
            *pack_entries(index.workspace.values()),
            *_differences(index.workspace, index.base),
            *_differences(index.workspace, {path: entry for path, (_, entry) in known.items()}),
            pack_names(known),
            *pack_stamps([stamp for stamp, _ in known.values()]),
        ]
        body = b"".join(pieces)
        head = {
            "version": VERSION,
            "pair": self._pair,
            "revision": index.revision,
            "sizes": [len(piece) for piece in pieces],
            "digest": _digest(body),
        }
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            fresh.write_bytes(json.dumps(head).encode() + b"\n" + body)
            os.replace(fresh, self.path)
        finally:
            fresh.unlink(missing_ok=True)


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _differences(from_tree: Mapping[bytes, Entry], tree: Mapping[bytes, Entry]) -> list[bytes]:
    """A tree as what it has otherwise than another one."""
    others = [entry for path, entry in tree.items() if from_tree.get(path) is not entry]
    gone = from_tree.keys() - tree.keys()
    return [*pack_entries([entry for entry in others if from_tree.get(entry.path) != entry]), pack_names(gone)]


def _changed(tree: Mapping[bytes, Entry], pieces: Iterator[bytes]) -> dict[bytes, Entry]:
    """The tree that `_differences` was given."""
    result = dict(tree)
    result.update((entry.path, entry) for entry in unpack_entries(pieces))
    for path in unpack_names(next(pieces)):
        del result[path]
    return result
