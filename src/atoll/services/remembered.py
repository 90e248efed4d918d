"""Remembered: answers of the records that are good for a moment; what is asked on every request goes through one.

Whoever changes something tells it to forget, so that it holds here at once and on other servers after that moment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
FOUND_MAX = 10_000
MISSING_MAX = 10_000


class Remembered(Generic[T]):
    """What `find` said of a name at most `seconds` ago. Those of which it said None are kept apart: a flood of unknown
    names does not push out the known ones."""

    def __init__(self, find: Callable[[str], Awaitable[T]], seconds: float, monotonic: Callable[[], float]) -> None:
        self._find = find
        self._seconds = seconds
        self._monotonic = monotonic
        self._found: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._missing: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._forgotten = 0  # how often: a look-up that began before must not bring the old back

    async def get(self, name: str) -> T:
        now = self._monotonic()
        known = self._found.get(name) or self._missing.get(name)
        if known is not None and now < known[0]:
            if known[1] is not None:
                self._found.move_to_end(name)
            return known[1]
        forgotten = self._forgotten
        value = await self._find(name)
        if forgotten == self._forgotten:
            self._drop(name)
            kept, most = (self._missing, MISSING_MAX) if value is None else (self._found, FOUND_MAX)
            kept[name] = (now + self._seconds, value)
            if len(kept) > most:
                kept.popitem(last=False)
        return value

    def forget(self, name: str) -> None:
        """Look again the next time."""
        self._forgotten += 1
        self._drop(name)

    def clear(self) -> None:
        """Look again, whatever the name is."""
        self._forgotten += 1
        self._found.clear()
        self._missing.clear()

    def _drop(self, name: str) -> None:
        self._found.pop(name, None)
        self._missing.pop(name, None)
