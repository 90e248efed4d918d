"""The async client of one keeper: scan, read, apply and unpack the working tree of one workspace.

A keeper is a sidekick with a table of operations of its own (see docs/sidekick-protocol.md): every call opens one
connection through the runtime's connector. Paths are raw bytes, relative to the tree's root, which is b"".
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from atoll.domain.errors import DeadlineExceeded, Internal, InvalidInput, NotFound
from atoll.domain.tree import Entry, EntryKind, text
from atoll.sidekick import keeper_wire as packed
from atoll.sidekick import protocol as wire
from atoll.sidekick.client import ANSWER_S, STALL_S, Connector, Link

UNPACK_S = 600.0  # an archive that takes longer is given up
PATHS_BYTES = 32_768  # of `read`: asked for in one frame


class Seen(NamedTuple):
    """A path as a scan sees it. `stamp` (device-free: inode, ctime_ns) changes whenever contents or metadata do."""

    path: bytes
    kind: str  # an EntryKind's value, or "?" for what trees do not keep (sockets, devices)
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    links: int
    inode: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What `read` says of one path before its data: all that an Entry needs but its chunks.

    `gone` when it does not exist (any more) or is of another kind than asked for.
    """

    path: bytes
    gone: bool = False
    size: int = 0
    target: bytes = b""
    holes: tuple[tuple[int, int], ...] = ()
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    seen: Seen | None = None  # as it was when it was opened


@dataclass(frozen=True, slots=True)
class Write:
    """One step of `apply`: make `entry` stand at its path, whatever was there. Contents follow as `data` steps."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Data:
    """Contents of the file of the last Write, from its current position on."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Skip:
    """A hole of the file of the last Write: that many bytes further."""

    length: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove what is at the path, with all below it; nothing there is no error."""

    path: bytes


Step = Write | Data | Skip | Remove


Told = Callable[[str, str], None]  # path, what of it could not be kept

_WRITE_STEP = bytes((packed.STEP_WRITE,))
_KINDS = {0o100000: "f", 0o040000: "d", 0o120000: "l", 0o010000: "p"}


class KeeperClient:
    """Calls raise NotFound when the keeper is gone, TooLarge beyond the tree's quota, InvalidInput for a bad step,
    Conflict when somebody inside changes the tree against us, DeadlineExceeded when nothing moves any more."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def ping(self) -> dict[str, Any]:
        """`{"version", "operations"}`: how many run now."""
        async with self._link("ping") as link:
            return await link.result(ANSWER_S)

    async def usage(self) -> tuple[int, int]:
        """(bytes, inodes) that the tree holds now."""
        async with self._link("usage") as link:
            answer = await link.result(STALL_S)
            return answer["bytes"], answer["inodes"]

    async def scan(self) -> AsyncIterator[Sequence[Seen]]:
        """Every path of the tree, in pieces, each directory before what is in it, in no special order else.

        What a tree cannot hold (sockets, devices, paths that are too long or too deep) has the kind "?".
        """
        async with self._link("scan") as link:
            while (payload := await _data(link)) is not None:
                yield _unpack_scan(payload)

    async def read(self, paths: AsyncIterator[bytes] | Sequence[bytes]) -> AsyncIterator[ReadFile | bytes]:
        """For each path in order a ReadFile, and for files then their bytes in pieces without the holes.

        A file of at most 8 MiB that changed while it was read is read again, up to three times; then it is told as it
        was last read. Larger ones are read once. `seen` is from before the bytes were read, so that a change meanwhile
        shows in the next scan. `size` may differ from what was scanned; exactly `size` minus the holes' lengths bytes
        follow.
        """
        asked: deque[bytes] = deque()
        async with self._link("read") as link:
            feeder = asyncio.create_task(_feed(link, _path_frames(_stream_of(paths), asked)))
            feeder.add_done_callback(lambda feeder: _hang_up_when_failed(link, feeder))
            try:
                while (payload := await _data(link)) is not None:
                    at = 0
                    while at < len(payload):
                        file, here, apart, at = _unpack_found(payload, at, asked.popleft() if asked else b"?")
                        yield file
                        if here:
                            yield payload[at : at + here]
                            at += here
                        while apart:
                            piece = await _data(link)
                            if not piece or len(piece) > apart:
                                raise Internal("the keeper sent other bytes than it had told")
                            apart -= len(piece)
                            yield piece
                await feeder
            except NotFound:
                if feeder.done():
                    feeder.result()  # that is why
                raise
            finally:
                feeder.cancel()
            if asked:
                raise Internal("the keeper left paths out")

    async def apply(self, steps: AsyncIterator[Step], *, sync: bool = True, told: Told | None = None) -> list[Seen]:
        """Carry out steps in order; files are replaced in one step each. Directories' times are set at the end.

        Returns what is now at each written path, in order. `sync`: everything is on the disk before it returns.
        `told` hears what this file system could not keep (attributes, owners): at most a hundred of them.
        On an error what was done stays: callers apply to a new tree, or put things right from a revision.
        """
        written: list[Entry] = []
        async with self._link("apply", sync=sync) as link:
            records = bytearray()
            answer = asyncio.create_task(_applied(link, records))
            await _feed_until(link, _step_frames(steps, written), answer)
            for path, reason in (await answer)["told"]:
                if told is not None:
                    told(path, reason)
        return _unpack_applied(records, written)

    async def unpack(self, pieces: AsyncIterator[bytes], *, bytes_max: int, entries_max: int, strip: int = 0) -> int:
        """Unpack a tar stream into the (empty) tree as its user, the first `strip` parts of names left out; entries.

        InvalidInput for a malformed archive, absolute names, `..`, members that are neither files, directories, links
        nor FIFOs, hardlinks to what is not in it; TooLarge beyond the bounds, of which `bytes_max` counts what files
        hold, holes included. A symlink's text is kept as it is, and never followed. Nothing outside the tree exists for
        it. What was unpacked before an error stays: the caller throws the tree away.
        """
        async with self._link(
            "unpack", bytes_max=bytes_max, entries_max=entries_max, strip=strip, time_max_s=UNPACK_S
        ) as link:
            answer = asyncio.create_task(link.result(None))
            await _feed_until(link, _data_frames(pieces), answer)
            return (await answer)["entries"]

    @asynccontextmanager
    async def _link(self, op: str, **fields: Any) -> AsyncGenerator[Link, None]:
        try:
            reader, writer = await self._connector()
        except OSError:
            raise NotFound("the keeper has ended") from None
        link = Link(reader, writer, gone="the keeper has ended")
        try:
            link.writer.write(wire.json_frame(wire.REQUEST, {"op": op, **fields}))
            yield link
        finally:
            link.writer.close()


