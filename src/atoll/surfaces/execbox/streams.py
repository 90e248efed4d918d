"""Attach and exec over WebSocket, in messages that tell output, exit and errors apart; the routes call it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket

from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound
from atoll.domain.principal import Principal
from atoll.domain.process import MAIN, ProcessSpec
from atoll.domain.secret import GivenAs, SecretUse
from atoll.services.sandboxes import Sandboxes
from atoll.sidekick.client import ProcessStream
from atoll.surfaces.execbox import frames
from atoll.surfaces.execbox.frames import Incoming, Malformed, Wire
from atoll.surfaces.operation import Parameter
from atoll.surfaces.pumps import CLOSE_GONE, CLOSE_INTERNAL, CLOSE_NORMAL, GONE, PIECE_BYTES, pumped, reason
from atoll.surfaces.words import words

PROTOCOL = Parameter("protocol", "binary frames, or the same messages as JSON text", choices=("binary", "json"))
OFFSET = Parameter("offset", "first output byte wanted; the ring may begin later", int, minimum=0, maximum=2**63 - 1)
PROCESS = Parameter("process", "the process; default: the main one", max_chars=64)
CMD = Parameter(
    "cmd", "repeated: the words; once: split by shell-word rules", required=True, repeatable=True, max_chars=131_072
)
WORKDIR = Parameter("workdir", "where it starts")
TTY = Parameter("tty", "give it a terminal", bool)
COLS = Parameter("cols", "columns of the terminal", int, minimum=1, maximum=65_535)
ROWS = Parameter("rows", "rows of the terminal", int, minimum=1, maximum=65_535)
TIMEOUT = Parameter("timeoutMs", "its whole tree is ended after this time", int, minimum=1, maximum=2**53)
ENV = Parameter("env", "NAME=VALUE", repeatable=True, max_chars=131_072)
SECRET = Parameter(
    "secret",
    "NAME, or NAME=VARIABLE; NAME=/run/secrets/FILE gives it as a file, broker:NAME a placeholder",
    repeatable=True,
    max_chars=512,
    max_items=64,
)
STDIN = Parameter("stdin", "false: its standard input is /dev/null", bool)
ATTACH_PARAMETERS = (PROTOCOL, PROCESS, OFFSET)
EXEC_PARAMETERS = (CMD, WORKDIR, ENV, SECRET, TTY, COLS, ROWS, STDIN, TIMEOUT, PROTOCOL)


class Streams:
    """The WebSocket handlers."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._processes = sandboxes.processes

    async def attach(self, socket: WebSocket, principal: Principal) -> None:
        wire = frames.WIRES[PROTOCOL.text(socket) or "binary"]
        offset = OFFSET.number(socket) or 0
        process_id = PROCESS.text(socket) or MAIN
        stream = await self._processes.attach(principal, socket.path_params["id"], process_id, offset=offset)
        headers = [(b"atoll-process", process_id.encode()), (b"atoll-offset", b"%d" % stream.first_offset)]
        await _serve(socket, stream, wire, headers)

    async def exec(self, socket: WebSocket, principal: Principal) -> None:
        wire = frames.WIRES[PROTOCOL.text(socket) or "binary"]
        stream = await self._processes.start(principal, socket.path_params["id"], _spec(socket))
        await _serve(socket, stream, wire, [(b"atoll-process", stream.id.encode()), (b"atoll-offset", b"0")])


def _spec(socket: WebSocket) -> ProcessSpec:
    cmd = CMD.texts(socket)
    timeout_ms = TIMEOUT.number(socket)
    return ProcessSpec(
        argv=words(cmd if len(cmd) > 1 else cmd[0], "cmd"),
        env=_env(ENV.texts(socket)),
        cwd=WORKDIR.text(socket) or None,
        tty=TTY.flag(socket),
        cols=COLS.number(socket) or 80,
        rows=ROWS.number(socket) or 24,
        stdin=STDIN.flag(socket, default=True),
        timeout_s=timeout_ms / 1000 if timeout_ms else None,
        secrets=tuple(map(_secret, SECRET.texts(socket))),
    )


def _env(pairs: list[str]) -> dict[str, str]:
    env: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InvalidInput("env must be NAME=VALUE", field="env")
        env[name] = value
    return env


def _secret(text: str) -> SecretUse:
    name, _, target = text.partition("=")
    brokered = name.removeprefix("broker:")
    if brokered != name:
        return SecretUse(brokered, GivenAs.BROKER, target)
    return SecretUse(name, GivenAs.FILE if target.startswith("/") else GivenAs.ENV, target)


async def _serve(socket: WebSocket, stream: ProcessStream, wire: Wire, headers: list[tuple[bytes, bytes]]) -> None:
    output, input_ = _pump_output(socket, stream, wire), _pump_input(socket, stream, wire)
    await pumped(socket, stream, output, input_, headers=headers)


async def _pump_output(socket: WebSocket, stream: ProcessStream, wire: Wire) -> None:
    try:
        async for kind, data in stream:
            for start in range(0, len(data), PIECE_BYTES):
                await _send(socket, wire.output(kind, data[start : start + PIECE_BYTES]))
        if stream.exit is None:
            await _send(socket, wire.error("the end of the process is not known"))
            await socket.close(CLOSE_GONE, "unknown end")
            return
        await _send(socket, wire.exit(stream.exit.code))
        await socket.close(CLOSE_NORMAL)
    except AtollError as error:
        gone = isinstance(error, (NotFound, Conflict))
        with suppress(*GONE):
            await _send(socket, wire.error(error.message))
            await socket.close(CLOSE_GONE if gone else CLOSE_INTERNAL, reason(error.message))
    except GONE:
        pass


async def _pump_input(socket: WebSocket, stream: ProcessStream, wire: Wire) -> None:
    """Returns when the client has gone. Reads no further than the process takes: that is the backpressure."""
    closed = False
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            incoming = wire.decode(_bytes_of(message))
        except Malformed as error:
            with suppress(*GONE):
                await _send(socket, wire.error(str(error)))
            continue
        if incoming.kind == frames.RESIZE or not closed:
            closed = closed or incoming.kind == frames.STDIN_CLOSE
            try:
                await _apply(stream, incoming)
            except AtollError:
                closed = True  # the process has gone: the output pump tells how


async def _apply(stream: ProcessStream, incoming: Incoming) -> None:
    if incoming.kind == frames.STDIN:
        await stream.write_stdin(incoming.data)
    elif incoming.kind == frames.STDIN_CLOSE:
        await stream.close_stdin()
    else:
        await stream.resize(incoming.cols, incoming.rows)


def _bytes_of(message: Any) -> bytes:
    # The protocol never asked in which kind of frame a message came, and terminals in browsers send text.
    data = message.get("bytes")
    return data if data is not None else message.get("text", "").encode()


async def _send(socket: WebSocket, message: bytes | str) -> None:
    if isinstance(message, bytes):
        await socket.send_bytes(message)
    else:
        await socket.send_text(message)
