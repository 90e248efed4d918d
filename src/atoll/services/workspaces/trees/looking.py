"""Looking: what a scan of a working tree says beside what is known of it; folders that are as before cost a comparison
of their bytes, whatever they hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from atoll.domain.errors import TooLarge
from atoll.domain.tree import DEPTH_MAX, FILE_BYTES_MAX, PATH_BYTES_MAX, Entry, EntryKind, text, unfit_file
from atoll.services.workspaces.trees.stamps import FRESH_NS, Known, Scanned, stamped
from atoll.sidekick.keeper_client import Seen
from atoll.sidekick.keeper_packing import unpack_scan

SHOWN_BYTES = 200  # of a path in a message
KEPT = frozenset(kind.value for kind in EntryKind)


@dataclass(frozen=True, slots=True)
class Looked:
    """`known` is what is as before, sorted, without the paths `to_read`; `changed` whether anything is not."""

    known: Known
    to_read: dict[bytes, Seen]
    changed: bool
    scanned: Scanned


def compare(folders: dict[bytes, bytes], known: Known, old: Scanned, moment_ns: int) -> Looked:
    """`folders` are those of a scan that began at that moment.

    TooLarge for a path or a file that no revision can have, with its name: to leave it out would lose it with the next
    restore.
    """
    same = {folder for folder, packed in folders.items() if old.folders.get(folder) == packed}
    if len(same) == len(folders) == len(old.folders):
        return Looked(known, {}, False, old)
    others = folders.keys() - same
    found = _unpacked(folders, others)
    if not old.linked <= same or any(_is_linked(seen) for folder in found.values() for seen in folder):
        # Which of its names a file has first may be another now.
        same -= old.linked
        found |= _unpacked(folders, old.linked & folders.keys() - others)
    entries: Known = {path: one for path, one in known.items() if path.rpartition(b"/")[0] in same}
    _check_kept(one.path for folder in found.values() for one in folder if one.kind not in KEPT)
    seen = sorted(one for folder in found.values() for one in folder if one.kind in KEPT)
    _check_sizes(seen)
    to_read: dict[bytes, Seen] = {}
    firsts: dict[int, bytes] = {}  # inode -> the first path of a file that has several
    changed = False
    for one in seen:
        path = one.path
        was = known.get(path)
        if _is_linked(one) and firsts.setdefault(one.inode, path) != path:
            entry = Entry(path, EntryKind.HARDLINK, 0, 0, target=firsts[one.inode])
            changed = changed or was is None or was[1] != entry
        elif was is not None and was[0] == one and was[1].kind is not EntryKind.HARDLINK:
            entry = was[1]
        else:
            to_read[path] = one
            continue
        entries[path] = (stamped(one, moment_ns), entry)
    changed = changed or bool(to_read) or len(entries) != len(known)
    trusted = {folder for folder, held in found.items() if all(one.ctime_ns < moment_ns - FRESH_NS for one in held)}
    linked = old.linked & same | {folder for folder, held in found.items() if any(map(_is_linked, held))}
    kept = {folder: packed for folder, packed in folders.items() if folder in same or folder in trusted}
    return Looked(in_order(entries, known), to_read, changed, Scanned(kept, frozenset(linked & kept.keys())))


def in_order(entries: Known, known: Known) -> Known:
    """Sorted by path, as `known` is."""
    if entries.keys() == known.keys():
        return {path: entries[path] for path in known}
    return dict(sorted(entries.items()))


def _unpacked(folders: dict[bytes, bytes], some: Iterable[bytes]) -> dict[bytes, list[Seen]]:
    return {folder: unpack_scan(folders[folder]) for folder in some}


def _is_linked(seen: Seen) -> bool:
    return seen.links > 1 and seen.kind == "f"


def _check_kept(left_out: Iterable[bytes]) -> None:
    """Sockets and devices mean nothing elsewhere; a file whose path is too long does."""
    for path in left_out:
        if len(path) > PATH_BYTES_MAX or path.count(b"/") >= DEPTH_MAX:
            raise TooLarge(
                f"path {text(path[:SHOWN_BYTES])!r}...: a path of a workspace has at most {PATH_BYTES_MAX} bytes and "
                f"{DEPTH_MAX} parts; no revision can be taken while it is there"
            )


def _check_sizes(seen: list[Seen]) -> None:
    for one in seen:
        if one.size > FILE_BYTES_MAX:
            check_file(one.path, one.size)


def check_file(path: bytes, size: int, slots: int = 0) -> None:
    """TooLarge for a file of so many bytes and slots of chunk ids that no tree could hold."""
    unfit = unfit_file(size, slots, 0)
    if unfit is not None:
        raise TooLarge(f"path {text(path[:SHOWN_BYTES])!r}: {unfit}; no revision can be taken while it is there")
