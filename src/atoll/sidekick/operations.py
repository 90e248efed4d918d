"""Operations: what each request means. `OPERATIONS` is the whole table; docs/sidekick-protocol.md describes it.

An operation gets the connection and the request's JSON; it answers at once or takes the connection over.
"""

from __future__ import annotations

import time

from atoll.sidekick import copying, files, gates, listening, ports, watching
from atoll.sidekick.connection import Connection
from atoll.sidekick.fields import number, seconds, text, variables, words
from atoll.sidekick.loop import Loop
from atoll.sidekick.process import WAITS, Follower, Process
from atoll.sidekick.processes import Processes
from atoll.sidekick.protocol import EXIT, RESIZE, RESULT, STDIN, STDIN_CLOSE, Refused
from atoll.sidekick.spawn import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PROTOCOL_VERSION = 1
QUIET = ("ping", "idle", "processes", "wait", "accept", "watch", "ports", "probe")  # looking is not activity
STOP_GRACE_MAX_S = 300.0
PIECE_BYTES = 65_536  # of output in one frame, where it came in smaller ones
LIST_PIECE = 64  # processes of one frame
LABEL_CHARACTERS = 256


class Sidekick:
    """One sandbox's processes, environment and loop, as operations see them."""

    def __init__(self, loop: Loop, processes: Processes, env: dict[str, str], work_dir: str) -> None:
        self.loop = loop
        self.processes = processes
        self.env = env
        self.work_dir = work_dir
        self.pipes = 0  # connections to ports, open or in the making
        self.probes = 0  # of those that only look
        self.watches = 0
        self.port_followers = 0
        self.copies = 0
        self.streams = 0  # connections through gates, which are no activity of their own
        self.gates = gates.Gates(self, {})
        self.usage: Callable[[], dict[str, Any]] = dict

    def handle(self, connection: Connection, request: dict[str, Any]) -> None:
        name = request.get("op", "")
        operation = OPERATIONS.get(name) if isinstance(name, str) else None
        if operation is None:
            raise Refused("bad_request", f"op {name!r}: no such operation", "op")
        if name not in QUIET:
            self.processes.last_active = time.monotonic()
        operation(self, connection, request)