async def _data(link: Link) -> bytes | None:
    """The payload of the next DATA frame; None at END."""
    try:
        async with asyncio.timeout(STALL_S):
            kind, payload = await link.read()
    except TimeoutError:
        raise DeadlineExceeded("the keeper sent nothing for too long") from None
    if kind == wire.DATA:
        return payload
    if kind != wire.END:
        raise Internal(f"the keeper answered with frame {kind:#x}")
    return None


async def _feed(link: Link, frames: AsyncIterator[bytes]) -> None:
    """Send them as DATA, then END, no faster than they are taken."""
    try:
        async for payload in frames:
            link.send(wire.DATA, payload)
            await link.writer.drain()
        link.send(wire.END)
        await link.writer.drain()
    except ConnectionError:
        pass  # the answer tells why


def _hang_up_when_failed(link: Link, feeder: asyncio.Task[None]) -> None:
    """Nobody would be told otherwise: the keeper waits for more, and the caller for the keeper."""
    if not feeder.cancelled() and feeder.exception() is not None:
        link.writer.transport.abort()


async def _feed_until(link: Link, frames: AsyncIterator[bytes], answer: asyncio.Task[Any]) -> None:
    """Feed, and wait for the answer as long as something moves; an early one (a refusal) ends the feeding."""
    feeder = asyncio.create_task(_feed(link, frames))
    try:
        await asyncio.wait((feeder, answer), return_when=asyncio.FIRST_COMPLETED)
        if feeder.done():
            feeder.result()
            async with asyncio.timeout(STALL_S):
                await asyncio.shield(answer)
    except TimeoutError:
        raise DeadlineExceeded("the keeper did not answer in time") from None
    finally:
        if not feeder.done():
            feeder.cancel()
            await asyncio.wait((feeder,))
        if not answer.done():
            answer.cancel()


async def _applied(link: Link, records: bytearray) -> dict[str, Any]:
    while True:
        kind, payload = await link.read()
        if kind == wire.RESULT:
            return json.loads(payload)
        if kind != wire.DATA:
            raise Internal(f"the keeper answered with frame {kind:#x}")
        records += payload


async def _stream_of(paths: AsyncIterator[bytes] | Sequence[bytes]) -> AsyncIterator[bytes]:
    if isinstance(paths, Sequence):
        for path in paths:
            yield path
    else:
        async for path in paths:
            yield path


async def _path_frames(paths: AsyncIterator[bytes], asked: deque[bytes]) -> AsyncIterator[bytes]:
    frame = bytearray()
    async for path in paths:
        _check_path(path)
        frame += packed.PATH.pack(len(path))
        frame += path
        asked.append(path)
        if len(frame) >= PATHS_BYTES:
            yield bytes(frame)
            frame.clear()
    if frame:
        yield bytes(frame)


