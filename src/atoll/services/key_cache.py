"""KeyCache: remembers for a moment which key has a hash, or that none has; the keys service asks it first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from atoll.domain.key import ApiKey

KNOWN_MAX = 10_000
UNKNOWN_MAX = 10_000


class KeyCache:
    """By hash, and by id those that others come from. Known and unknown ones apart, so that a flood of wrong keys does
    not push out the right ones."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._known: OrderedDict[str, tuple[float, ApiKey]] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._forgotten = 0  # how often: a look-up that began before must not bring the old back

    async def get(self, digest: str, find: Callable[[str], Awaitable[ApiKey | None]]) -> ApiKey | None:
        """The key as it was at most `seconds` ago."""
        now = self._monotonic()
        known = self._known.get(digest)
        if known is not None and now < known[0]:
            self._known.move_to_end(digest)
            return known[1]
        if now < self._unknown.get(digest, 0.0):
            return None
        forgotten = self._forgotten
        key = await find(digest)
        if forgotten == self._forgotten:
            self._remember(digest, key, now + self._seconds)
        return key

    def forget(self, digest: str) -> None:
        """Look again the next time."""
        self._forgotten += 1
        self._known.pop(digest, None)
        self._unknown.pop(digest, None)

    def _remember(self, digest: str, key: ApiKey | None, until: float) -> None:
        self._known.pop(digest, None)
        self._unknown.pop(digest, None)
        if key is None:
            self._unknown[digest] = until
            if len(self._unknown) > UNKNOWN_MAX:
                self._unknown.popitem(last=False)
        else:
            self._known[digest] = (until, key)
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
