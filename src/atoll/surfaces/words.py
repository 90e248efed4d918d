"""Words: the argv of a command as clients send it."""

from __future__ import annotations

import shlex

from atoll.domain.errors import InvalidInput


def words(command: list[str] | str, field: str) -> tuple[str, ...]:
    """The argv of a command; a single string is split by shell-word rules, and nothing is expanded."""
    if not isinstance(command, str):
        return tuple(command)
    try:
        argv = tuple(shlex.split(command))
    except ValueError as error:
        raise InvalidInput(f"{field}: {error}".lower(), field=field) from None
    if not argv:
        raise InvalidInput(f"{field} must not be empty", field=field)
    return argv
