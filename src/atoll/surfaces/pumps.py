"""Pumps: a WebSocket and a process, each way at the pace of the slower side; the streams of every dialect use it.

A client that goes away only detaches; the process goes on and keeps its output for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from atoll.domain.errors import AtollError
from atoll.sidekick.client import ProcessStream
from atoll.surfaces.extensions import LOST

PIECE_BYTES = 128 * 1024  # of output in one message: clients bound what they take
CLOSE_NORMAL, CLOSE_GONE, CLOSE_INTERNAL = 1000, 1001, 1011
CLOSE_S = 5.0
REASON_BYTES = 120  # a close reason has at most 123

GONE = (WebSocketDisconnect, WebSocketDisconnected)


async def pumped(
    socket: WebSocket,
    stream: ProcessStream,
    output: Coroutine[Any, Any, None],
    input_: Coroutine[Any, Any, None],
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    subprotocol: str | None = None,
) -> None:
    """Accept, run both pumps until the process has ended or the client has gone, detach.

    `output` sends what the stream tells and closes the socket at its end; `input_` returns when the client has gone.
    """
    try:
        try:
            await socket.accept(subprotocol, list(headers))
        except BaseException:
            output.close()
            input_.close()
            raise
        outward, inward = asyncio.create_task(output), asyncio.create_task(input_)
        # While a process takes no input nothing is read, so a client's leaving is told beside the messages too.
        lost = asyncio.create_task(_lost(socket))
        try:
            # The input pump ends when the client goes away; the output pump when the process does.
            await asyncio.wait((outward, inward, lost), return_when=asyncio.FIRST_COMPLETED)
            if outward.done():
                await outward
        finally:
            await _cancel(outward, inward, lost)
    finally:
        with suppress(AtollError, OSError):
            async with asyncio.timeout(CLOSE_S):
                await stream.close()


def reason(text: str) -> str:
    """As much of it as a close frame holds."""
    return text.encode()[:REASON_BYTES].decode(errors="ignore")


async def _lost(socket: WebSocket) -> None:
    event: asyncio.Event | None = socket.scope["extensions"].get(LOST)
    await (event or asyncio.Event()).wait()


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, GONE):
            raise error
