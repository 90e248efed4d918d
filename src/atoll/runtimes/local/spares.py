"""Spares: a few sandboxes made ahead, of the default shape, that only lack a name, limits and a main process.

The node takes one when it fits what is asked for and makes the next when it has nothing better to do.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.runtimes.local.box import Box
    from atoll.sidekick.loop import Loop, Timer

# what is built into a sandbox's root and cannot be changed when it is assigned
SHAPE = ("network", "disk_bytes", "disk_in_memory", "inodes", "shm_bytes", "layers")
REFILL_AFTER_S = 0.004
RETRY_S = 5.0
BUSY_S = 0.01
PATIENCE = 100  # looks at a busy machine before one is made all the same


class Spares:
    """At most `count` spares of each wanted shape, of some only once one was asked for (`when_asked`).

    `make` is the node's.
    """

    def __init__(
        self,
        loop: Loop,
        wanted: list[dict[str, Any]],
        make: Callable[[dict[str, Any]], Box],
    ) -> None:
        self._loop = loop
        self._wanted = [dict(shape) for shape in wanted]
        self._make = make
        self._waiting: list[tuple[dict[str, Any], Box]] = []
        self._timer: Timer | None = None
        self._stopped = False
        self._patience = PATIENCE

    def take(self, request: dict[str, Any]) -> Box | None:
        """A prepared spare of the request's shape, if there is one."""
        for shape in self._wanted:
            if shape["when_asked"] and _fits(shape, request):
                shape["when_asked"] = False  # somebody wants these: from now on some are ready
        for at, (shape, box) in enumerate(self._waiting):
            if box.birth is not None and box.birth.prepared and _fits(shape, request):
                del self._waiting[at]
                return box
        return None

    def all(self) -> list[Box]:
        return [box for _, box in self._waiting]

    def forget(self, box: Box) -> None:
        """It ended."""
        self._waiting = [(shape, other) for shape, other in self._waiting if other is not box]

    def stop(self) -> None:
        self._stopped = True

    def refill_soon(self, after_s: float = REFILL_AFTER_S) -> None:
        """Make one when the requests at hand are done."""
        if self._timer is None and not self._stopped:
            self._timer = self._loop.after(after_s, self._refill)

    def _refill(self) -> None:
        self._timer = None
        shape = next((shape for shape in self._wanted if self._lacking(shape)), None)
        if shape is None or self._stopped:
            return
        if self._patience > 0 and _machine_is_busy():
            self._patience -= 1
            self.refill_soon(BUSY_S)
            return
        self._patience = PATIENCE
        try:
            self._waiting.append((shape, self._make(shape)))
        except Exception:  # no slots, no memory: try again later
            self.refill_soon(RETRY_S)
            return
        self.refill_soon()

    def _lacking(self, shape: dict[str, Any]) -> bool:
        return not shape["when_asked"] and sum(1 for have, _ in self._waiting if have is shape) < shape["count"]


def _fits(shape: dict[str, Any], request: dict[str, Any]) -> bool:
    return all(shape[name] == request[name] for name in SHAPE)


def _machine_is_busy() -> bool:
    """More is ready to run than there are processors: what somebody waits for goes first."""
    with open("/proc/loadavg", "rb") as file:
        running = int(file.read().split()[3].partition(b"/")[0])
    return running > (os.cpu_count() or 1)
