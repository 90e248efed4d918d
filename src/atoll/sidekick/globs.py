"""Globs: which paths below a watched folder are ignored; `watching` asks for each name that it sees.

Matched by hand: no module is imported inside a sandbox, and no pattern can take more than its length times the path's.
"""

from __future__ import annotations

from atoll.sidekick.fields import text
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATTERNS_MAX = 64
PATTERN_CHARACTERS_MAX = 256


class Globs:
    """Patterns as .gitignore has them, without `!`: one without a slash is a name at any depth, one with slashes a path
    below the folder or, when it begins with one, from the sandbox's root. `**` is any number of folders."""

    def __init__(self, patterns: Any, root: str) -> None:
        """Refused (bad_request) for what is no list of patterns."""
        if not isinstance(patterns, list) or len(patterns) > PATTERNS_MAX:  # pyright: ignore[reportUnknownArgumentType]
            raise Refused("bad_request", f"ignored: expected at most {PATTERNS_MAX} patterns", "ignored")
        self._root = [part for part in root.split("/") if part]
        self._names: list[str] = []
        self._below: list[list[str]] = []
        self._absolute: list[list[str]] = []
        for pattern in patterns:  # pyright: ignore[reportUnknownVariableType]
            self._add(text(pattern, "ignored"))

    def _add(self, pattern: str) -> None:
        if not pattern or len(pattern) > PATTERN_CHARACTERS_MAX:
            raise Refused("bad_request", f"ignored: a pattern has 1 to {PATTERN_CHARACTERS_MAX} characters", "ignored")
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if len(parts) > 1 and parts[-1] == "**":
            parts.pop()  # what is below a folder is ignored with the folder
        if not parts:
            return
        if pattern.startswith("/"):
            self._absolute.append(parts)
        elif "/" not in pattern.rstrip("/"):
            self._names.append(parts[0])
        else:
            self._below.append(parts)

    def match(self, path: str) -> bool:
        """Whether `path`, relative to the folder, is ignored; not asked for what is below something ignored."""
        parts = path.split("/")
        return (
            any(_name(pattern, parts[-1]) for pattern in self._names)
            or any(_parts(pattern, parts) for pattern in self._below)
            or any(_parts(pattern, self._root + parts) for pattern in self._absolute)
        )


def _parts(pattern: list[str], parts: list[str]) -> bool:
    """As `_name` does for letters: on a mismatch the last `**` takes one folder more."""
    at = here = 0
    star, taken = -1, 0
    while here < len(parts):
        if at < len(pattern) and pattern[at] == "**":
            star, taken = at, here
            at += 1
        elif at < len(pattern) and _name(pattern[at], parts[here]):
            at += 1
            here += 1
        elif star >= 0:
            taken += 1
            at, here = star + 1, taken
        else:
            return False
    return all(part == "**" for part in pattern[at:])


def _name(pattern: str, name: str) -> bool:
    """`*`, `?` and `[a-z]`, within one name."""
    at = here = 0
    star, taken = -1, 0
    while here < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, taken = at, here
            at += 1
            continue
        after = _one(pattern, at, name[here])
        if after > 0:
            at = after
            here += 1
        elif star >= 0:
            taken += 1
            at, here = star + 1, taken
        else:
            return False
    return not pattern[at:].strip("*")


def _one(pattern: str, at: int, letter: str) -> int:
    """Where the pattern goes on after this letter; 0 when it does not match."""
    if at >= len(pattern):
        return 0
    if pattern[at] == "?":
        return at + 1
    end = pattern.find("]", at + 2) if pattern[at] == "[" else -1
    if end < 0:
        return at + 1 if pattern[at] == letter else 0
    inside = pattern[at + 1 : end]
    unwanted = inside[0] in "!^"
    return end + 1 if _among(inside[unwanted:], letter) != unwanted else 0


def _among(letters: str, letter: str) -> bool:
    at = 0
    while at < len(letters):
        if letters[at + 1 : at + 2] == "-" and at + 2 < len(letters):
            if letters[at] <= letter <= letters[at + 2]:
                return True
            at += 3
        else:
            if letters[at] == letter:
                return True
            at += 1
    return False
