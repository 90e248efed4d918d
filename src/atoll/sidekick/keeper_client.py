"""The async client of one keeper: scan, read, apply and unpack the working tree of one workspace.

A keeper is a sidekick with a table of operations of its own (see docs/sidekick-protocol.md): every call opens one
connection through the runtime's connector. Paths are raw bytes, relative to the tree's root, which is b"".
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from atoll.domain.errors import DeadlineExceeded, Internal, NotFound
from atoll.domain.tree import Entry
from atoll.domain.tree_size import TreeSize
from atoll.sidekick import protocol as wire
from atoll.sidekick.answers import parsed
from atoll.sidekick.client import ANSWER_S, STALL_S, Connector, Link
from atoll.sidekick.keeper_packing import (
    data_frames,
    path_frames,
    split_scan,
    step_frames,
    unpack_applied,
    unpack_found,
    unpack_scan,
)
from atoll.sidekick.keeper_values import Data, ReadFile, Remove, Seen, Skip, Step, Write

__all__ = ["Data", "KeeperClient", "ReadFile", "Remove", "Seen", "Skip", "Step", "Told", "Write"]

UNPACK_S = 600.0  # an archive that takes longer is given up
SYNC_S = 600.0  # of waiting for a disk to have it all


Told = Callable[[str, str], None]  # path, what of it could not be kept


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
            return _number(answer, "bytes"), _number(answer, "inodes")

    async def free(self) -> TreeSize:
        """What is free for whatever is written into the tree."""
        async with self._link("room") as link:
            answer = await link.result(STALL_S)
            return TreeSize(_number(answer, "bytes"), _number(answer, "inodes"))

    async def scan_packed(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """As `scan`: (a folder's path, some of what is in it, packed) for `unpack_scan`.

        Of a folder in which nothing changed since another scan all is the same together, byte by byte.
        """
        async with self._link("scan") as link:
            while (payload := await _data(link)) is not None:
                for block in split_scan(payload):
                    yield block

    async def scan(self) -> AsyncIterator[Sequence[Seen]]:
        """Every path of the tree, in pieces, each directory before what is in it, in no special order else.

        What a tree cannot hold (sockets, devices, paths that are too long or too deep) has the kind "?".
        """
        async for _, block in self.scan_packed():
            yield unpack_scan(block)

    async def read(
        self, paths: AsyncIterator[bytes] | Sequence[bytes], *, contents: bool = True
    ) -> AsyncIterator[ReadFile | bytes]:
        """For each path in order a ReadFile, and for files then their bytes in pieces without the holes. Without
        `contents` nothing follows, and files have the size 0.

        A file of at most 8 MiB that changed while it was read is read again, up to three times; then it is told as it
        was last read. Larger ones are read once. `seen` is from before the bytes were read, so that a change meanwhile
        shows in the next scan. `size` may differ from what was scanned; exactly `size` minus the holes' lengths bytes
        follow.
        """
        asked: deque[bytes] = deque()
        async with self._link("read", **({} if contents else {"contents": False})) as link:
            feeder = asyncio.create_task(_feed(link, path_frames(_stream_of(paths), asked)))
            feeder.add_done_callback(lambda feeder: _hang_up_when_failed(link, feeder))
            try:
                while (payload := await _data(link)) is not None:
                    at = 0
                    while at < len(payload):
                        file, here, apart, at = unpack_found(payload, at, asked.popleft() if asked else b"?")
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
            await _feed_until(link, step_frames(steps, written), answer)
            for path, reason in _told(await answer):
                if told is not None:
                    told(path, reason)
        return unpack_applied(records, written)

    async def unpack(self, pieces: AsyncIterator[bytes], *, bytes_max: int, entries_max: int, strip: int = 0) -> int:
        """Unpack a tar stream into the (empty) tree as its user, the first `strip` parts of names left out; entries.

        InvalidInput for a malformed archive, absolute names, `..`, members that are neither files, directories, links
        nor FIFOs, hardlinks to what is not in it; TooLarge beyond the bounds, of which `bytes_max` counts what files
        hold between their holes. A symlink's text is kept as it is, and never followed. Nothing outside the tree
        exists for it. What was unpacked before an error stays: the caller throws the tree away.
        """
        async with self._link(
            "unpack", bytes_max=bytes_max, entries_max=entries_max, strip=strip, time_max_s=UNPACK_S
        ) as link:
            answer = asyncio.create_task(link.result(None))
            await _feed_until(link, data_frames(pieces), answer)
            return _number(await answer, "entries")

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
            link.writer.transport.abort()  # whatever was still on its way is of no use to anybody


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
            try:
                async with asyncio.timeout(STALL_S):
                    await link.writer.drain()
            except TimeoutError:
                raise DeadlineExceeded("the keeper took nothing for too long") from None
        link.send(wire.END)
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
            _, late = await asyncio.wait((answer,), timeout=SYNC_S)
            if late:
                raise DeadlineExceeded("the keeper did not answer in time")
    finally:
        if not feeder.done():
            feeder.cancel()
            await asyncio.wait((feeder,))
        if not answer.done():
            answer.cancel()
        elif not answer.cancelled():
            answer.exception()  # whoever awaits it hears it; when the feeder failed nobody does


async def _applied(link: Link, records: bytearray) -> dict[str, Any]:
    while True:
        kind, payload = await link.read()
        if kind == wire.RESULT:
            return parsed(payload)
        if kind != wire.DATA:
            raise Internal(f"the keeper answered with frame {kind:#x}")
        records += payload


def _number(answer: Any, name: str) -> int:
    """What a keeper says is looked at, not trusted."""
    value: Any = cast("dict[str, Any]", answer).get(name) if isinstance(answer, dict) else None
    if not isinstance(value, int):
        raise Internal(f"the keeper did not tell {name}")
    return value


def _told(answer: Any) -> list[tuple[str, str]]:
    try:
        return [(str(path), str(reason)) for path, reason in answer["told"]]
    except (TypeError, ValueError, LookupError):
        raise Internal("the keeper told of nothing that is known") from None


async def _stream_of(paths: AsyncIterator[bytes] | Sequence[bytes]) -> AsyncIterator[bytes]:
    if isinstance(paths, Sequence):
        for path in paths:
            yield path
    else:
        async for path in paths:
            yield path
