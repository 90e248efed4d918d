"""The arguments of the SDK's calls: checked before they travel, and named in what the server says about them.

`requests` and the calls themselves check; `errors` renames. Every check raises InvalidInput with the argument's name as
its field, and says what would be right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, cast

from atoll.domain.errors import InvalidInput

SECONDS = "a number of seconds above 0, such as 30"

# What the API calls an argument; the factor leads from its unit to the argument's.
_ARGUMENTS: dict[str, tuple[str, float]] = {
    "resources.cpuMillis": ("cpus", 0.001),
    "resources.memoryMB": ("memory_mb", 1),
    "resources.diskMB": ("disk_mb", 1),
    "resources.pids": ("pids", 1),
    "resources.inodes": ("inodes", 1),
    "resources.timeoutMs": ("timeout", 0.001),
    "resources.idleMs": ("idle_timeout", 0.001),
    "resources.maxAgeMs": ("max_age", 0.001),
    "timeoutMs": ("timeout", 0.001),
    "maxOutputBytes": ("max_output_bytes", 1),
    "workDir": ("cwd", 1),
    "quotaBytes": ("quota_bytes", 1),
    "quotaInodes": ("quota_inodes", 1),
    "ownKey": ("own_key", 1),
    "workspaceId": ("workspace", 1),
    "sessionId": ("session_id", 1),
    "mcpServers": ("mcp_servers", 1),
    "max_price": ("max_price_usd", 1),
    "pricing.per_run": ("price_usd", 1),
}
_WITHIN = re.compile(r"must be within ([-+.\de]+)\.\.([-+.\de]+|inf)")


def thousandths(value: object, name: str, right: str) -> int | None:
    """A number in thousandths, 1 at least: the bounds are the server's, and it says them."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise _wrong(name, right, value)
    return max(1, round(float(value) * 1000))


def millis(value: object, name: str) -> int | None:
    """Seconds above 0 in milliseconds, 1 at least."""
    found = thousandths(value, name, SECONDS)
    if found is not None and cast(Real, value) <= 0:
        raise _wrong(name, SECONDS, value)
    return found


def whole(value: object, name: str, right: str) -> int | None:
    """A whole number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _wrong(name, right, value)
    return int(value)


def text(value: object, name: str, right: str) -> str | None:
    """A string."""
    if value is None or isinstance(value, str):
        return value
    raise _wrong(name, right, value)


def several(value: object, name: str, right: str) -> list[Any] | None:
    """The items of a list or the like; a string, whose items are its characters, is none."""
    if value is None:
        return None
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise _wrong(name, right, cast(object, value))
    return list(cast(Iterable[Any], value))


def texts(value: object, name: str, right: str) -> list[str] | None:
    """Several strings."""
    found = several(value, name, right)
    if found is not None and not all(isinstance(item, str) for item in found):
        raise _wrong(name, right, value)
    return found


def mapping(value: object, name: str, right: str) -> dict[str, Any] | None:
    """A dict or the like."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise _wrong(name, right, value)
    return dict(cast(Mapping[str, Any], value))


def refusal(message: str, field: str | None) -> InvalidInput:
    """What the server says about a field, in the name and the unit of the argument that it came from."""
    if field not in _ARGUMENTS:
        root, dot, rest = (field or "").partition(".")  # one of several is `mcpServers.0.name`
        if field is None or root not in _ARGUMENTS:
            return InvalidInput(message, field=field)
        name, factor = _ARGUMENTS[root][0] + dot + rest, 1.0
    else:
        name, factor = _ARGUMENTS[field]

    def bounds(match: re.Match[str]) -> str:
        least, most = (float(bound) * factor for bound in match.groups())
        return f"must be within {least:.12g}..{most:.12g}"

    if factor != 1:
        message = _WITHIN.sub(bounds, message)
    return InvalidInput(name + message[len(field) :] if message.startswith(field) else message, field=name)


def _wrong(name: str, right: str, value: object) -> InvalidInput:
    return InvalidInput(f"{name} must be {right}, not {value!r}", field=name)
