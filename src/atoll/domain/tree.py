"""Tree: a file tree as values: its entries, cut into pages, under one content address.

A revision's tree is a *root* (JSON: its pages) over *pages* (lines of JSON, one entry each, sorted by path) over
*chunks* of file contents. Root, pages and chunks are all stored as chunks, under `chunk_id` of their bytes, so that two
revisions share whatever is equal. Pages are cut where a hash of a path says so: a change moves no other page's border.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, NamedTuple

from atoll.domain import chunk_ids
from atoll.domain.chunk_ids import CHUNK_BYTES, ID_BYTES, SLOTS_MAX, Piece
from atoll.domain.errors import InvalidInput

PAGE_ENTRIES_MAX = 4096
PAGE_EVERY = 512  # entries in a page, on average
PATH_BYTES_MAX = 4096
NAME_BYTES_MAX = 255
DEPTH_MAX = 256
FILE_BYTES_MAX = 2**44 - 4096  # holes included: what a file system of working trees allows
HOLES_MAX = 32_768  # that an entry tells of, however many there are; further ones are zeros
LINKS_MAX = 65_000  # names of one file: what a file system of working trees allows
USER_ID = 1000  # of the tenant, as its sandbox sees it
_NO_NAMES = frozenset((b"", b".", b".."))


class EntryKind(StrEnum):
    """What stands at a path. Sockets and devices are not kept."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    HARDLINK = "h"  # a further name of the file at `target`, which sorts before it
    FIFO = "p"


