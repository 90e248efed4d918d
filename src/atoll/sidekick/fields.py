"""Fields: what a request says, checked before anything is done with it. Operations and paths call it."""

from __future__ import annotations

import os

from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_S = 1e9


def text(value: Any, field: str) -> str:
    """A string that the kernel takes as a path, an argument or a variable; else Refused (bad_request)."""
    if not isinstance(value, str):
        raise Refused("bad_request", f"{field}: expected text", field)
    if "\0" in value:
        raise Refused("bad_request", f"{field}: there is a NUL in it", field)
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise Refused("bad_request", f"{field}: is not Unicode text", field) from None
    return value


def words(value: Any, field: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise Refused("bad_request", f"{field}: expected a list of words", field)
    items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
    return [text(item, field) for item in items]


def variables(value: Any, field: str) -> dict[str, str]:
    """Names with values, for an environment."""
    if not isinstance(value, dict):
        raise Refused("bad_request", f"{field}: expected names with values", field)
    items: dict[Any, Any] = value  # pyright: ignore[reportUnknownVariableType]
    found = {text(name, field): text(item, field) for name, item in items.items()}
    if any(not name or "=" in name for name in found):
        raise Refused("bad_request", f"{field}: a name is not empty and has no = in it", field)
    return found


def number(request: dict[str, Any], field: str, default: int, most: int) -> int:
    value = request.get(field, default)
    if not isinstance(value, int) or not 0 <= value <= most:
        raise Refused("bad_request", f"{field}: expected a number from 0 to {most}", field)
    return value


def seconds(request: dict[str, Any], field: str, default: float | None) -> float | None:
    """Absent is `default`; null is None."""
    value = request.get(field, default)
    if value is not None and (not isinstance(value, (int, float)) or not 0 <= value < MAX_S):
        raise Refused("bad_request", f"{field}: expected seconds, at most {MAX_S:g}", field)
    return value
