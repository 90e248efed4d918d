"""Keeper: the process that reads and writes the working tree of one workspace on our behalf, with nothing but it.

It is a sidekick with operations of its own (docs/sidekick-protocol.md, "Keepers"). Each operation runs in a child: it
may block and take what time it needs, none waits for another, and what it used is free when it ends.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import time

from atoll.sidekick.connection import Connection
from atoll.sidekick.keeper_apply import apply
from atoll.sidekick.keeper_link import Gone, Link
from atoll.sidekick.keeper_paths import close_range
from atoll.sidekick.keeper_read import read
from atoll.sidekick.keeper_scan import room, scan, usage
from atoll.sidekick.keeper_unpack import unpack
from atoll.sidekick.loop import READ, Loop
from atoll.sidekick.protocol import ERROR, Refused, json_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

KEEPER_VERSION = 1
MAX_CONNECTIONS = 256
MAX_CHILDREN = 32
ACCEPT_PAUSE_S = 0.1
LEAVE_S = 0.05
IDLE_S = 60.0
LISTEN_BACKLOG = 256

OPERATIONS: dict[str, Callable[[int, Link, dict[str, Any]], None]] = {
    "usage": usage,
    "room": room,
    "scan": scan,
    "read": read,
    "apply": apply,
    "unpack": unpack,
}


def serve_keeper(listener: socket.socket, folder: str, *, idle_s: float, ready: Callable[[], None]) -> None:
    """Serve the tree at `folder` and never return: exits by itself once nobody has asked anything for `idle_s`."""
    try:
        keeper = _Keeper(listener, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), idle_s)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        ready()
        keeper.run()
    finally:
        os._exit(0)


class _Keeper:
    def __init__(self, listener: socket.socket, root: int, idle_s: float) -> None:
        self._listener = listener
        self._root = root
        self._idle_s = idle_s
        self._loop = Loop()
        self._loop.on_child = self._ended
        self._children = 0
        self._connections: set[Connection] = set()
        self._active = time.monotonic()
        self._leaving = False
        listener.setblocking(False)
        self._listen()

    def run(self) -> None:
        self._loop.after(self._idle_s, self._leave_when_idle)
        gc.collect()
        gc.freeze()
        self._loop.run()

    def _listen(self) -> None:
        self._loop.watch(self._listener.fileno(), READ, lambda _events: self._accept())

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # out of descriptors, or leaving
                self._loop.forget(self._listener.fileno())
                if not self._leaving:
                    self._loop.after(ACCEPT_PAUSE_S, self._listen)
                return
            if len(self._connections) >= MAX_CONNECTIONS:
                sock.close()
                continue
            self._active = time.monotonic()
            connection = Connection(self._loop, sock, self._handle)
            if not connection.closed:
                self._connections.add(connection)
                connection.when_closed(lambda connection=connection: self._closed(connection))

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._active = time.monotonic()

    def _handle(self, connection: Connection, request: dict[str, Any]) -> None:
        name = request.get("op", "")
        if name == "ping":
            connection.finish({"version": KEEPER_VERSION, "operations": self._children})
            return
        operation = OPERATIONS.get(name) if isinstance(name, str) else None
        if operation is None:
            raise Refused("bad_request", f"op {name!r}: no such operation", "op")
        if self._children >= MAX_CHILDREN:
            raise Refused("unavailable", f"at most {MAX_CHILDREN} operations at once")
        connection.pause()  # what follows the request is the operation's
        sock, received = connection.detach()
        self._connections.discard(connection)
        try:
            child = os.fork()
        except OSError as error:
            sock.send(json_frame(ERROR, {"code": "unavailable", "message": f"no room for a process: {error}"}))
            sock.close()
            return
        if child == 0:
            _work(self._root, sock, received, operation, request)
        self._children += 1
        sock.close()

    def _ended(self, _pid: int, _status: int) -> None:
        self._children -= 1
        self._active = time.monotonic()

    def _leave_when_idle(self) -> None:
        busy = self._children > 0 or len(self._connections) > 0
        idle_s = time.monotonic() - self._active
        if self._leaving and not busy:
            self._loop.running = False
        elif self._leaving or busy or idle_s < self._idle_s:
            wait_s = LEAVE_S if self._leaving else self._idle_s if busy else self._idle_s - idle_s
            self._loop.after(wait_s, self._leave_when_idle)
        else:
            # who connects from now on is told that nobody is here; who did just before is still served
            self._leaving = True
            self._loop.forget(self._listener.fileno())
            self._listener.shutdown(socket.SHUT_RDWR)
            self._accept()
            self._loop.after(0.0, self._leave_when_idle)


def _work(
    root: int,
    sock: socket.socket,
    received: bytes,
    operation: Callable[[int, Link, dict[str, Any]], None],
    request: dict[str, Any],
) -> None:
    """Runs in the child and never returns."""
    try:
        gc.disable()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        low, high = sorted((root, sock.fileno()))
        for first, last in ((3, low - 1), (low + 1, high - 1), (high + 1, 0x7FFF_FFFF)):
            close_range(first, last)  # those of other clients would keep their connections open
        link = Link(sock, received)
        try:
            operation(root, link, request)
        except Refused as refused:
            link.refuse(refused)
        except MemoryError:
            link.refuse(Refused("unavailable", "no memory left for the keeper"))
        except Gone:
            pass
        except Exception as error:
            link.refuse(Refused("internal", f"{type(error).__name__} in the keeper: {error}"))
    finally:
        os._exit(0)


def main() -> None:
    """Serve a folder as a plain process, isolated by nothing: for tests, and where others isolate it."""
    import argparse  # not in every keeper

    parser = argparse.ArgumentParser(prog="python -m atoll.sidekick.keeper", description=main.__doc__)
    parser.add_argument("--socket", required=True, help="the Unix socket to listen at")
    parser.add_argument("--tree", required=True, help="the folder to keep")
    parser.add_argument("--idle", type=float, default=IDLE_S, help="seconds without a request before it ends")
    options = parser.parse_args()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(options.socket)
    listener.listen(LISTEN_BACKLOG)
    serve_keeper(listener, options.tree, idle_s=options.idle, ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    main()
