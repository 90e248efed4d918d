"""Main: turn this process into a sandbox's sidekick and serve its socket until it is killed.

A runtime calls `serve` in the process that it made pid 1 of the sandbox, after everything else is set up.
"""

from __future__ import annotations

import signal
import socket

from atoll.sidekick.connection import Connection
from atoll.sidekick.files import make_directories
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


def serve(
    listener: socket.socket,
    who: Identity,
    config: dict[str, Any],
    *,
    usage: Callable[[], dict[str, Any]],
    oom_count: Callable[[], int],
    ready: Callable[[], None],
) -> None:
    """Serve until SIGTERM. config: env, work_dir, ring_bytes and main (a `start` request's fields, or absent)."""
    loop = Loop()
    processes = Processes(loop, who, int(config["ring_bytes"]), oom_count)
    sidekick = Sidekick(loop, processes, config["env"], config["work_dir"])
    sidekick.usage = usage
    connections = 0

    def gone() -> None:
        nonlocal connections
        connections -= 1

    def accept(_events: int) -> None:
        nonlocal connections
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            if connections >= MAX_CONNECTIONS:
                sock.close()
                continue
            connections += 1
            _Counted(loop, sock, sidekick.handle, gone)

    listener.setblocking(False)
    loop.watch(listener.fileno(), READ, accept)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    _start_main(processes, config)
    ready()
    loop.run()


def _start_main(processes: Processes, config: dict[str, Any]) -> None:
    main = config.get("main")
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
        processes.start(
            main["argv"],
            config["env"],
            config["work_dir"],
            name="main",
            tty=main["tty"],
            cols=main["cols"],
            rows=main["rows"],
            stdin=True,
        )
    except Refused as refused:
        processes.fail("main", main["argv"], refused.message)


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
