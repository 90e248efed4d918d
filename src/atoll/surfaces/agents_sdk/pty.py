"""A terminal over WebSocket: text frames control it, binary ones are what is typed and shown.

The server says `{type: ready}`, then output, then `{type: exit, code}`; the client types in binary frames and may send
`{type: resize, cols, rows}`. Each connection is a shell of its own, which ends with it: the protocol names none.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from functools import partial
from typing import Any, cast

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from atoll.domain.errors import AtollError, InvalidInput
from atoll.domain.principal import Principal
from atoll.services.lasting_sandboxes import LastingSandboxes
from atoll.services.sandboxes import Sandboxes
from atoll.services.terminals import Terminals
from atoll.sidekick.client import ProcessStream
from atoll.surfaces.extensions import LOST
from atoll.surfaces.operation import Parameter

PIECE_BYTES = 128 * 1024  # of output in one message: clients bound what they take
STDIN_BYTES = 64 * 1024
SIZE_MAX = 65_535
CLOSE_NORMAL, CLOSE_GONE = 1000, 1001
END_S = 5.0
COLS = Parameter("cols", "columns of the terminal", int, minimum=1, maximum=SIZE_MAX)
ROWS = Parameter("rows", "rows of the terminal", int, minimum=1, maximum=SIZE_MAX)


class TerminalHandlers:
    """The WebSocket handler."""

    def __init__(self, sandboxes: Sandboxes, lasting: LastingSandboxes) -> None:
        self._lasting = lasting
        self._terminals = Terminals(sandboxes)

    async def open(self, socket: WebSocket, principal: Principal) -> None:
        cols, rows = COLS.number(socket), ROWS.number(socket)
        sandbox_id = await self._lasting.usable(principal, socket.path_params["id"])
        name = f"pty-{secrets.token_hex(8)}"
        stream = await self._terminals.open(principal, sandbox_id, name, cols=cols, rows=rows)
        try:
            await socket.accept()
            await _serve(socket, stream)
        except (WebSocketDisconnect, WebSocketDisconnected):
            pass
        finally:
            for end in (stream.close, partial(self._terminals.close, principal, sandbox_id, name)):
                with suppress(AtollError, OSError, TimeoutError):  # NotFound once it has ended
                    async with asyncio.timeout(END_S):
                        await end()


async def _serve(socket: WebSocket, stream: ProcessStream) -> None:
    """Pump both ways until the shell has ended or the client has gone."""
    await socket.send_text('{"type":"ready"}')
    pumps = [
        asyncio.create_task(_show(socket, stream)),
        asyncio.create_task(_type(socket, stream)),
        # While the shell takes no input nothing is read, so a client's leaving is told beside the messages too.
        asyncio.create_task(_lost(socket)),
    ]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        for result in await asyncio.gather(*pumps, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, (WebSocketDisconnect, WebSocketDisconnected)):
                raise result


async def _lost(socket: WebSocket) -> None:
    event: asyncio.Event | None = socket.scope["extensions"].get(LOST)
    await (event or asyncio.Event()).wait()


async def _show(socket: WebSocket, stream: ProcessStream) -> None:
    try:
        async for _, data in stream:
            for start in range(0, len(data), PIECE_BYTES):
                await socket.send_bytes(data[start : start + PIECE_BYTES])
        await socket.send_text(json.dumps({"type": "exit", "code": None if stream.exit is None else stream.exit.code}))
        await socket.close(CLOSE_NORMAL)
    except AtollError as error:
        await socket.send_text(json.dumps({"type": "error", "message": error.message}))
        await socket.close(CLOSE_GONE)


async def _type(socket: WebSocket, stream: ProcessStream) -> None:
    """Returns when the client has gone. Reads no further than the shell takes: that is the backpressure."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            if message.get("bytes") is not None:
                data: bytes = message["bytes"]
                for start in range(0, len(data), STDIN_BYTES):
                    await stream.write_stdin(data[start : start + STDIN_BYTES])
            else:
                await stream.resize(*_size(message.get("text", "")))
        except InvalidInput as error:
            # Not of type error: to its client that one means the end.
            await socket.send_text(json.dumps({"type": "warning", "message": error.message}))
        except AtollError:
            pass  # the shell has gone: the other pump tells how


def _size(text: str) -> tuple[int, int]:
    try:
        told: Any = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    fields = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    size = fields.get("cols"), fields.get("rows")
    if fields.get("type") == "resize" and all(type(one) is int and 1 <= one <= SIZE_MAX for one in size):
        return cast("tuple[int, int]", size)
    raise InvalidInput("text frames are {type: resize, cols, rows}; what is typed comes in binary ones")
