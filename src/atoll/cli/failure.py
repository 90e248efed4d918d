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


# What the SDK calls an argument is called so here, and its bounds are told in this unit.
_OPTIONS: dict[str, tuple[str, str]] = {
    "cpus": ("--cpus", ""),
    "memory_mb": ("--memory", "m"),
    "disk_mb": ("--disk", "m"),
    "timeout": ("--timeout", "s"),
    "idle_timeout": ("--idle", "s"),
    "image": ("--image", ""),
    "name": ("--name", ""),
    "env": ("--env", ""),
    "network": ("--network", ""),
    "network.allow": ("--allow", ""),
    "ports": ("--publish", ""),
    "cwd": ("--workdir", ""),
    "command": ("COMMAND", ""),
    "workspace": ("--workspace", ""),
    "workspaces": ("--workspace", ""),
    "quota_bytes": ("--quota", " bytes"),
    "quota_inodes": ("--inodes", ""),
    "description": ("--description", ""),
    "tags": ("--tag", ""),
    "tag": ("--tag", ""),
    "message": ("--message", ""),
    "strip": ("--strip", ""),
    "depth": ("--depth", ""),
    "limit": ("--limit", ""),
    "folder": ("the folder", ""),
    "max_price_usd": ("--max-price", ""),
    "price_usd": ("--price", ""),
    "url": ("ATOLL_URL", ""),
    "api_key": ("ATOLL_API_KEY", ""),
}
_SESSION = re.compile(r"^session (?=not |is |already |has )")
_WITHIN = re.compile(r"must be within ([-+.\de]+)\.\.([-+.\de]+|inf)")


def call_fields(names: Mapping[str, str]) -> None:
    """What this command calls the arguments of the SDK, where it is not what most commands do."""
    _OPTIONS.update({field: (name, "") for field, name in names.items()})


class Failed(Exception):
    """A command cannot go on; `code` is its exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def explain(error: Exception, code: int | None = None) -> int:
    """Tell the user; returns the exit code, which is `code` when given."""
    if isinstance(error, Failed):
        say(str(error))
        return code if code is not None else error.code
    if isinstance(error, AtollError):
        say(_login_over(error) or _in_our_words(error) + _advice(error))
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
    """The message with the option's name and unit where the SDK's were, and a sandbox where it says session."""
    field = error.field if isinstance(error, InvalidInput) else None
    # one of several is `ports.0.container`
    found = _OPTIONS.get(field or "") or _OPTIONS.get((field or "").partition(".")[0])
    if field is None or found is None:
        return _SESSION.sub("sandbox ", error.message)
    option, unit = found

    def bounds(match: re.Match[str]) -> str:
        least, most = match.groups()
        return f"must be {least}{unit} at least" if most == "inf" else f"must be within {least}{unit}..{most}{unit}"

    message = _WITHIN.sub(bounds, error.message)
    return option + message[len(field) :] if message.startswith(field) else message


def _login_over(error: AtollError) -> str:
    """What to say where the credential is a login's token: it is no key, and was good for minutes."""
    key = os.environ.get("ATOLL_API_KEY", "")
    if not isinstance(error, Unauthenticated) or not key.startswith("ey") or key.count(".") != 2:
        return ""
    return "your login has expired or was ended: log in again, or use a key (ATOLL_API_KEY has a token)"


def _advice(error: AtollError) -> str:
    if isinstance(error, RateLimited):
        return f" (try again in {error.retry_after_s} s)"
    if isinstance(error, Unauthenticated) and os.environ.get("ATOLL_API_KEY"):
        return " (ATOLL_API_KEY is set: is it a key of this server, and has it not ended?)"
    if error.code == "connection_failed" and "atoll up" not in error.message:
        return " (is it running? `atoll up` starts one; ATOLL_URL names another)"
    return ""
