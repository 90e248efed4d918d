"""Entries and stamps as columns: one piece of bytes for each field of all of them; the index file is made of these.

Ten thousand entries are read in a fraction of the time that as many lines of JSON take.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from atoll.domain.chunk_ids import joined
from atoll.domain.tree import USER_ID, Entry, EntryKind, raw, text
from atoll.sdk.sync.contents import Stamp

_STAMP = "Qqqq"  # the form of each field
TIME_NS_MAX = 2**63 - 1
_KINDS = {kind.value: kind for kind in EntryKind}


def pack_entries(entries: Collection[Entry]) -> list[bytes]:
    """As pieces, owners left out."""
    return [
        pack_names(entry.path for entry in entries),
        "".join([entry.kind for entry in entries]).encode(),
        _pack_numbers("H", [entry.mode for entry in entries]),
        _pack_numbers("q", [entry.mtime_ns for entry in entries]),
        _pack_numbers("q", [entry.size for entry in entries]),
        _pack_numbers("q", [len(entry.chunks) for entry in entries]),
        b"".join([entry.chunks for entry in entries]),
        pack_names(entry.target for entry in entries),
        json.dumps(_rare(entries)).encode(),
    ]


def unpack_entries(pieces: Iterator[bytes]) -> list[Entry]:
    """What `pack_entries` was given, from the next of the pieces."""
    paths = unpack_names(next(pieces))
    kinds = map(_KINDS.__getitem__, next(pieces).decode())
    modes, times, sizes, lengths = (_unpack_numbers(form, next(pieces)) for form in "Hqqq")
    ids = next(pieces)
    chunks = [joined(ids[start:end]) for start, end in pairwise(accumulate(lengths, initial=0))]
    targets = unpack_names(next(pieces))
    count = len(paths)
    owners, nothing = [USER_ID] * count, [()] * count
    columns = (paths, kinds, modes, times, owners, owners, sizes, chunks, targets, nothing, nothing)
    entries: list[Entry] = list(map(Entry._make, zip(*columns, strict=True)))
    rare: list[tuple[int, Any, Any]] = json.loads(next(pieces))
    for number, holes, xattrs in rare:
        entries[number] = entries[number]._replace(
            holes=tuple((at, length) for at, length in holes),
            xattrs=tuple((raw(name), b64decode(value)) for name, value in xattrs),
        )
    return entries


def pack_stamps(stamps: Collection[Stamp]) -> list[bytes]:
    """As pieces, one for each field."""
    return [_pack_numbers(form, [stamp[at] for stamp in stamps]) for at, form in enumerate(_STAMP)]


def unpack_stamps(pieces: Iterator[bytes]) -> list[Stamp]:
    """What `pack_stamps` was given, from the next of the pieces."""
    return list(map(Stamp._make, zip(*(_unpack_numbers(form, next(pieces)) for form in _STAMP), strict=True)))


def pack_names(names: Iterable[bytes]) -> bytes:
    """Paths and the like: none has a NUL in it."""
    return b"".join([name + b"\0" for name in names])


def unpack_names(piece: bytes) -> list[bytes]:
    return piece.split(b"\0")[:-1]


def _pack_numbers(form: str, numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}{form}", *numbers)


def _unpack_numbers(form: str, piece: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(piece) // struct.calcsize('<' + form)}{form}", piece)


def _rare(entries: Iterable[Entry]) -> list[Any]:
    """What few entries have, with the entry's number."""
    return [
        [number, entry.holes, [(text(name), b64encode(value).decode()) for name, value in entry.xattrs]]
        for number, entry in enumerate(entries)
        if entry.holes or entry.xattrs
    ]
