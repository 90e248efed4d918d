"""Unpack: a tar stream becomes a tree, or is refused as a whole; nothing in it leads anywhere but into the tree.

What archives may hold here: files (sparse ones too), folders, symlinks, hardlinks and FIFOs, with their modes
(setuid, setgid and sticky as plain bits), times and user.* attributes. All of it belongs to the tree's own user.
Of several members of one name the last counts.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import stat
import tarfile

from atoll.sidekick.fields import number, seconds
from atoll.sidekick.keeper_applier import Applier, Meta
from atoll.sidekick.keeper_link import Gone, Link
from atoll.sidekick.keeper_paths import TIME_MAX, Folders
from atoll.sidekick.keeper_wire import FILE_BYTES_MAX, PIECE_BYTES, is_path
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HEADER_BYTES_MAX = 1 << 18  # of one name or set of attributes, which are read into memory
MEMBER_BYTES_MAX = 1 << 22  # of all that comes before a member's contents: headers, and the map of a sparse file
GLOBALS_MAX = 64  # records that hold for all members
TAIL_BYTES_MAX = 1 << 24  # zeros behind the end
MEMORY_BYTES = 512 * 2**20
TIME_MAX_S = 600.0
IMPLICIT_MODE = 0o755  # of folders that are only named as a part of another member

_REGULAR = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE})
_KINDS = {tarfile.DIRTYPE: b"d", tarfile.SYMTYPE: b"l", tarfile.LNKTYPE: b"h", tarfile.FIFOTYPE: b"p"}
_HEADERS = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
_XATTR = "SCHILY.xattr."
_SECONDS = re.compile(r"(-?)(\d{1,18})(?:\.(\d*))?")


def unpack(root: int, link: Link, request: dict[str, Any]) -> None:
    """Takes DATA with the archive, END; RESULT {entries}."""
    bytes_max = number(request, "bytes_max", 1 << 62, 1 << 62)
    entries_max = number(request, "entries_max", 1 << 62, 1 << 62)
    strip = number(request, "strip", 0, 4096)
    _bound(seconds(request, "time_max_s", TIME_MAX_S) or TIME_MAX_S)
    try:
        with Folders(root) as folders:
            applier = Applier(folders)
            try:
                entries = Unpacking(root, link, applier, bytes_max, entries_max, strip).run()
                applier.finish()
            finally:
                applier.drop_unfinished()
    except MemoryError:
        raise Refused("too_large", "the archive takes more memory than a keeper has", "archive") from None
    except Refused as refused:
        if refused.code != "conflict":
            raise
        raise _malformed(refused.message) from None  # nobody else is in this tree: the archive contradicts itself
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    link.result({"entries": entries})


def _bound(time_max_s: float) -> None:
    def late(_signal: int, _frame: object) -> None:
        raise Refused("too_large", f"the archive takes longer than {time_max_s:g} s to unpack", "archive")

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(hard, MEMORY_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, time_max_s)


class _Stream:
    """The archive as tarfile wants it: a file that is read forwards only."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._piece = memoryview(b"")
        self._at = 0
        self._ended = False
        self._headers_left: int | None = None  # bytes, while a member's headers are read

    def read_headers(self, call: Any) -> Any:
        """The call's result; Refused when it reads more than the headers of one member may have."""
        self._headers_left = MEMBER_BYTES_MAX
        try:
            return call()
        finally:
            self._headers_left = None

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> int:
        if position < self._at:
            raise tarfile.StreamError("an archive is read forwards only")
        while position > self._at and self._take(min(PIECE_BYTES, position - self._at)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        """As many bytes; fewer only at the end."""
        if self._headers_left is not None:
            self._headers_left -= size
            if self._headers_left < 0:
                raise _malformed(f"the headers of one member have more than {MEMBER_BYTES_MAX} bytes")
        return self._take(size)

    def _take(self, size: int) -> bytes:
        if size <= len(self._piece):
            data = bytes(self._piece[:size])
            self._piece = self._piece[size:]
        else:
            pieces: list[memoryview] = []
            wanted = size
            while wanted and self._fill():
                pieces.append(self._piece[:wanted])
                self._piece = self._piece[wanted:]
                wanted -= len(pieces[-1])
            data = b"".join(pieces)
        self._at += len(data)
        return data

    def check_rest(self) -> None:
        """After its end an archive has nothing but zeros, and of those a few."""
        left = TAIL_BYTES_MAX
        while self._fill():
            left -= len(self._piece)
            if left < 0:
                raise _malformed(f"more than {TAIL_BYTES_MAX} bytes of zeros follow its end")
            if bytes(self._piece).strip(b"\0"):
                raise _malformed("something follows its end")
            self._piece = self._piece[:0]

    def _fill(self) -> bool:
        while not self._piece and not self._ended:
            payload = self._link.read_data()
            if payload is None:
                self._ended = True
            else:
                self._piece = memoryview(payload)
        return bool(self._piece)


class _Tar(tarfile.TarFile):
    ended = False  # by a block of zeros: else it was cut off


class _Member(tarfile.TarInfo):
    """A member that tells the archive's end from its being cut off, and whose headers are bounded."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Any:
        try:
            return super().fromtarfile(tarfile)
        except _EndOfArchive:
            tarfile.ended = True
            raise

    def _proc_member(self, tarfile: Any) -> Any:
        if self.size < 0 or (self.type in _HEADERS and self.size > HEADER_BYTES_MAX):
            raise _malformed(f"a header of {self.size} bytes")
        return super()._proc_member(tarfile)  # type: ignore[misc]


_EndOfArchive: type[Exception] = getattr(tarfile, "EOFHeaderError")  # noqa: B009 - not in its stubs


class Unpacking:
    """One archive on its way into a tree."""

    def __init__(self, root: int, link: Link, applier: Applier, bytes_max: int, entries_max: int, strip: int) -> None:
        owner = os.fstat(root)
        self._owner = owner.st_uid, owner.st_gid
        self._stream = _Stream(link)
        self._applier = applier
        self._bytes_max, self._bytes = bytes_max, 0
        self._entries_max, self._entries = entries_max, 0
        self._strip = strip
        self._folders: set[bytes] = {b""}

    def run(self) -> int:
        """How many members were unpacked."""
        tar = self._headers(lambda: _Tar(fileobj=self._stream, mode="r", tarinfo=_Member, encoding="utf-8"))  # type: ignore[arg-type]
        unpacked = 0
        while (member := self._headers(tar.next)) is not None:
            tar.members = []  # it would keep them all
            _check_globals(tar.pax_headers)
            self._count(member)
            path = self._path(member.name)
            if path is not None:
                self._take(member, path)
                unpacked += 1
        if not tar.ended:
            raise _malformed("it is cut off")
        self._stream.check_rest()
        return unpacked

    def _headers(self, call: Any) -> Any:
        return self._parsed(lambda: self._stream.read_headers(call))

    def _parsed(self, call: Any) -> Any:
        """tarfile meets what is malformed with whatever exception comes of it."""
        try:
            return call()
        except (Refused, Gone, MemoryError):
            raise
        except Exception as error:
            raise _malformed(str(error) or type(error).__name__) from None

    def _count(self, member: tarfile.TarInfo) -> None:
        if member.size < 0:
            raise _malformed("a negative size")
        self._count_entry()
        if member.type in _REGULAR:
            sparse: list[tuple[int, int]] | None = getattr(member, "sparse", None)
            self._bytes += member.size if sparse is None else sum(max(length, 0) for _, length in sparse)
            if member.size > FILE_BYTES_MAX:
                raise Refused("too_large", f"{member.name!r} has more than {FILE_BYTES_MAX} bytes", "archive")
        if self._bytes > self._bytes_max:
            raise Refused("too_large", f"the archive's files hold more than {self._bytes_max} bytes", "archive")

    def _count_entry(self) -> None:
        self._entries += 1
        if self._entries > self._entries_max:
            raise Refused("too_large", f"the archive has more than {self._entries_max} entries", "archive")

    def _path(self, name: str) -> bytes | None:
        """Where it goes; None when nothing is left of the name. Refused for one that leads out."""
        raw = _raw(name)
        parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
        if raw.startswith(b"/"):
            raise _malformed(f"{name!r} is absolute")
        if b".." in parts:
            raise _malformed(f"{name!r} leads out of the tree")
        if parts and not is_path(b"/".join(parts)):
            raise _malformed(f"{name[:300]!r} is too long, too deep, or has a NUL in it")
        if self._strip and len(parts) <= self._strip:
            return None
        return b"/".join(parts[self._strip :])

    def _take(self, member: tarfile.TarInfo, path: bytes) -> None:
        kind = b"f" if member.type in _REGULAR else _KINDS.get(member.type)
        if kind is None:
            raise _malformed(f"{member.name!r} is a device, or of another kind that no tree keeps")
        if not path and kind != b"d":
            raise _malformed("its root is no folder")
        self._make_parents(path)
        target = b""
        if kind == b"h":
            linked = self._path(member.linkname)
            if not linked:
                raise _malformed(f"{member.name!r} links to nothing in it")
            target = linked
        elif kind == b"l":
            target = _raw(member.linkname)
            if not target or b"\0" in target or len(target) > 4095:
                raise _malformed(f"{member.name!r} is a link without a target, or with one that is too long")
        if kind == b"d":
            self._folders.add(path)
        else:
            self._folders.discard(path)
        size = member.size if kind == b"f" else 0
        mode = 0 if kind in (b"l", b"h") else stat.S_IMODE(member.mode)
        self._applier.write(path, Meta(kind, mode, *self._owner, _mtime_ns(member), size, target, _xattrs(member)))
        if size:
            self._contents(member)

    def _make_parents(self, path: bytes) -> None:
        """Those that the archive does not name before what is in them."""
        missing: list[bytes] = []
        parent = path.rpartition(b"/")[0]
        while parent not in self._folders:
            missing.append(parent)
            parent = parent.rpartition(b"/")[0]
        for folder in reversed(missing):
            if self._applier.stands(folder):
                raise _malformed(f"{os.fsdecode(folder)!r} is a folder and something else")
            self._count_entry()
            self._applier.write(folder, Meta(b"d", IMPLICIT_MODE, *self._owner, 0, 0, b"", ()))
            self._folders.add(folder)

    def _contents(self, member: tarfile.TarInfo) -> None:
        sparse: list[tuple[int, int]] | None = getattr(member, "sparse", None)
        self._parsed(lambda: self._stream.seek(member.offset_data))
        at = 0
        for offset, length in [(0, member.size)] if sparse is None else sparse:
            if length < 0 or offset < 0 or offset + length > member.size or (length and offset < at):
                raise _malformed(f"{member.name!r} has a map that is none of its size")
            if not length:
                continue
            if offset > at:
                self._applier.skip(offset - at)
            self._copy(length)
            at = offset + length
        if at < member.size:
            self._applier.skip(member.size - at)

    def _copy(self, length: int) -> None:
        while length:
            data = self._stream.read(min(PIECE_BYTES, length))
            if not data:
                raise _malformed("it is cut off")
            self._applier.data(data)
            length -= len(data)


def _check_globals(records: Mapping[str, str]) -> None:
    if records and (len(records) > GLOBALS_MAX or sum(map(len, records.values())) > HEADER_BYTES_MAX):
        raise _malformed("too many records hold for all of its members")


def _mtime_ns(member: tarfile.TarInfo) -> int:
    told = member.pax_headers.get("mtime")
    if told is None:
        ns = int(member.mtime) * 10**9
    else:
        found = _SECONDS.fullmatch(told)
        if found is None:
            raise _malformed(f"{member.name!r} was modified at {told[:40]!r}")
        sign, seconds, fraction = found.groups()
        ns = int(seconds) * 10**9 + int((fraction or "").ljust(9, "0")[:9])
        ns = -ns if sign else ns
    return max(-TIME_MAX, min(ns, TIME_MAX))


def _xattrs(member: tarfile.TarInfo) -> tuple[tuple[bytes, bytes], ...]:
    if not member.pax_headers or member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        return ()
    return tuple(
        (_raw(name[len(_XATTR) :]), _raw(value))
        for name, value in sorted(member.pax_headers.items())
        if name.startswith(_XATTR + "user.")
    )


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _malformed(why: str) -> Refused:
    return Refused("bad_request", f"the archive cannot be unpacked: {why}", "archive")
