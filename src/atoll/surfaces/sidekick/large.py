"""Large answers: told piece by piece as their client takes them, and few of one owner at a time.

None is ever held as JSON, which makes six bytes of some characters; between two pieces the loop gets to others, as it
would not while one call, of whatever thread, makes all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, cast
from weakref import WeakValueDictionary

from starlette.types import Receive, Scope, Send

from atoll.domain.errors import QuotaExceeded
from atoll.surfaces.bodies import Stream, json_bytes

LARGE_BYTES = 128 * 2**10  # up to which content is told like anything else
LARGE_ITEMS = 500
PIECE_CHARS = 32 * 2**10
PIECE_ITEMS = 100
HELD_MAX = 4  # of one owner
WAIT_S = 10.0  # for one of them to end


class LargeAnswers:
    """Those of all owners, by whose id each takes one of their places until its client has it, or is gone."""

    def __init__(self) -> None:
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def answer(self, owner: str, work: Callable[[], Awaitable[Any]]) -> Stream:
        """What `work` gives, as JSON; an iterator in it is a list. QuotaExceeded, before any work, while the owner's
        clients do not read what they have asked for already."""
        places = self._places.get(owner)
        if places is None:
            places = self._places[owner] = asyncio.Semaphore(HELD_MAX)
        try:
            async with asyncio.timeout(WAIT_S):
                await places.acquire()
        except TimeoutError:
            raise QuotaExceeded(f"{HELD_MAX} large answers are being read: read them first") from None
        try:
            return _Told(encoded(await work()), places)
        except BaseException:
            places.release()
            raise


class _Told(Stream):
    """One that has a place."""

    def __init__(self, pieces: Iterator[bytes], places: asyncio.Semaphore) -> None:
        super().__init__(_paced(pieces), media_type="application/json")
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.release()


async def _paced(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= PIECE_CHARS:
            yield bytes(gathered)
            gathered.clear()
            await asyncio.sleep(0)  # a client that takes everything at once would keep the loop to itself
    yield bytes(gathered)


def encoded(value: Any) -> Iterator[bytes]:
    """The JSON of `value`, a long text or list of it in pieces."""
    if isinstance(value, str) and len(value) > PIECE_CHARS:
        yield b'"'
        for at in range(0, len(value), PIECE_CHARS):
            yield json_bytes(value[at : at + PIECE_CHARS])[1:-1]
        yield b'"'
    elif isinstance(value, dict):
        before = b"{"
        for name, one in cast(dict[str, Any], value).items():
            yield before + json_bytes(name) + b":"
            yield from encoded(one)
            before = b","
        yield b"}" if value else b"{}"
    elif isinstance(value, Iterator):
        before = b"["
        while batch := list(islice(cast(Iterator[Any], value), PIECE_ITEMS)):
            yield before + json_bytes(batch)[1:-1]
            before = b","
        yield b"]" if before == b"," else b"[]"
    else:
        yield json_bytes(value)
