"""Process: one program that the sidekick started, and who follows it; `processes` has them all."""

from __future__ import annotations

import time

from atoll.sidekick.ring import Ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.sidekick.loop import Timer
    from atoll.sidekick.tree import Family

SHOWN_CHARACTERS = 256
WAITS = 1 << 62  # an offset far ahead: who only waits for the end never holds output back


class Follower:
    """A connection that reads a process's output: where it is, and whom to call when there is more."""

    __slots__ = ("offset", "wake")

    def __init__(self, offset: int, wake: Callable[[], None]) -> None:
        self.offset = offset
        self.wake = wake


class Process:
    """One program. `exit` is set once it has ended and all of its output is in the ring."""

    def __init__(self, name: str, argv: list[str], tty: bool, ring_bytes: int) -> None:
        self.id = name
        self.argv = _shown(argv)
        self.tty = tty
        self.pid = 0
        self.started_at = time.time()
        self.started = time.monotonic()
        self.ring = Ring(ring_bytes)
        self.label = ""
        self.exit: dict[str, Any] | None = None
        self.status: int | None = None
        self.timed_out = False
        self.family: Family = {}  # whom TERM was sent to
        self.stdin = -1
        self.stdin_buffer = bytearray()
        self.stdin_closing = False
        self.outputs: dict[int, int] = {}  # descriptor -> stream
        self.after_end: dict[int, int] = {}  # descriptor -> bytes still to read once the program has ended
        self.paused = False  # a follower is too far behind: its unread output would fall out of the ring
        self.followers: list[Follower] = []
        self.awaited: Follower | None = None  # stands for the first reader, who is on the way
        self.told = 0  # the offset up to which followers were woken
        self.gathering: Timer | None = None
        self.serves = False
        self.timers: list[Timer] = []
        self.stdin_timer: Timer | None = None
        self.oom_before = 0

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "argv": self.argv,
            "pid": self.pid,
            "tty": self.tty,
            "started_at": self.started_at,
            "output_start": self.ring.start,
            "output_end": self.ring.end,
            "exit": self.exit,
            "label": self.label,
        }


def _shown(argv: list[str]) -> list[str]:
    """For lists of processes: the words, cut where they are too many or too long."""
    words: list[str] = []
    left = SHOWN_CHARACTERS
    for word in argv:
        if left <= 0:
            break
        words.append(word if len(word) <= left else word[: left - 1] + "…")
        left -= len(word) + 1
    return words
