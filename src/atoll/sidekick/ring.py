"""Ring: the last bytes of a process's output, with the offset of each, so that clients can come back.

Chunks keep their stream (stdout or stderr); offsets count both streams together in order of arrival.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile


class Ring:
    """Keeps at most `limit` bytes (of whole chunks); `start` and `end` are the offsets of what it holds."""

    __slots__ = ("_chunks", "end", "limit", "start")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.start = 0
        self.end = 0
        self._chunks: deque[tuple[int, int, bytes]] = deque()  # offset, stream, bytes

    def append(self, stream: int, data: bytes) -> None:
        self._chunks.append((self.end, stream, data))
        self.end += len(data)
        while self.end - self.start > self.limit and len(self._chunks) > 1:
            self.start += len(self._chunks.popleft()[2])

    def would_drop(self, size: int) -> int:
        """Bytes below this offset are dropped when `size` more arrive."""
        return max(self.start, self.end + size - self.limit)

    def read(self, offset: int) -> tuple[int, bytes] | None:
        """(stream, bytes) from `offset` to the end of its chunk; None when there is nothing newer."""
        if offset >= self.end:
            return None
        offset = max(offset, self.start)
        at, stream, data = self._chunks[-1]
        if offset < at:  # a follower is nearly always at the newest chunk; others look from the front
            at, stream, data = next(c for c in self._chunks if c[0] + len(c[2]) > offset)
        return stream, data[offset - at :] if offset > at else data

    def read_more(self, offset: int, limit: int) -> tuple[int, bytes] | None:
        """The same with what follows of that stream, up to `limit` bytes where its chunks are smaller."""
        piece = self.read(offset)
        if piece is None or len(piece[1]) >= limit:
            return piece
        stream, data = piece
        at = max(offset, self.start) + len(data)
        if at >= self.end:
            return piece
        following = list(takewhile(lambda chunk: chunk[0] >= at, reversed(self._chunks)))
        parts, size = [data], len(data)
        while following:
            _, of, chunk = following.pop()
            size += len(chunk)
            if of != stream or size > limit:
                break
            parts.append(chunk)
        return stream, b"".join(parts)
