"""Statuses: which HTTP status and code an error has, and what goes with it; each dialect puts a body of its own around.

The errors of every dialect call it.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from atoll.domain.errors import (
    AtollError,
    Conflict,
    Corrupt,
    DeadlineExceeded,
    Forbidden,
    Internal,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from atoll.domain.ledger import BudgetExceeded, InsufficientCredit, SpendingLimitExceeded
from atoll.services.idempotency import KeyReused, Undecided, UnderWay
from atoll.surfaces.bodies import Lingering, json_bytes

# The nearest ancestor of an error decides.
TABLE: dict[type[AtollError], tuple[int, str]] = {
    InvalidInput: (400, "BAD_REQUEST"),
    Unauthenticated: (401, "UNAUTHORIZED"),
    InsufficientCredit: (402, "INSUFFICIENT_CREDIT"),
    BudgetExceeded: (402, "BUDGET_EXCEEDED"),
    Forbidden: (403, "FORBIDDEN"),
    NotFound: (404, "NOT_FOUND"),
    Conflict: (409, "CONFLICT"),
    UnderWay: (409, "IDEMPOTENCY_IN_PROGRESS"),
    Undecided: (409, "IDEMPOTENCY_UNDECIDED"),
    KeyReused: (422, "IDEMPOTENCY_KEY_REUSED"),
    TooLarge: (413, "TOO_LARGE"),
    QuotaExceeded: (429, "QUOTA_EXCEEDED"),
    SpendingLimitExceeded: (429, "SPENDING_LIMIT_EXCEEDED"),
    RateLimited: (429, "RATE_LIMIT_EXCEEDED"),
    Internal: (500, "INTERNAL"),
    Corrupt: (500, "CORRUPT"),
    Unsupported: (501, "NOT_IMPLEMENTED"),
    Unavailable: (503, "UNAVAILABLE"),
    DeadlineExceeded: (504, "DEADLINE_EXCEEDED"),
}
RETRY_AFTER_S = 1  # of an answer that says "not now" and has no better guess


def status_and_code(error: AtollError) -> tuple[int, str]:
    """The HTTP status and the wire's code of an error."""
    for ancestor in type(error).__mro__:
        if ancestor in TABLE:
            return TABLE[ancestor]
    return TABLE[Internal]


def headers_of(error: AtollError, status: int) -> dict[str, str]:
    """What a client needs to go on: how to authenticate, when to come again, that the connection is over."""
    headers: dict[str, str] = {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    wait_s: int | None = getattr(error, "retry_after_s", None)
    if wait_s is not None:
        headers["retry-after"] = str(wait_s)
    elif status == 503:
        headers["retry-after"] = str(RETRY_AFTER_S)
    if status == 413:
        headers["connection"] = "close"  # the rest of the body is not worth reading
    return headers


def envelope(status: int, body: dict[str, Any], headers: dict[str, str]) -> Response:
    """The answer. After a body that was too large it lingers, so that the client gets to read it."""
    kind = Lingering if status == 413 else Response
    return kind(json_bytes(body), status, headers, "application/json")
