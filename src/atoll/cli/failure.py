"""What a command says when it fails: one line on stderr and an exit code; a bug shows its trace."""

from __future__ import annotations

import os
import sys

from atoll.domain.errors import AtollError, InvalidInput, RateLimited, Unauthenticated

FAILED = 1
MISUSED = 2
TIMED_OUT = 124  # as timeout(1) has it
OURS = 125  # run, exec, shell, attach: Atoll failed, and no code of the command's is known


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
        say(error.message + _advice(error))
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


def _advice(error: AtollError) -> str:
    if isinstance(error, RateLimited):
        return f" (try again in {error.retry_after_s} s)"
    if isinstance(error, Unauthenticated) and os.environ.get("ATOLL_API_KEY"):
        return " (ATOLL_API_KEY is set: is it a key of this server?)"
    if error.code == "connection_failed":
        return " (is it running? `atoll up` starts one; ATOLL_URL names another)"
    return ""
