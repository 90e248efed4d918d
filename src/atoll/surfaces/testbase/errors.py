"""How this dialect speaks of errors: `{error, message}`; its words are the protocol's, which clients compare."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import Field
from starlette.responses import Response

from atoll.domain.errors import AtollError, InvalidInput, NotFound, RateLimited, Unauthenticated
from atoll.domain.ledger import BudgetExceeded, InsufficientCredit, SpendingLimitExceeded
from atoll.services.identity.admin_key import AdminRequired, AdminUnset
from atoll.services.keys import ExpiredKey
from atoll.services.workspaces.single_files import NoFile, NoFolder
from atoll.surfaces.bodies import Invalid
from atoll.surfaces.dialects import JsonDialect
from atoll.surfaces.door import NoCredential
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.money import dollars, money_json
from atoll.surfaces.rate_limit import SurfaceLimited
from atoll.surfaces.statuses import envelope, headers_of, status_and_code

EXECUTIONS = "testbase_execute"  # the class of rates that executions count in
NO_KEY = (
    "API key required. Provide via Authorization header (Bearer token), X-API-Key header, or api_key query parameter."
)
QUERY_OFF = "This server takes no key from addresses, which end up in logs: the setting keys.in_query turns that on."
LIMITED = {
    "testbase": ("Too many requests", "Rate limit exceeded. Please try again later."),
    EXECUTIONS: ("Too many execution requests", "Execution rate limit exceeded. Please try again later."),
}


# What is not there, in the protocol's words.
MISSING: dict[type[NotFound], str] = {NoFile: "File not found", NoFolder: "Directory not found"}


class TestbaseFieldError(AnswerModel):
    """One thing that is wrong with a request."""

    __test__ = False  # to pytest a class of this name holds tests
    field: str
    message: str
    value: str | None = None


class TestbaseError(AnswerModel):
    """Every error of this API; `errors` comes with 400, `details` with what was refused for money."""

    __test__ = False
    error: str
    message: str
    errors: list[TestbaseFieldError] | None = None
    details: dict[str, Any] | None = None
    hint: str | None = Field(None, description="of a key that came in the address, where the settings allow none there")


class InvalidFields(InvalidInput):
    """What is wrong with a request, in the protocol's own words: a field, a message and perhaps the value of each."""

    def __init__(self, fields: list[dict[str, str]]) -> None:
        self.fields = fields
        super().__init__("; ".join(one["message"] for one in fields), field=fields[0]["field"])


class NoSession(NotFound):
    """Session not found"""

    def __init__(self, session: str) -> None:
        self.session = session
        super().__init__("Session not found")


class TestbaseDialect(JsonDialect):
    """The envelope of every route of this dialect."""

    __test__ = False
    surface = "testbase"
    invalid = "Validation failed"

    def error(self, error: AtollError) -> Response:
        if isinstance(error, InsufficientCredit | SpendingLimitExceeded):
            status, body = refused_for_money(error)
            return Response(money_json(body), status, headers_of(error, status), "application/json")
        status, body = self._told(error)
        return envelope(status, body, headers_of(error, status))

    def body(self, status: int, code: str, message: str, error: AtollError | None = None) -> dict[str, Any]:
        return {"error": HTTPStatus(status).phrase, "message": message}

    def _told(self, error: AtollError) -> tuple[int, dict[str, Any]]:
        if isinstance(error, Unauthenticated):
            return _unauthenticated(error)
        status, code = status_and_code(error)
        for kind, word in MISSING.items():
            if isinstance(error, kind):
                return status, {"error": word, "message": error.message}
        if isinstance(error, NoSession):
            return status, {"error": error.message, "sessionId": error.session}
        if isinstance(error, SurfaceLimited) and error.rates in LIMITED:
            word, message = LIMITED[error.rates]
            return status, {"error": word, "message": message}
        if isinstance(error, RateLimited):
            return status, {"error": "Too many requests", "message": error.message}
        if isinstance(error, InvalidInput):
            told = {"error": self.invalid, "message": error.message}
            return status, told | ({"errors": found} if (found := _fields(error)) else {})
        return status, self.body(status, code, error.message, error)


class AdminDialect(TestbaseDialect):
    """Of the routes that are the administrator's alone: whoever is not is told the same, whatever they came with."""

    invalid = "Bad Request"

    def __init__(self, *, configured: bool) -> None:
        self._configured = configured

    def _told(self, error: AtollError) -> tuple[int, dict[str, Any]]:
        if isinstance(error, Unauthenticated) and not isinstance(error, NoCredential):
            error = AdminRequired() if self._configured else AdminUnset()
        return super()._told(error)


def refused_for_money(error: InsufficientCredit | SpendingLimitExceeded) -> tuple[int, dict[str, Any]]:
    """The status, 402 or 429, and the body; its amounts are Decimals. A task that ran dry adds its output to it."""
    status, _ = status_and_code(error)
    if isinstance(error, SpendingLimitExceeded):
        word = "Spending Limit Exceeded"
        details: dict[str, Any] = {
            "dailyUsage": dollars(error.daily_usage),
            "dailyLimit": dollars(error.daily_limit),
            "monthlyUsage": dollars(error.monthly_usage),
            "monthlyLimit": dollars(error.monthly_limit),
        }
    elif isinstance(error, BudgetExceeded):
        word = "Budget Exceeded"
        details = {"budget": error.subject, "limit": dollars(error.limit), "spent": dollars(error.spent)}
    else:
        word = "Insufficient Credits"
        details = {"currentBalance": dollars(error.balance), "totalSpent": dollars(error.spent)}
    return status, {"error": word, "message": error.message, "details": details}


def _unauthenticated(error: Unauthenticated) -> tuple[int, dict[str, Any]]:
    if isinstance(error, NoCredential):
        return 401, {"error": "Unauthorized", "message": NO_KEY} | ({"hint": QUERY_OFF} if error.in_query else {})
    if isinstance(error, ExpiredKey):
        return 401, {"error": "Unauthorized", "message": "API key has expired"}
    return 403, {"error": "Forbidden", "message": "Invalid API key"}


def _fields(error: InvalidInput) -> list[dict[str, str]]:
    if isinstance(error, InvalidFields):
        return error.fields
    if isinstance(error, Invalid):
        return [{"field": field, "message": message} for field, message in error.errors]
    return [{"field": error.field, "message": error.message}] if error.field else []
