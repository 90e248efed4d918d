"""What a command says when it fails: one line on stderr and an exit code; a bug shows its trace."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from atoll.domain.errors import AtollError, InvalidInput, RateLimited, Unauthenticated

FAILED = 1
MISUSED = 2
TIMED_OUT = 124  # as timeout(1) has it
OURS = 125  # run, exec, shell, attach: Atoll failed, and no code of the command's is known


# What the API calls a field is called so here; the factor leads from its unit to the option's.
_OPTIONS: dict[str, tuple[str, float, str]] = {
    "resources.cpuMillis": ("--cpus", 0.001, ""),
    "resources.memoryMB": ("--memory", 1, "m"),
    "resources.diskMB": ("--disk", 1, "m"),
    "resources.timeoutMs": ("--timeout", 0.001, "s"),
    "timeoutMs": ("--timeout", 0.001, "s"),
    "resources.idleMs": ("--idle", 0.001, "s"),
    "image": ("--image", 1, ""),
    "name": ("--name", 1, ""),
    "env": ("--env", 1, ""),
    "network": ("--network", 1, ""),
    "ports": ("--publish", 1, ""),
    "workDir": ("--workdir", 1, ""),
    "command": ("COMMAND", 1, ""),
    "workspace": ("--workspace", 1, ""),
    "workspaces": ("--workspace", 1, ""),
    "quotaBytes": ("--quota", 1, " bytes"),
    "quotaInodes": ("--inodes", 1, ""),
    "description": ("--description", 1, ""),
    "tags": ("--tag", 1, ""),
    "tag": ("--tag", 1, ""),
    "message": ("--message", 1, ""),
    "strip": ("--strip", 1, ""),
    "depth": ("--depth", 1, ""),
    "limit": ("--limit", 1, ""),
    "folder": ("the folder", 1, ""),
    "url": ("ATOLL_URL", 1, ""),
    "api_key": ("ATOLL_API_KEY", 1, ""),
}
_SESSION = re.compile(r"^session (?=not |is |already |has )")
_WITHIN = re.compile(r"must be within ([-+.\de]+)\.\.([-+.\de]+|inf)")


def call_fields(names: Mapping[str, str]) -> None:
    """What this command calls fields of the API, where it is not what most commands do."""
    _OPTIONS.update({field: (name, 1, "") for field, name in names.items()})


class Failed(Exception):
    """A command cannot go on; `code` is its exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def explain(error: Exception, code: int | None = None) -> int:
    """Tell the user; returns the exit code, which is `code` when given."""
    if isinstance(error, Failed):
        say(str(error))
        return error.code
    if isinstance(error, AtollError):
        say(_in_our_words(error) + _advice(error))
        return code if code is not None else MISUSED if isinstance(error, InvalidInput) else FAILED
    if isinstance(error, OSError):
        say(str(error))
        return code if code is not None else FAILED
    import traceback

    traceback.print_exception(error)
    say("this is a bug in atoll: please report it with the lines above")
    return code if code is not None else FAILED


def say(message: str) -> None:
    """A line on stderr."""
    sys.stderr.write(f"atoll: {message}\n")
    sys.stderr.flush()


def _in_our_words(error: AtollError) -> str:
    """The message with the option's name and unit where the API's were, and a sandbox where it says session."""
    field = error.field if isinstance(error, InvalidInput) else None
    # one of several is `ports.0.container`
    found = _OPTIONS.get(field or "") or _OPTIONS.get((field or "").partition(".")[0])
    if field is None or found is None:
        return _SESSION.sub("sandbox ", error.message)
    option, factor, unit = found

    def bounds(match: re.Match[str]) -> str:
        least, most = (float(bound) * factor for bound in match.groups())
        return (
            f"must be {least:g}{unit} at least"
            if most == float("inf")
            else (f"must be within {least:g}{unit}..{most:g}{unit}")
        )

    message = _WITHIN.sub(bounds, error.message)
    return option + message[len(field) :] if message.startswith(field) else message


def _advice(error: AtollError) -> str:
    if isinstance(error, RateLimited):
        return f" (try again in {error.retry_after_s} s)"
    if isinstance(error, Unauthenticated) and os.environ.get("ATOLL_API_KEY"):
        return " (ATOLL_API_KEY is set: is it a key of this server?)"
    if error.code == "connection_failed" and "atoll up" not in error.message:
        return " (is it running? `atoll up` starts one; ATOLL_URL names another)"
    return ""
