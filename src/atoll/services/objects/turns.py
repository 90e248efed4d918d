"""Turns of uploads: how many are under way at once, in all and of one principal, and how slowly they may come.

`Objects.upload` and the object-store door use it: nobody's uploads, however slow, keep those of others out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from atoll.domain.errors import DeadlineExceeded, Unavailable

UPLOADS_MAX = 64
UPLOADS_EACH = 16  # of one principal
UPLOAD_WAIT_S = 30.0
SLACK_S = 30.0  # for which an upload may fall behind
BYTES_PER_S = 16 * 2**10  # the slowest that is taken, on the whole


class Turns:
    """Turns that come in order, for each principal and for all."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(UPLOADS_MAX)
        self._each: dict[str, tuple[asyncio.Semaphore, int]] = {}  # of a principal: how many have or want one

    @asynccontextmanager
    async def turn(self, principal: str) -> AsyncGenerator[None]:
        """Unavailable when none comes within a while."""
        mine, users = self._each.get(principal) or (asyncio.Semaphore(UPLOADS_EACH), 0)
        self._each[principal] = mine, users + 1
        held: list[asyncio.Semaphore] = []
        try:
            try:
                async with asyncio.timeout(UPLOAD_WAIT_S):
                    for turns in (mine, self._all):
                        await turns.acquire()
                        held.append(turns)
            except TimeoutError:
                most = f"{UPLOADS_MAX} uploads are" if held else f"{UPLOADS_EACH} uploads of yours are"
                raise Unavailable(f"{most} under way: try again") from None
            yield
        finally:
            for turns in held:
                turns.release()
            mine, users = self._each[principal]
            if users == 1:
                del self._each[principal]
            else:
                self._each[principal] = mine, users - 1


async def paced(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The same pieces. DeadlineExceeded where they come too slowly to hold a turn for it."""
    due = asyncio.get_running_loop().time() + SLACK_S
    while True:
        try:
            async with asyncio.timeout_at(due):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the upload is too slow: {BYTES_PER_S // 2**10} KiB/s at least, but for {SLACK_S:g} s in all"
            ) from None
        if piece is None:
            return
        due += len(piece) / BYTES_PER_S
        yield piece
