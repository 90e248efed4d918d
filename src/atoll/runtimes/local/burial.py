"""Burial: how a sandbox ends: everything in it is killed, and all that it had on the machine is given back."""

from __future__ import annotations

import os
import signal

from atoll.runtimes.local.box import ENDED_NAME, STATE_NAME, Box, usage_of
from atoll.runtimes.local.child import SOCKET_NAME
from atoll.runtimes.local.disks import IMAGE_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.runtimes.local.cgroups import Cgroups
    from atoll.runtimes.local.slots import Slots
    from atoll.sidekick.loop import Loop

REMOVE_RETRY_S = 0.005
REMOVE_RETRIES = 2000


class Burials:
    """`buried(box, usage)` is called once for each box that `bury` was called for, when nothing of it is left;
    `measure(box)` notes what will not be known any more."""

    def __init__(
        self,
        loop: Loop,
        cgroups: Cgroups | None,
        slots: Slots | None,
        buried: Callable[[Box, dict[str, Any]], None],
        measure: Callable[[Box], None],
    ) -> None:
        self._loop = loop
        self._cgroups = cgroups
        self._slots = slots
        self._buried = buried
        self._measure = measure

    def kill(self, box: Box) -> None:
        """KILL all of it; the end of its sidekick leads to `bury`. A second call does nothing more."""
        if box.gone:
            return
        self._measure(box)
        if self._cgroups is not None:
            self._cgroups.kill(box.key)
        if box.pidfd >= 0:
            _tolerant(lambda: signal.pidfd_send_signal(box.pidfd, signal.SIGKILL))
        elif box.pid:
            # our own child: its number is not given away before we have reaped it
            _tolerant(lambda: os.kill(box.pid, signal.SIGKILL))
        if box.frozen and self._cgroups is not None:
            self._cgroups.freeze(box.key, frozen=False)

    def bury(self, box: Box) -> None:
        """Free all that the sandbox had. Its sidekick has ended, or never was."""
        if box.gone:
            return
        box.gone = True
        if box.timer is not None:
            box.timer.cancel()
        if box.birth is not None:
            box.birth.close("the sandbox ended while it was made")
        if box.pidfd >= 0:
            self._loop.forget(box.pidfd)
            os.close(box.pidfd)
            box.pidfd = -1
        self._measure(box)
        usage = usage_of(box)
        if box.counters is not None:
            box.counters.close()
        # Its link goes with its network namespace; to wait for that would stop the node for tens of milliseconds.
        if self._cgroups is not None:
            self._cgroups.kill(box.key)  # what may have joined on its way out
        self._remove_group(box.key, REMOVE_RETRIES, lambda: self._buried(box, usage), slot=box.slot)

    def clear_group(self, key: str) -> None:
        """Kill and remove a group of ours that no sandbox claims."""
        if self._cgroups is None:
            return
        self._cgroups.kill(key)
        for pid in self._cgroups.members(key):
            _tolerant(lambda pid=pid: os.kill(pid, signal.SIGKILL))
        self._remove_group(key, REMOVE_RETRIES, lambda: None)

    def _remove_group(self, key: str, retries: int, then: Callable[[], None], slot: int | None = None) -> None:
        """A slot whose group cannot be removed is not given to anybody else: somebody still has its user ids."""
        if self._cgroups is None or self._cgroups.remove(key):
            if self._slots is not None and slot is not None:
                self._slots.give_back(slot)
            then()
        elif retries == 0:
            then()
        else:  # a dying process still holds it
            self._loop.after(REMOVE_RETRY_S, lambda: self._remove_group(key, retries - 1, then, slot))


def remove_folder(folder: str, *, keep: str = "") -> None:
    """Remove a sandbox's folder with what a node keeps there, but for the file named `keep`."""
    for name in {STATE_NAME, ENDED_NAME, IMAGE_NAME, SOCKET_NAME} - {keep}:
        try:
            os.unlink(f"{folder}/{name}")
        except FileNotFoundError:
            pass
    if not keep:
        try:
            os.rmdir(folder)
        except OSError:
            pass


def _tolerant(kill: Callable[[], None]) -> None:
    try:
        kill()
    except ProcessLookupError:
        pass