async def _data_frames(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        for at in range(0, len(piece), wire.MAX_FRAME_BYTES):
            yield piece[at : at + wire.MAX_FRAME_BYTES]


async def _step_frames(steps: AsyncIterator[Step], written: list[Entry]) -> AsyncIterator[bytes]:
    """Steps packed, many to a frame; the entries of those that write are added to `written`."""
    frame = bytearray()
    async for step in steps:
        if isinstance(step, Data):
            for at in range(0, len(step.data), packed.PIECE_BYTES):
                piece = step.data[at : at + packed.PIECE_BYTES]
                frame.append(packed.STEP_DATA)
                frame += packed.DATA.pack(len(piece))
                frame += piece
                if len(frame) >= packed.PIECE_BYTES:
                    yield bytes(frame)
                    frame.clear()
        elif isinstance(step, Write):
            written.append(step.entry)
            frame += _pack_write(step.entry)
        elif isinstance(step, Skip):
            frame.append(packed.STEP_SKIP)
            frame += packed.SKIP.pack(step.length)
        else:
            _check_path(step.path)
            frame.append(packed.STEP_REMOVE)
            frame += packed.DATA.pack(len(step.path))
            frame += step.path
        if len(frame) >= packed.PIECE_BYTES:
            yield bytes(frame)
            frame.clear()
    if frame:
        yield bytes(frame)


def _pack_write(entry: Entry) -> bytes:
    _check_path(entry.path)
    try:
        xattrs = packed.pack_xattrs(entry.xattrs)
        if len(xattrs) > packed.XATTRS_BYTES_MAX * 2:
            raise InvalidInput(f"path {text(entry.path)!r}: its attributes are too large", field="xattrs")
        head = packed.WRITE.pack(
            entry.kind.value.encode(),
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            entry.size,
            len(entry.path),
            len(entry.target),
            len(xattrs),
        )
    except struct.error as error:
        raise InvalidInput(f"path {text(entry.path)!r}: {error}", field="path") from None
    return b"".join((_WRITE_STEP, head, entry.path, entry.target, xattrs))


def _check_path(path: bytes) -> None:
    if path and not packed.is_path(path):
        raise InvalidInput(f"path {text(path)!r}: not a path of a tree", field="path")


def _unpack_scan(payload: bytes) -> list[Seen]:
    found: list[Seen] = []
    at = 0
    try:
        while at < len(payload):
            folder_bytes, count, names_bytes = packed.BLOCK.unpack_from(payload, at)
            at += packed.BLOCK.size
            folder = payload[at : at + folder_bytes]
            at += folder_bytes
            end = at + count * packed.STAT.size
            names = payload[end : end + names_bytes].split(b"\0")
            prefix = folder + b"/" if folder else b""
            kinds = _KINDS
            found += [
                Seen(
                    prefix + name,
                    kinds.get(mode & 0o170000, "?"),
                    0 if mode & 0o170000 == 0o120000 else mode & 0o7777,
                    uid,
                    gid,
                    size,
                    mtime_ns,
                    links,
                    inode,
                    ctime_ns,
                )
                for (inode, size, mtime_ns, ctime_ns, mode, uid, gid, links), name in zip(
                    packed.STAT.iter_unpack(payload[at:end]), names, strict=True
                )
            ]
            at = end + names_bytes
    except (struct.error, ValueError):
        raise Internal("the keeper sent what is no scan") from None
    return found


def _unpack_found(payload: bytes, at: int, path: bytes) -> tuple[ReadFile, int, int, int]:
    """(the file, how many bytes of it follow here, how many in frames of their own, where this ends)."""
    try:
        flags, target_bytes, holes, xattrs_bytes, data = packed.FOUND.unpack_from(payload, at)
        at += packed.FOUND.size
        if flags == packed.GONE:
            return ReadFile(path, gone=True), 0, 0, at
        seen = _seen(path, packed.STAT.unpack_from(payload, at))
        at += packed.STAT.size
        target = payload[at : at + target_bytes]
        at += target_bytes
        end = at + holes * packed.HOLE.size
        gaps = tuple(packed.HOLE.iter_unpack(payload[at:end])) if holes else ()
        at = end + xattrs_bytes
        xattrs = packed.unpack_xattrs(payload[end:at]) if xattrs_bytes else ()
    except struct.error:
        raise Internal("the keeper sent what is no answer to a read") from None
    here = data if flags == packed.HERE else 0
    if at + here > len(payload):
        raise Internal("the keeper sent fewer bytes than it had told")
    return ReadFile(path, False, seen.size, target, gaps, xattrs, seen), here, data - here, at


def _unpack_applied(records: bytearray, written: list[Entry]) -> list[Seen]:
    if len(records) != len(written) * packed.STAT.size:
        raise Internal("the keeper told of other paths than were written")
    found = [_seen(entry.path, fields) for entry, fields in zip(written, packed.STAT.iter_unpack(records), strict=True)]
    targets = {  # a further name changes what stat says of the first
        entry.target: seen for entry, seen in zip(written, found, strict=True) if entry.kind is EntryKind.HARDLINK
    }
    if not targets:
        return found
    return [
        later._replace(path=seen.path)
        if (later := targets.get(entry.target if entry.kind is EntryKind.HARDLINK else entry.path)) is not None
        and later.inode == seen.inode
        else seen
        for entry, seen in zip(written, found, strict=True)
    ]


def _seen(path: bytes, fields: tuple[int, ...]) -> Seen:
    inode, size, mtime_ns, ctime_ns, mode, uid, gid, links = fields
    kind = _KINDS.get(mode & 0o170000, "?")
    return Seen(path, kind, 0 if kind == "l" else mode & 0o7777, uid, gid, size, mtime_ns, links, inode, ctime_ns)
