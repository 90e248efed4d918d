"""A terminal over WebSocket, as terminals in browsers speak: bytes out, text or bytes in, and sizes as JSON text.

The Terminal Platform's and ComputeSDK's routes call it. Output comes in binary messages. What comes in is typed, as it
is, but for one form: a text message that is nothing but `{"type":"resize","cols":C,"rows":R}`. Bytes never are that.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, cast

from starlette.websockets import WebSocket

from atoll.domain.errors import AtollError, Conflict, NotFound
from atoll.domain.principal import Principal
from atoll.services.terminals import COLS, DEFAULT_NAME, ROWS, Terminals
from atoll.sidekick.client import ProcessStream
from atoll.surfaces.operation import Parameter
from atoll.surfaces.pumps import CLOSE_GONE, CLOSE_INTERNAL, CLOSE_NORMAL, GONE, PIECE_BYTES, pumped, reason

SIZE_MAX = 65_535
RESIZE_CHARS = 128  # longer text is typed, whatever it says

TERMINAL = Parameter("terminal", "which of the sandbox's terminals; it is started when it does not run", max_chars=64)
OFFSET = Parameter(
    "offset", "first byte of output wanted; default: all that is kept", int, minimum=0, maximum=2**63 - 1
)
TERMINAL_COLS = Parameter("cols", "its columns from now on", int, minimum=1, maximum=SIZE_MAX)
TERMINAL_ROWS = Parameter("rows", "its rows from now on", int, minimum=1, maximum=SIZE_MAX)
SHELL = Parameter("shell", "the program of a new one; default: bash, or sh where there is none", max_chars=4096)
PARAMETERS = (TERMINAL, OFFSET, TERMINAL_COLS, TERMINAL_ROWS, SHELL)
TERMINAL_HEADERS = (("Atoll-Process", "the process"), ("Atoll-Offset", "of the first byte that follows"))
TERMINAL_TEXT = (
    "Output comes in binary messages. What comes in, text or bytes, is typed; but text that is nothing but "
    '`{"type":"resize","cols":C,"rows":R}` is its new size. Closed with 1000 and the reason `exit N` at its end.'
)


async def serve_terminal(socket: WebSocket, principal: Principal, terminals: Terminals, sandbox_id: str) -> None:
    """Open what the query asks for, and pump until the shell ends or the client goes. Errors before the upgrade.

    The upgrade's answer tells the terminal's process (`atoll-process`) and where its output begins (`atoll-offset`).
    """
    cols, rows = TERMINAL_COLS.number(socket), TERMINAL_ROWS.number(socket)
    sized = cols is not None or rows is not None
    stream = await terminals.open(
        principal,
        sandbox_id,
        TERMINAL.text(socket) or DEFAULT_NAME,
        shell=SHELL.text(socket) or None,
        cols=cols or (COLS if sized else None),
        rows=rows or (ROWS if sized else None),
        offset=OFFSET.number(socket),
    )
    headers = [(b"atoll-process", stream.id.encode()), (b"atoll-offset", b"%d" % stream.first_offset)]
    await pumped(socket, stream, _output(socket, stream), _input(socket, stream), headers=headers)


async def _output(socket: WebSocket, stream: ProcessStream) -> None:
    try:
        async for _, data in stream:
            for at in range(0, len(data), PIECE_BYTES):
                await socket.send_bytes(data[at : at + PIECE_BYTES])
        if stream.exit is None:
            await socket.close(CLOSE_GONE, "the end of the shell is not known")
            return
        await socket.close(CLOSE_NORMAL, f"exit {stream.exit.code}")
    except AtollError as error:
        gone = isinstance(error, NotFound | Conflict)
        with suppress(*GONE):
            await socket.close(CLOSE_GONE if gone else CLOSE_INTERNAL, reason(error.message))
    except GONE:
        pass


async def _input(socket: WebSocket, stream: ProcessStream) -> None:
    """Returns when the client has gone. Reads no further than the shell takes: that is the backpressure."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text: str | None = message.get("text")
        size = None if text is None else resize_of(text)
        with suppress(AtollError):  # the shell has gone: the other pump tells how
            if size is not None:
                await stream.resize(*size)
            else:
                await stream.write_stdin(message["bytes"] if text is None else text.encode())


def resize_of(text: str) -> tuple[int, int] | None:
    """The columns and rows of a resize message; None for what is typed."""
    if not (text.startswith("{") and text.endswith("}")) or len(text) > RESIZE_CHARS:  # a line that is pasted ends it
        return None
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    fields = cast(dict[str, Any], value)
    if fields.keys() != {"type", "cols", "rows"} or fields["type"] != "resize":
        return None
    cols, rows = fields["cols"], fields["rows"]
    return (cols, rows) if _is_size(cols) and _is_size(rows) else None


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= SIZE_MAX