def start(sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    process = sidekick.processes.start(
        words(request.get("argv"), "argv"),
        {**sidekick.env, **variables(request.get("env", {}), "env")},
        request.get("cwd") or sidekick.work_dir,
        tty=bool(request.get("tty")),
        cols=number(request, "cols", 80, 0xFFFF),
        rows=number(request, "rows", 24, 0xFFFF),
        stdin=bool(request.get("stdin")),
        timeout_s=seconds(request, "timeout_s", None),
        label=text(request.get("label", ""), "label")[:LABEL_CHARACTERS],
    )
    process.serves = bool(request.get("serves"))
    _follow(sidekick, connection, process, 0)


def attach(sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    offset = number(request, "offset", 0, 1 << 62)
    _follow(sidekick, connection, sidekick.processes.get(request.get("process")), offset)


def _follow(sidekick: Sidekick, connection: Connection, process: Process, offset: int) -> None:
    """Stream output from `offset` on, then EXIT; take stdin, its end and sizes from the client."""
    processes = sidekick.processes
    offset = min(max(offset, process.ring.start), process.ring.end)

    def pump() -> None:
        before = follower.offset
        while connection.room and not connection.closed:
            piece = process.ring.read_more(follower.offset, PIECE_BYTES)
            if piece is None:
                break
            stream, data = piece
            # what fell out of the ring while nobody followed is skipped
            follower.offset = max(follower.offset, process.ring.start) + len(data)
            connection.send(stream, data)
        if follower.offset != before:
            processes.advanced(process)
        if process.exit is not None and follower.offset >= process.ring.end and not connection.closed:
            connection.send_json(EXIT, process.exit)
            connection.finish(still_sends=True)
        elif not connection.closed:
            connection.resume()

    def on_frame(kind: int, payload: bytes) -> None:
        processes.last_active = time.monotonic()
        if kind == STDIN:
            if not processes.write_stdin(process, payload):
                connection.pause()
        elif kind == STDIN_CLOSE:
            processes.close_stdin(process)
        elif kind == RESIZE:
            processes.resize(process, *parse_size(payload))

    follower = Follower(offset, pump)
    processes.follow(process, follower)
    connection.on_frame = on_frame
    connection.on_writable = pump
    connection.when_closed(lambda: processes.unfollow(process, follower))
    connection.send_json(RESULT, {"id": process.id, "pid": process.pid, "offset": offset})
    pump()


def wait(sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    process = sidekick.processes.get(request.get("process"))

    def tell() -> None:
        if process.exit is not None and not connection.closed:
            connection.finish(process.exit)

    _watch_end(sidekick, connection, process, tell)


def stop(sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    grace_s = min(seconds(request, "grace_s", 10.0) or 0.0, STOP_GRACE_MAX_S)
    if request.get("process") is None:
        processes = sidekick.processes
        processes.stop_all(grace_s, lambda: connection.finish({"main": processes.end_of("main")}))
        return
    sidekick.processes.stop(sidekick.processes.get(request["process"]), grace_s)
    wait(sidekick, connection, request)


def _watch_end(sidekick: Sidekick, connection: Connection, process: Process, tell: Callable[[], None]) -> None:
    follower = Follower(WAITS, tell)
    sidekick.processes.follow(process, follower)
    connection.when_closed(lambda: sidekick.processes.unfollow(process, follower))
    tell()


def signal(sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    which = request.get("signal")
    if not isinstance(which, int) or not 0 < which < 65:
        raise Refused("bad_request", "signal: expected a number from 1 to 64", "signal")
    sidekick.processes.signal(sidekick.processes.get(request.get("process")), which)
    connection.finish({})


def processes(sidekick: Sidekick, connection: Connection, _request: dict[str, Any]) -> None:
    """RESULT {processes} in pieces, as `list` answers: how many and how wide they are is the tenant's choice."""
    known = sidekick.processes.list()
    pieces = iter([known[at : at + LIST_PIECE] for at in range(0, len(known), LIST_PIECE)])

    def pump() -> None:
        while connection.room and not connection.closed:
            piece = next(pieces, None)
            connection.send_json(RESULT, {"processes": [process.describe() for process in piece or ()]})
            if piece is None:
                connection.finish()
                return

    connection.on_writable = pump
    pump()


def idle(sidekick: Sidekick, connection: Connection, _request: dict[str, Any]) -> None:
    connection.finish({"idle_s": 0.0 if sidekick.pipes else sidekick.processes.idle_s()})


def touch(sidekick: Sidekick, connection: Connection, _request: dict[str, Any]) -> None:
    """That it was asked for is activity: who has a socket that was handed over says so that it is in use."""
    connection.finish({})


def ping(sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    running = sum(1 for process in sidekick.processes.list() if process.exit is None)
    connection.finish({"version": PROTOCOL_VERSION, "processes": running, "usage": sidekick.usage()})


OPERATIONS: dict[str, Callable[[Sidekick, Connection, dict[str, Any]], None]] = {
    "ping": ping,
    "idle": idle,
    "start": start,
    "attach": attach,
    "wait": wait,
    "stop": stop,
    "signal": signal,
    "processes": processes,
    "read": files.read,
    "write": files.write,
    "list": files.list_directory,
    "stat": files.stat_path,
    "make_dir": files.make_directory,
    "remove": files.remove,
    "move": files.move,
    "dial": ports.dial,
    "touch": touch,
    "probe": ports.probe,
    "watch": watching.watch,
    "ports": listening.follow,
    "copy": copying.copy,
    "uncopy": copying.uncopy,
    "accept": gates.accept,
}
