"""Errors of the client: the server's own tree again, plus what can only go wrong on this side.

`error_of` turns an answer's status and body into the class that the server raised; every call of the SDK uses it.

AtollError
├── ConnectionFailed    connection_failed    no answer from the server; a retry may help
├── CommandFailed       command_failed       run(check=True) and the command did not exit with 0
└── ...                                      see atoll.domain.errors
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from atoll.domain import errors
from atoll.domain.errors import AtollError
from atoll.domain.ledger import InsufficientCredit
from atoll.sdk.arguments import refusal

if TYPE_CHECKING:
    from atoll.sdk.values import Result

_SHOWN_CHARS = 2_000


class ConnectionFailed(AtollError):
    """The Atoll server cannot be reached."""

    code = "connection_failed"
    retryable = True


class CommandFailed(AtollError):
    """A command failed; `result` has its output and exit code."""

    code = "command_failed"

    def __init__(self, result: Result) -> None:
        self.result = result
        how = f"was ended by signal {result.signal}" if result.signal else f"exited with {result.exit_code}"
        if result.timed_out:
            how = "ran into its timeout"
        tail = result.stderr.strip() or result.stdout.strip()
        super().__init__(f"the command {how}" + (f": {tail[-_SHOWN_CHARS:]}" if tail else ""))


class Dropped(Exception):
    """A stream's connection ended, properly or not; never leaves the SDK."""


_BY_CODE: dict[str, type[AtollError]] = {
    cls.code: cls
    for cls in (
        errors.InvalidInput,
        errors.Unauthenticated,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.TooLarge,
        errors.QuotaExceeded,
        errors.RateLimited,
        errors.Unsupported,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.Corrupt,
        errors.Internal,
    )
}
_BY_CODE["rate_limit_exceeded"] = errors.RateLimited  # execbox's names
_BY_CODE["not_implemented"] = errors.Unsupported
_BY_CODE.update(insufficient_credit=InsufficientCredit, budget_exceeded=InsufficientCredit)
_BY_CODE["spending_limit_exceeded"] = errors.QuotaExceeded

_BY_STATUS: dict[int, type[AtollError]] = {
    400: errors.InvalidInput,
    401: errors.Unauthenticated,
    402: InsufficientCredit,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.InvalidInput,
    429: errors.RateLimited,
    501: errors.Unsupported,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}


def error_of(status: int, body: bytes, retry_after: str | None = None) -> AtollError:
    """The error that an answer stands for: by its `code`, else by its status."""
    problem = _problem(body)
    if status in (402, 429):
        from atoll.sdk.task_errors import money_error  # few programs need it

        about_money = money_error(status, problem)
        if about_money is not None:
            return about_money
    code = str(problem.get("code") or "").lower()
    message = problem.get("error") or problem.get("detail") or problem.get("message")
    if not code and problem.get("message"):  # {error: a word for programs, message: a sentence}
        code, message = str(problem.get("error") or "").lower(), problem["message"]
    if message == "Validation failed" or code == "validation failed":  # Testbase's: the sentence is in the list
        message, field = _first(problem).get("message") or message, _field(problem)
        if field and message and not str(message).startswith(field):
            message = f"{field}: {message}"
    elif message == "Session not found" and problem.get("sessionId"):
        message = f"{message}: {problem['sessionId']}"
    cls = _BY_CODE.get(code) or _BY_STATUS.get(status) or errors.Internal
    text = str(message) if message else f"HTTP {status}"
    if cls is errors.RateLimited:
        return errors.RateLimited(text, retry_after_s=_seconds(retry_after))
    if cls is errors.InvalidInput:
        return refusal(text, _field(problem))
    return cls(text)


def _problem(body: bytes) -> dict[str, Any]:
    try:
        value: object = json.loads(body)
    except ValueError:
        text = body.decode("utf-8", "replace").strip()
        # A proxy's HTML page says nothing that helps; a line of text does.
        return {"error": text[:_SHOWN_CHARS]} if text and not text.startswith("<") else {}
    found = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return _of_list(found) if isinstance(found.get("detail"), list) else found


def _of_list(problem: dict[str, Any]) -> dict[str, Any]:
    """`{detail: [{loc, msg}]}`, as the Cloud Terminal Platform's routes tell it, in the words of the others."""
    listed = cast("list[Any]", problem["detail"])
    first = cast("dict[str, Any]", listed[0]) if listed and isinstance(listed[0], dict) else {}
    where: object = first.get("loc")
    field = ".".join(map(str, cast("list[object]", where)[1:])) if isinstance(where, list) else ""  # after `body`
    message = str(first.get("msg") or "the request is not valid")
    return {"field": field, "error": message if message.startswith(field) else f"{field}: {message}"}


def _field(problem: dict[str, Any]) -> str | None:
    first = _first(problem)
    field = problem.get("field") or first.get("location") or first.get("field")
    return str(field) if field else None


def _first(problem: dict[str, Any]) -> dict[str, Any]:
    """The first of several things that are wrong."""
    listed: object = problem.get("errors")
    first: object = cast("list[object]", listed)[0] if isinstance(listed, list) and listed else None
    return cast("dict[str, Any]", first) if isinstance(first, dict) else {}


def _seconds(retry_after: str | None) -> int:
    try:
        return max(1, int(retry_after or 1))
    except ValueError:
        return 1
