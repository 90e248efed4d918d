"""What differs when the SDK waits: its connections, locks, pauses and files. `_async_io` has the same for awaiting.

The script that makes `_sync/` from `_async/` swaps one for the other; everything above is written once.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import IO, Any, TypeVar

from httpcore2 import ConnectionPool

from atoll.sdk.connections import Lane, free_lane, limits

_lanes: dict[tuple[int, bool], list[Lane[ConnectionPool]]] = {}


def connections(tls: bool) -> Lane[ConnectionPool]:
    """Of this process, shared by all of its threads; a forked child has its own."""
    lanes = _lanes.setdefault((os.getpid(), tls), [])
    return free_lane(lanes, lambda: ConnectionPool(**limits(tls)))


def close_connections() -> None:
    """Close what is idle; called at exit, and by tests."""
    for (pid, _), lanes in list(_lanes.items()):
        for lane in lanes:
            if pid == os.getpid():
                lane.pool.close()


atexit.register(close_connections)


Lock = threading.Lock
T = TypeVar("T")


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def read(file: IO[bytes], size: int) -> bytes:
    return file.read(size)


def write(file: IO[bytes], data: bytes) -> None:
    file.write(data)


def call(function: Callable[[Any], Any], argument: object) -> None:
    function(argument)


def work(function: Callable[..., T], *arguments: Any) -> T:
    """Work that blocks: here it may."""
    return function(*arguments)


class Background:
    """A call that goes on beside the caller, in a thread; `join` waits for it, and returns or raises what it did."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._error: BaseException | None = None
        self._value: Any = None
        self._thread = threading.Thread(target=self._run, args=(function, arguments), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
        try:
            self._value = function(*arguments)
        except BaseException as error:  # handed to join
            self._error = error

    def join(self) -> Any:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> None:
        """Its connection must be closed already: a thread can only be waited for."""
        self._thread.join()
