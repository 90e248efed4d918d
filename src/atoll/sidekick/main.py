"""Main: turn this process into a sandbox's sidekick and serve its socket until it is killed.

A runtime calls `serve` in the process that it made pid 1 of the sandbox, after everything else is set up.
"""

from __future__ import annotations

import os
import signal
import socket

from atoll.sidekick.connection import LINGER_S, Connection
from atoll.sidekick.files import make_directories
from atoll.sidekick.gates import Gates
from atoll.sidekick.given import put_files
from atoll.sidekick.identity import Identity
from atoll.sidekick.loop import READ, Loop
from atoll.sidekick.operations import Sidekick
from atoll.sidekick.processes import Processes
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_CONNECTIONS = 1024
MAX_TURNED_AWAY = 256
ACCEPT_PAUSE_S = 0.1
FAULTS_TOLD = 20


def serve(
    listener: socket.socket,
    who: Identity,
    config: dict[str, Any],
    *,
    usage: Callable[[], dict[str, Any]],
    oom_count: Callable[[], int],
    ready: Callable[[], None],
    gates: dict[str, socket.socket] | None = None,
) -> None:
    """Serve until killed. config: env, work_dir, ring_bytes, main (a `start` request's fields, or absent) and
    given (variables of the main process alone, and files; or absent)."""
    loop = Loop()
    loop.on_fault = _Faults().tell
    processes = Processes(loop, who, int(config["ring_bytes"]), oom_count)
    sidekick = Sidekick(loop, processes, config["env"], config["work_dir"])
    sidekick.usage = usage
    sidekick.gates = Gates(sidekick, gates or {})
    connections = 0

    def gone() -> None:
        nonlocal connections
        connections -= 1

    def accept(_events: int) -> None:
        nonlocal connections
        while True:
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError:  # out of descriptors: it stays readable, and asking again at once would take all the time
                loop.forget(listener.fileno())
                loop.after(ACCEPT_PAUSE_S, listen)
                return
            if connections >= MAX_CONNECTIONS + MAX_TURNED_AWAY:
                sock.close()
                continue
            connections += 1
            if connections <= MAX_CONNECTIONS:
                _Counted(loop, sock, sidekick.handle, gone)
            else:
                loop.after(LINGER_S, _Counted(loop, sock, _turn_away, gone).close)

    def listen() -> None:
        loop.watch(listener.fileno(), READ, accept)

    listener.setblocking(False)
    listen()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    _start_main(processes, config)
    ready()
    loop.run()


def _start_main(processes: Processes, config: dict[str, Any]) -> None:
    main = config.get("main")
    given: dict[str, dict[str, str]] = config.get("given") or {"env": {}, "files": {}}
    put_files(given["files"])
    try:
        make_directories(config["work_dir"])
    except Refused as refused:
        if main is None:
            return  # each exec that names it will be told
        processes.fail("main", main["argv"], refused.message)
        return
    if main is None:
        return
    try:
        process = processes.start(
            main["argv"],
            {**config["env"], **given["env"]},
            config["work_dir"],
            name="main",
            tty=main["tty"],
            cols=main["cols"],
            rows=main["rows"],
            stdin=True,
            awaits_reader=True,
        )
        process.serves = bool(main.get("serves"))
    except Refused as refused:
        processes.fail("main", main["argv"], refused.message)


def _turn_away(_connection: Connection, _request: dict[str, Any]) -> None:
    raise Refused("unavailable", f"at most {MAX_CONNECTIONS} connections at once")


class _Faults:
    """Tells errors of our own on stderr, which is the node's log on the host: shortly, and not without end."""

    def __init__(self) -> None:
        self._left = FAULTS_TOLD

    def tell(self, error: Exception) -> None:
        if self._left == 0:
            return
        self._left -= 1
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"
        # the text of the error may be a tenant's
        os.write(2, f"sidekick: {type(error).__name__} at {where}\n".encode())


class _Counted(Connection):
    """A connection that tells when it ends, so that their number stays bounded."""

    def __init__(self, loop: Loop, sock: socket.socket, request: Any, gone: Callable[[], None]) -> None:
        self._gone: Callable[[], None] | None = gone
        super().__init__(loop, sock, request)

    def close(self) -> None:
        super().close()
        self._count_out()

    def detach(self) -> tuple[socket.socket, bytes]:
        given = super().detach()
        self._count_out()  # a pipe bounds itself by its two sockets
        return given

    def _count_out(self) -> None:
        if self._gone is not None:
            gone, self._gone = self._gone, None
            gone()
