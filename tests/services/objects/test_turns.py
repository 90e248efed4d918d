"""Turns of uploads: one principal's leave room for others', and what comes too slowly is ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from atoll.domain.errors import DeadlineExceeded, Unavailable
from atoll.services.objects import turns
from atoll.services.objects.turns import UPLOADS_EACH, UPLOADS_MAX, Turns, paced


async def test_nobodys_uploads_keep_those_of_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "UPLOAD_WAIT_S", 0.05)
    one = Turns()
    async with AsyncExitStack() as stack:
        for _ in range(UPLOADS_EACH):
            await stack.enter_async_context(one.turn("mallory"))
        with pytest.raises(Unavailable, match=f"{UPLOADS_EACH} uploads of yours"):
            await stack.enter_async_context(one.turn("mallory"))
        for n in range(UPLOADS_MAX - UPLOADS_EACH):
            await stack.enter_async_context(one.turn(f"other {n}"))
        with pytest.raises(Unavailable, match=f"{UPLOADS_MAX} uploads are"):
            await stack.enter_async_context(one.turn("alice"))
    async with one.turn("alice"), one.turn("mallory"):
        pass
    assert not one._each, "nothing is kept of who has no upload"  # pyright: ignore[reportPrivateUsage]


async def trickle(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    await asyncio.sleep(60)


async def test_an_upload_that_falls_behind_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLACK_S", 0.1)
    came: list[bytes] = []
    with pytest.raises(DeadlineExceeded, match="too slow"):
        async for piece in paced(trickle(b"a", b"b")):
            came.append(piece)
    assert came == [b"a", b"b"]
    slow = paced(trickle(b"a" * turns.BYTES_PER_S))
    assert await anext(slow)
    with pytest.raises(TimeoutError):  # what came fast has a second more
        async with asyncio.timeout(0.3):
            await anext(slow)
