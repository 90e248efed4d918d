"""Following: an agent's output, from its process into the records of its task; `running` calls it.

It is read no faster than it can be stored, and no faster than one task may keep this server busy: behind that the
agent waits.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from atoll.agents.base import Said
from atoll.domain.errors import AtollError, Unavailable
from atoll.domain.price import TokenUse
from atoll.services.tasks.record import Record
from atoll.services.tasks.transcript import Transcript
from atoll.sidekick.client import ProcessStream

SAID_MAX = 1_000  # events that wait to be stored
UNSTORED_BYTES_MAX = 4 * 2**20  # of the output that they came from
AGAIN_S = 1.0
PIECE_BYTES = 4_096  # of output, between two looks at what else there is to do
BYTES_PER_S, LINES_PER_S = 8 * 2**20, 50_000  # of one task's output
BEHIND_S = 0.05


class Following:
    """Of one task that this server runs."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._said: list[Said] = []
        self._bytes = 0
        self._offset = record.task.read_offset
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._due = 0.0

    def used(self, tokens: TokenUse, cost: int) -> None:
        """The model gateway has settled a call of it."""
        self._said += self._record.used(tokens, cost)
        self._news.set()

    def rest(self) -> list[Said]:
        """What is not stored yet."""
        said, self._said, self._bytes = self._said, [], 0
        return said

    async def read(self, stream: ProcessStream, transcript: Transcript) -> None:
        """To the end of the process; `rest` is then to be stored with whatever comes next."""
        if stream.first_offset > self._offset:
            gone = stream.first_offset - self._offset
            self._said.append(Said("warning", {"message": f"{gone} bytes of output came while no server listened"}))
        writing = asyncio.create_task(self._write(), name=f"store {self._record.task.id}")
        try:
            async for kind, data in stream:
                begin = stream.offset - len(data)
                for at in range(0, len(data), PIECE_BYTES):
                    piece = data[at : at + PIECE_BYTES]
                    self._tell(transcript.feed(kind, piece, begin + at + len(piece)), transcript, len(piece))
                    await self._paced(piece)
                if len(self._said) > SAID_MAX or self._bytes > UNSTORED_BYTES_MAX:
                    await self._until_room(writing)
                if writing.done():
                    await writing
            self._tell(transcript.rest(stream.offset), transcript, 0)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def _tell(self, said: list[Said], transcript: Transcript, size: int) -> None:
        if said:
            self._said += said
            self._bytes += size
            self._offset = transcript.offset
            self._news.set()

    async def _paced(self, piece: bytes) -> None:
        now = time.monotonic()
        self._due = max(self._due, now) + len(piece) / BYTES_PER_S + piece.count(b"\n") / LINES_PER_S
        if self._due - now > BEHIND_S:
            await asyncio.sleep(self._due - now)

    async def _until_room(self, writing: asyncio.Task[None]) -> None:
        self._room.clear()
        room = asyncio.create_task(self._room.wait())
        try:
            await asyncio.wait((room, writing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            room.cancel()

    async def _write(self) -> None:
        """Store what was said, as much at once as there is by then."""
        while True:
            await self._news.wait()
            self._news.clear()
            size, said = self._bytes, self.rest()
            writing = asyncio.ensure_future(self._record.change(said=said, read_offset=self._offset))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                with suppress(AtollError):
                    await writing
                    said = []
                self._said = said + self._said
                raise
            except Unavailable:  # the output waits where it is until the records are there again
                self._said, self._bytes = said + self._said, size + self._bytes
                self._news.set()
                await asyncio.sleep(AGAIN_S)
                continue
            self._room.set()
