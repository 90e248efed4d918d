"""Ask a sidekick how long its sandbox has been idle, without waiting for it. Used by the node's deadlines."""

from __future__ import annotations

import json
import os
import socket

from atoll.sidekick.loop import READ, Loop
from atoll.sidekick.protocol import HEADER, REQUEST, RESULT, json_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER_S = 15.0  # as long as a server waits for one


def ask_idle(loop: Loop, folder: str, then: Callable[[float | None], None]) -> None:
    """Call `then(idle_s)` once: when the sidekick answers, or with None when it does not within ANSWER_S."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.chdir(folder)  # by a relative name: socket paths are short, data folders need not be
        sock.connect("sidekick")
        sock.send(json_frame(REQUEST, {"op": "idle"}))
    except OSError:
        sock.close()
        loop.after(ANSWER_S, lambda: then(None))  # it may have too many to answer just now
        return
    finally:
        os.fchdir(here)
        os.close(here)

    def done(_events: int = 0) -> None:
        if sock.fileno() < 0:
            return
        timer.cancel()
        loop.forget(sock.fileno())
        try:
            data = sock.recv(4096)
        except OSError:
            data = b""
        sock.close()
        then(_told(data))

    timer = loop.after(ANSWER_S, done)
    loop.watch(sock.fileno(), READ, done)


def _told(data: bytes) -> float | None:
    """Seconds; None for what is no answer: it runs where the tenant is."""
    if len(data) <= HEADER.size or data[0] != RESULT:
        return None
    try:
        idle_s = float(json.loads(data[HEADER.size :])["idle_s"])
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None
    return idle_s if idle_s >= 0 else None
