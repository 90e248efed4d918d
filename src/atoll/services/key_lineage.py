"""The lineage of a key: the keys that it comes from, each of which made the next; it ends with any of them.

The services of keys, capabilities and quotas look up along it here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from atoll.domain.key import ApiKey

DEPTH_MAX = 8  # keys of which each made the next

Find = Callable[[str], Awaitable[ApiKey | None]]


async def ancestors(key: ApiKey, find: Find) -> list[ApiKey | None]:
    """The nearest first; None, as the last, where one is gone or the line is longer than any that is made."""
    found: list[ApiKey | None] = []
    while key.parent is not None:
        above = await find(key.parent) if len(found) < DEPTH_MAX - 1 else None
        found.append(above)
        if above is None:
            break
        key = above
    return found