class Entry(NamedTuple):
    """One path of a tree. `path` is relative, raw bytes; the root itself is b"" and comes first."""

    path: bytes
    kind: EntryKind
    mode: int = 0o644  # permission, setuid, setgid and sticky bits; 0 for symlinks and hardlinks
    mtime_ns: int = 0
    uid: int = USER_ID
    gid: int = USER_ID
    size: int = 0  # of files, in bytes
    chunks: bytes = b""  # of files: the ids of their chunks, one after the other, as chunk_ids.py describes
    target: bytes = b""  # of symlinks the text, of hardlinks the path of the first name
    holes: tuple[tuple[int, int], ...] = ()  # of sparse files: (offset, length) of each hole, ascending
    xattrs: tuple[tuple[bytes, bytes], ...] = ()  # (name, value), sorted

    def chunk_ids(self) -> Iterator[bytes]:
        """The ids of its chunks in order, holes left out."""
        return chunk_ids.data_ids(self.chunks)

    def pieces(self) -> Iterator[Piece]:
        """Its contents from the first byte to the last: chunks, and between them holes of any length."""
        return chunk_ids.pieces(self.chunks, self.size)

    def all_holes(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of each, ascending and apart: those in `holes`, and those that only its chunks tell of."""
        told = list(self.holes)
        if chunk_ids.has_holes(self.chunks):
            told += [(at, length) for id, at, length in self.pieces() if id == chunk_ids.HOLE]
        begin = end = -1
        for at, length in sorted(told):
            if at > end:
                if end > begin:
                    yield begin, end - begin
                begin = at
            end = max(end, at + length)
        if end > begin:
            yield begin, end - begin


class Page(NamedTuple):
    """A page as the root lists it."""

    id: bytes
    first: bytes  # the path of its first entry
    entries: int


class Root(NamedTuple):
    """A tree's list of pages, and what they hold in all."""

    pages: tuple[Page, ...]
    entries: int
    bytes: int  # of file contents, each hardlinked file once


def chunk_id(data: bytes | memoryview) -> bytes:
    """The address of a chunk: BLAKE2b-256 of its bytes."""
    return hashlib.blake2b(data, digest_size=ID_BYTES).digest()


def pages(entries: Iterable[Entry]) -> Iterator[tuple[list[Entry], bytes]]:
    """Sorted entries cut into pages: (the page's entries, its bytes)."""
    page: list[Entry] = []
    for entry in entries:
        if page and (len(page) >= PAGE_ENTRIES_MAX or begins_a_page(entry.path)):
            yield page, encode_page(page)
            page = []
        page.append(entry)
    if page:
        yield page, encode_page(page)


def begins_a_page(path: bytes) -> bool:
    """Whether a page is cut before this path, whatever else the tree holds."""
    return int.from_bytes(hashlib.blake2b(path, digest_size=4).digest(), "big") % PAGE_EVERY == 0


def encode_page(entries: Iterable[Entry]) -> bytes:
    """Lines of JSON, the same for the same entries."""
    return b"\n".join(map(encode_entry, entries))


def encode_entry(entry: Entry) -> bytes:
    """One line of JSON without its end: an array of the fields, defaults at its end left out."""
    path, kind, mode, mtime_ns, uid, gid, size, chunks, target, holes, xattrs = entry
    if chunks and not (target or holes or xattrs):  # most entries: the same text in a third of the time
        ids = base64.b64encode(chunks).decode()
        return f'[{_quoted(text(path))},"{kind.value}",{mode},{mtime_ns},{uid},{gid},{size},"{ids}"]'.encode()
    fields: list[Any] = [
        text(path),
        kind.value,
        mode,
        mtime_ns,
        uid,
        gid,
        size,
        base64.b64encode(chunks).decode(),
        text(target),
        holes,
        [(text(name), base64.b64encode(value).decode()) for name, value in xattrs],
    ]
    while not fields[-1] and len(fields) > 4:
        fields.pop()
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_page(data: bytes) -> list[Entry]:
    """The entries of `encode_page`; InvalidInput for anything else."""
    try:
        lines = json.loads(b"[%b]" % data.replace(b"\n", b","))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not a page of a tree: {error}", field="entries") from None
    return [_entry(fields) for fields in lines]


def decode_entry(line: bytes | str) -> Entry:
    """The entry of `encode_entry`; InvalidInput for anything else. Its path is not checked: see `check_entries`."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not an entry of a tree: {error}", field="entries") from None
    return _entry(fields)


def _entry(fields: Any) -> Entry:
    try:
        path, kind, mode, mtime_ns, *rest = fields
        uid, gid, size, chunks, target, holes, xattrs = rest + [0, 0, 0, "", "", (), ()][len(rest) :]
        return Entry(
            raw(path),
            EntryKind(kind),
            _whole(mode, 0o7777),
            _whole(mtime_ns, 2**63 - 1, -(2**63)),
            _whole(uid, 0xFFFF),
            _whole(gid, 0xFFFF),
            _whole(size, 2**62),
            chunk_ids.joined(binascii.a2b_base64(chunks, strict_mode=True)) if chunks else b"",
            raw(target) if target else b"",
            tuple((_whole(at, 2**62), _whole(length, 2**62)) for at, length in holes),
            tuple((raw(name), base64.b64decode(value, validate=True)) for name, value in xattrs),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(f"not an entry of a tree: {error}", field="entries") from None


def encode_root(root: Root) -> bytes:
    """JSON, the same for the same root."""
    value = {
        "version": 1,
        "entries": root.entries,
        "bytes": root.bytes,
        "pages": [[page.id.hex(), text(page.first), page.entries] for page in root.pages],
    }
    return json.dumps(value, separators=(",", ":")).encode()


def decode_root(data: bytes) -> Root:
    """The root of `encode_root`; InvalidInput for anything else."""
    try:
        value = json.loads(data)
        if value["version"] != 1:
            raise ValueError(f"version {value['version']} is newer than this program")
        listed = tuple(Page(bytes.fromhex(page), raw(first), int(count)) for page, first, count in value["pages"])
        return Root(listed, int(value["entries"]), int(value["bytes"]))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"not the root of a tree: {error}") from None


def check_entries(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Each entry as it is; InvalidInput for one that could not be part of a tree: its path, order, parent, contents.

    The first is the root directory. Every other one's parent is a directory before it.
    """
    last: bytes | None = None
    kinds: dict[bytes, EntryKind] = {}  # of directories, and of files that hardlinks may name
    links: Counter[bytes] = Counter()
    for entry in entries:
        if last is None:
            if entry.path != b"" or entry.kind is not EntryKind.DIRECTORY:
                raise _wrong(entry.path, "the first entry must be the root directory")
        elif entry.path <= last:
            raise _wrong(entry.path, "entries must be sorted by path, each once")
        else:
            _check_path(entry, kinds)
        _check_contents(entry, kinds)
        if entry.kind in (EntryKind.DIRECTORY, EntryKind.FILE):
            kinds[entry.path] = entry.kind
        elif entry.kind is EntryKind.HARDLINK:
            links[entry.target] += 1
            if links[entry.target] >= LINKS_MAX:
                raise _wrong(entry.path, f"a file has at most {LINKS_MAX} names")
        last = entry.path
        yield entry
    if last is None:
        raise InvalidInput("a tree has at least its root directory", field="entries")


def check_path(path: bytes) -> None:
    """InvalidInput unless it could stand in a tree: relative, bounded, nothing to resolve; b"" is the root."""
    parts = path.split(b"/") if path else []
    if len(path) > PATH_BYTES_MAX or len(parts) > DEPTH_MAX:
        raise _wrong(path, f"a path has at most {PATH_BYTES_MAX} bytes and {DEPTH_MAX} parts")
    long = len(path) > NAME_BYTES_MAX and any(len(part) > NAME_BYTES_MAX for part in parts)
    if long or b"\0" in path or not _NO_NAMES.isdisjoint(parts):
        raise _wrong(path, "a path is relative, without empty parts, '.', '..' and NUL, each part at most 255 bytes")


def _check_path(entry: Entry, kinds: dict[bytes, EntryKind]) -> None:
    check_path(entry.path)
    if kinds.get(entry.path.rpartition(b"/")[0]) is not EntryKind.DIRECTORY:
        raise _wrong(entry.path, "its parent is no directory of this tree")


def _check_contents(entry: Entry, kinds: dict[bytes, EntryKind]) -> None:
    if entry.kind is EntryKind.FILE:
        if (unfit := unfit_file(entry.size, len(entry.chunks) // ID_BYTES, len(entry.holes))) is not None:
            raise _wrong(entry.path, unfit)
        expected = -(-entry.size // CHUNK_BYTES)
        if len(entry.chunks) % ID_BYTES or chunk_ids.count_chunks(entry.chunks) != expected:
            raise _wrong(entry.path, f"{entry.size} bytes need {expected} chunk ids")
        at = 0
        for start, length in entry.holes:
            if start < at or length <= 0 or start + length > entry.size:
                raise _wrong(entry.path, "holes must ascend and lie within the file")
            at = start + length
    elif entry.size or entry.chunks or entry.holes:
        raise _wrong(entry.path, "only files have a size, chunks and holes")
    if entry.kind is EntryKind.SYMLINK and not (0 < len(entry.target) <= PATH_BYTES_MAX and b"\0" not in entry.target):
        raise _wrong(entry.path, f"a symlink's target has 1 to {PATH_BYTES_MAX} bytes, none of them NUL")
    if entry.kind is EntryKind.HARDLINK and kinds.get(entry.target) is not EntryKind.FILE:
        raise _wrong(entry.path, "a hardlink's target is a file before it in this tree")


def unfit_file(size: int, slots: int, holes: int) -> str | None:
    """Why no tree could hold a file of so many bytes, slots of chunk ids and holes; None when one could."""
    if size > FILE_BYTES_MAX:
        return f"it has {size} bytes, where a file of a workspace has at most {FILE_BYTES_MAX}, holes included"
    if slots > SLOTS_MAX or holes > HOLES_MAX:
        return (
            f"a file of a workspace has at most {SLOTS_MAX} chunks and holes, and tells of {HOLES_MAX} holes: its "
            f"contents are too far apart, or larger than {SLOTS_MAX * CHUNK_BYTES} bytes"
        )
    return None


def _wrong(path: bytes, message: str) -> InvalidInput:
    return InvalidInput(f"path {text(path)!r}: {message}", field="path")


def text(name: bytes) -> str:
    """A raw name as text that JSON carries: bytes that are not UTF-8 as lone surrogates."""
    return name.decode("utf-8", "surrogateescape")


def raw(name: str) -> bytes:
    """The name that `text` was given."""
    return name.encode("utf-8", "surrogateescape")


def _whole(value: object, most: int, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{value!r} is not a whole number within {least}..{most}")
    return value
