"""What a folder and a workspace were after their last sync: one JSON file a pair, in the user's state folder.

It makes a sync cheap and conflicts visible; without it nothing is lost: the next sync compares everything anew.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
from binascii import a2b_base64
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.domain.errors import Conflict
from atoll.domain.tree import USER_ID, Entry, EntryKind, raw, text
from atoll.sdk.sync.contents import Stamp

VERSION = 1
_KINDS = {kind.value: kind for kind in EntryKind}
_Row = list[Any]


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
    """The index of one folder with one workspace of one server."""

    def __init__(self, url: str, workspace: str, folder: str) -> None:
        self._pair = [url, workspace, folder]
        name = hashlib.blake2b(json.dumps(self._pair).encode(), digest_size=16).hexdigest()
        self.path = state_folder() / f"{name}.json"
        self._rows: dict[bytes, tuple[Entry, _Row]] = {}  # as they were read: most stay as they are

    @contextmanager
    def locked(self) -> Generator[None]:
        """One sync of the pair at a time; Conflict."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"another sync of {self._pair[2]} with this workspace runs just now") from None
            yield

    def load(self) -> Index:
        """An empty one when there is none that can be read."""
        try:
            value: dict[str, Any] = json.loads(self.path.read_bytes())
            if value["version"] != VERSION or value["pair"] != self._pair:
                return Index()
            rows: list[_Row] = value["workspace"]
            self._rows = {(entry := _entry(row)).path: (entry, row) for row in rows}
            workspace = {path: entry for path, (entry, _) in self._rows.items()}
            base = _changed(workspace, value["base"])
            here = _changed(workspace, value["folder"])
            stamps: dict[str, list[int]] = value["stamps"]
            known = ((raw(path), Stamp(*stamp)) for path, stamp in stamps.items())
            return Index(
                value["revision"], workspace, base, {path: (stamp, here[path]) for path, stamp in known if path in here}
            )
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            return Index()

    def save(self, index: Index) -> None:
        """Replace the file in one step."""
        here = {path: entry for path, (_, entry) in index.folder.items()}
        value = {
            "version": VERSION,
            "pair": self._pair,
            "revision": index.revision,
            "workspace": [self._row(entry) for entry in index.workspace.values()],
            "base": _differences(index.workspace, index.base),
            "folder": _differences(index.workspace, here),
            "stamps": {text(path): stamp for path, (stamp, _) in index.folder.items()},
        }
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            fresh.write_text(json.dumps(value, separators=(",", ":")))
            os.replace(fresh, self.path)
        finally:
            fresh.unlink(missing_ok=True)

    def _row(self, entry: Entry) -> _Row:
        known = self._rows.get(entry.path)
        return known[1] if known is not None and known[0] is entry else _row(entry)


def _row(entry: Entry) -> _Row:
    row: _Row = [
        text(entry.path),
        entry.kind.value,
        entry.mode,
        entry.mtime_ns,
        entry.size,
        base64.b64encode(entry.chunks).decode() if entry.chunks else "",
        text(entry.target) if entry.target else "",
    ]
    if entry.holes or entry.xattrs:
        row += [entry.holes, [[text(name), base64.b64encode(data).decode()] for name, data in entry.xattrs]]
    return row


def _entry(row: _Row) -> Entry:
    path, kind, mode, mtime_ns, size, chunks, target = row[:7]
    ids = a2b_base64(chunks) if chunks else b""
    link = raw(target) if target else b""
    entry = Entry(raw(path), _KINDS[kind], mode, mtime_ns, USER_ID, USER_ID, size, ids, link)
    if len(row) == 7:
        return entry
    return entry._replace(
        holes=tuple((at, length) for at, length in row[7]),
        xattrs=tuple((raw(name), base64.b64decode(data)) for name, data in row[8]),
    )


def _differences(from_tree: Mapping[bytes, Entry], tree: Mapping[bytes, Entry]) -> dict[str, Any]:
    """A tree as what it has otherwise than another one."""
    return {
        "rows": [
            _row(entry)
            for path, entry in tree.items()
            if (other := from_tree.get(path)) is not entry and other != entry
        ],
        "gone": [text(path) for path in from_tree.keys() - tree.keys()],
    }


def _changed(tree: Mapping[bytes, Entry], differences: Mapping[str, Any]) -> dict[bytes, Entry]:
    """The tree that `_differences` was given."""
    result = dict(tree)
    for path in differences["gone"]:
        result.pop(raw(path), None)
    for entry in map(_entry, differences["rows"]):
        result[entry.path] = entry
    return result
