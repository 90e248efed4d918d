"""Chunks of local files as a stream of frames: read, checked and compressed in threads, a few at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE
from atoll.domain.tree import Entry, EntryKind, chunk_id
from atoll.sdk.sync.scan import THREADS
from atoll.sdk.sync.wire import frame

_BATCH_BYTES = CHUNK_BYTES  # of small chunks that one thread takes together
_BATCHES_AHEAD = 2 * THREADS


class FileChanged(Exception):
    """A file is not what it was when the folder was looked at."""


class Source(NamedTuple):
    """Where a chunk lies in the folder."""

    chunk: bytes
    path: bytes
    offset: int
    size: int


def sources_of(entries: Iterable[Entry]) -> dict[bytes, Source]:
    """Every chunk of the files once, in order."""
    found: dict[bytes, Source] = {}
    for entry in entries:
        if entry.kind is EntryKind.FILE:
            for chunk, offset, size in entry.pieces():
                if chunk != HOLE and chunk not in found:
                    found[chunk] = Source(chunk, entry.path, offset, size)
    return found


class FrameFile:
    """A file whose bytes are the frames of these chunks; `read` gives one batch at a time. FileChanged."""

    def __init__(self, folder: str, sources: Sequence[Source], progress: Callable[[int], None]) -> None:
        self.bytes_read = 0  # of frames
        self._root = os.path.join(os.fsencode(folder), b"")
        self._batches = _batches(sources)
        self._ready: deque[tuple[int, Future[bytes]]] = deque()
        self._progress = progress
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="atoll-upload")

    def read(self, size: int = -1) -> bytes:
        """The next batch, whatever its size; b"" at the end."""
        while len(self._ready) < _BATCHES_AHEAD and (batch := next(self._batches, None)):
            self._ready.append((sum(source.size for source in batch), self._pool.submit(self._frames, batch)))
        if not self._ready:
            return b""
        moved, future = self._ready.popleft()
        frames = future.result()
        self.bytes_read += len(frames)
        self._progress(moved)
        return frames

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _frames(self, batch: Sequence[Source]) -> bytes:
        return b"".join(frame(source.chunk, self._contents(source)) for source in batch)

    def _contents(self, source: Source) -> bytes:
        try:
            file = os.open(self._root + source.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
            try:
                data = os.pread(file, source.size, source.offset)
            finally:
                os.close(file)
        except OSError as error:
            raise FileChanged(source.path) from error
        if chunk_id(data) != source.chunk:
            raise FileChanged(source.path)
        return data


def _batches(sources: Sequence[Source]) -> Iterator[Sequence[Source]]:
    batch: list[Source] = []
    size = 0
    for source in sources:
        if batch and size + source.size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(source)
        size += source.size
    if batch:
        yield batch
