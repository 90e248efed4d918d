"""Deadlines: the hard limits and the idleness of every sandbox, watched from outside it."""

from __future__ import annotations

from atoll.runtimes.local.box import Box, boot_now
from atoll.runtimes.local.idle import ask_idle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from atoll.sidekick.loop import Loop

RECHECK_S = 5.0  # of one that is frozen, or does not answer
RECHECK_MIN_S = 0.05


class Deadlines:
    """Calls `end(box, reason)` when a limit is reached: timeout, max_age or idle."""

    def __init__(self, loop: Loop, end: Callable[[Box, str], None]) -> None:
        self._loop = loop
        self._end = end

    def arm(self, box: Box, look_in_s: float) -> None:
        """Set the timer for the first thing that may be due: a hard limit, or a look at idleness so much later."""
        if box.timer is not None:
            box.timer.cancel()
        deadline = box.next_deadline()
        waits = [] if deadline is None else [deadline[0] - boot_now()]
        if box.limits.get("idle_s") is not None:
            waits.append(look_in_s)
        if waits:
            box.timer = self._loop.after(max(0.0, min(waits)), lambda: self._due(box))

    def _due(self, box: Box) -> None:
        if box.gone:
            return
        deadline = box.next_deadline()
        if deadline is not None and boot_now() >= deadline[0]:
            self._end(box, deadline[1])
            return
        self.arm(box, RECHECK_S)
        if box.limits.get("idle_s") is not None and not box.frozen and not box.asked_at:
            box.asked_at = boot_now()
            ask_idle(self._loop, box.folder, lambda idle_s: self._idle_told(box, idle_s))

    def _idle_told(self, box: Box, idle_s: float | None) -> None:
        asked_at, box.asked_at = box.asked_at, 0.0
        if idle_s is None:  # nobody can use it: it is idle since then
            box.silent_since = box.silent_since or asked_at
            idle_s = boot_now() - box.silent_since
        else:
            box.silent_since = 0.0
        limit = box.limits.get("idle_s")
        if limit is None or box.gone or box.frozen:
            return
        idle_s = min(idle_s, boot_now() - box.awake_since)
        if idle_s >= limit:
            self._end(box, "idle")
        else:  # before that it cannot have been idle for long enough
            look_in_s = max(limit - idle_s, RECHECK_MIN_S)
            self.arm(box, min(look_in_s, RECHECK_S) if box.silent_since else look_in_s)
