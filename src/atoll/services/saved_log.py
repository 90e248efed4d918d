"""Saved logs: the output of a main process, kept after its sandbox is gone; endings save one, attach replays it.

The file is the sidekick's own frames: RESULT `{first_offset, process_id}`, STDOUT and STDERR in order, EXIT. Where a
sandbox has rested, the output of its earlier lives is in a file of its own, and comes first: offsets go on from life to
life.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from atoll.domain.process import MAIN, Exit
from atoll.sidekick.client import ProcessStream
from atoll.sidekick.protocol import EXIT, HEADER, MAX_FRAME_BYTES, RESULT, STDERR, STDOUT, frame, json_frame


def log_path(data: Path, sandbox_id: str) -> Path:
    return data / "logs" / sandbox_id


def earlier_path(data: Path, sandbox_id: str) -> Path:
    """The log of the lives before the present one, or before its rest."""
    return data / "logs" / f"{sandbox_id}.earlier"


async def collect(stream: ProcessStream, bytes_max: int) -> bytes:
    """The frames of an ended process's stream; of more than `bytes_max` of output the newest."""
    chunks: list[tuple[int, bytes]] = []
    first, held = stream.first_offset, 0
    async for kind, data in stream:
        chunks.append((kind, data))
        held += len(data)
        while held > bytes_max and len(chunks) > 1:
            dropped = len(chunks.pop(0)[1])
            held -= dropped
            first += dropped
    frames = [json_frame(RESULT, {"first_offset": first, "process_id": MAIN})]
    frames += [frame(kind, data) for kind, data in chunks]
    if stream.exit is not None:
        frames.append(json_frame(EXIT, asdict(stream.exit)))
    return b"".join(frames)


def save(path: Path, frames: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(frames)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load(path: Path, offset: int) -> SavedStream | None:
    """The log as a stream from `offset` on; None when there is none or it is damaged."""
    try:
        frames = list(_frames(path.read_bytes()))
        opening = json.loads(frames[0][1])
        exit_ = next((Exit(**json.loads(payload)) for kind, payload in frames if kind == EXIT), None)
        output = [(kind, payload) for kind, payload in frames if kind in (STDOUT, STDERR)]
        return SavedStream(opening["process_id"], opening["first_offset"], output, exit_, offset)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def older(data: Path, before: float) -> dict[str, list[Path]]:
    """Logs written before that Unix time, by the id of their sandbox."""
    found: dict[str, list[Path]] = {}
    folder = data / "logs"
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # its sandbox was removed in this moment
            if path.stat().st_mtime < before:
                found.setdefault(path.name.partition(".")[0], []).append(path)
    return found


def remove(paths: Iterable[Path]) -> None:
    """Those that are still there."""
    for path in paths:
        path.unlink(missing_ok=True)


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if at + HEADER.size > len(data):
            raise ValueError("cut short")
        kind, size = HEADER.unpack_from(data, at)
        at += HEADER.size
        if size > MAX_FRAME_BYTES or at + size > len(data):
            raise ValueError("cut short")
        yield kind, data[at : at + size]
        at += size


class ContinuedStream(ProcessStream):
    """What earlier lives wrote, then a stream of the present life, whose output begins at the offset `begins`."""

    def __init__(  # pyright: ignore[reportMissingSuperCall]
        self, earlier: SavedStream, inner: ProcessStream, begins: int
    ) -> None:
        self.id, self.pid, self.exit = inner.id, inner.pid, inner.exit
        # where the present life has lost output there is no going on from an earlier one
        self._earlier = None if inner.first_offset > 0 else earlier
        self._inner = inner
        self._begins = begins
        self.first_offset = self.offset = begins + inner.first_offset if self._earlier is None else earlier.first_offset

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        if self._earlier is not None:
            async for kind, data in self._earlier:
                self.offset = self._earlier.offset
                yield kind, data
        async for kind, data in self._inner:
            self.offset = self._begins + self._inner.offset
            yield kind, data
        self.exit = self._inner.exit

    async def write_stdin(self, data: bytes) -> None:
        await self._inner.write_stdin(data)

    async def close_stdin(self) -> None:
        await self._inner.close_stdin()

    async def resize(self, cols: int, rows: int) -> None:
        await self._inner.resize(cols, rows)

    async def close(self) -> None:
        await self._inner.close()


class SavedStream(ProcessStream):
    """Looks like an attached client's view of a process that has ended."""

    def __init__(  # pyright: ignore[reportMissingSuperCall]
        self, process_id: str, first: int, output: list[tuple[int, bytes]], exit_: Exit | None, offset: int
    ) -> None:
        self.id = process_id
        self.pid = 0
        self.exit = None
        self.end = first + sum(len(data) for _, data in output)
        self.first_offset = self.offset = min(max(first, offset), self.end)
        self._start = first
        self._output = output
        self._exit = exit_

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        at = self._start
        for kind, data in self._output:
            rest = data[max(0, self.offset - at) :]
            at += len(data)
            if rest:
                self.offset = at
                yield kind, rest
        self.exit = self._exit

    async def write_stdin(self, data: bytes) -> None:
        """Nobody reads it any more."""

    async def close_stdin(self) -> None:
        """Nobody reads it any more."""

    async def resize(self, cols: int, rows: int) -> None:
        """There is no terminal any more."""

    async def close(self) -> None:
        """Nothing is held."""
