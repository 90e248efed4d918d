"""How this dialect speaks of errors: `{detail}`, as FastAPI does; a body that is not valid lists what is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from atoll.domain.errors import AtollError, InvalidInput, NotFound, Unauthenticated
from atoll.services.workspaces.access import NoWorkspace
from atoll.services.workspaces.sharing import NoCollaborator
from atoll.surfaces.bodies import Invalid
from atoll.surfaces.credentials import TwoCredentials
from atoll.surfaces.door import NoCredential
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.operation import InvalidQuery
from atoll.surfaces.statuses import envelope, headers_of, status_and_code

NOT_BEARER = "Authorization header must start with 'Bearer '"
BAD_TOKEN = "Invalid or expired token"
NO_SESSION = "session not found"  # the services' word for a sandbox that is not there, or somebody else's
SESSION = re.compile(r"^session\b")  # what they call a sandbox that cannot be used as it is


class WrongField(AnswerModel):
    """One thing that is wrong with a request; `loc` is `body` or `query` and the way to the field."""

    loc: list[str | int]
    msg: str
    type: str


class DetailError(AnswerModel):
    """Every error of this API; a list comes with 422."""

    detail: str | list[WrongField]


class BadRequest(InvalidInput):
    """A rule of this API that it answers with 400, not with 422."""


class Failed(AtollError):
    """Something that this API answers with 500 and a text of its own."""


class TerminalDialect:
    """The envelope of every route of this dialect."""

    surface = "terminal_platform"

    def error(self, error: AtollError) -> Response:
        status, detail = _told(error)
        return envelope(status, {"detail": detail}, headers_of(error, status))

    def method_not_allowed(self, allowed: list[str]) -> Response:
        return envelope(405, {"detail": "Method Not Allowed"}, {"allow": ", ".join(allowed)})

    def upgrade_required(self) -> Response:
        return envelope(426, {"detail": "Upgrade Required"}, {"upgrade": "websocket", "connection": "upgrade"})


def _told(error: AtollError) -> tuple[int, str | list[dict[str, Any]]]:
    if isinstance(error, Unauthenticated):
        return 401, NOT_BEARER if isinstance(error, NoCredential) else BAD_TOKEN
    if isinstance(error, BadRequest | TwoCredentials):
        return 400, error.message
    if isinstance(error, Invalid):
        return 422, [_wrong(("body", *one["loc"]), one["msg"], one["type"]) for one in error.details]
    if isinstance(error, InvalidInput):
        part = "query" if isinstance(error, InvalidQuery) else "body"
        loc = (part, error.field) if error.field else (part,)
        return 422, [_wrong(loc, error.message, "value_error")]
    if isinstance(error, NoWorkspace):
        return 404, "Workspace not found"
    if isinstance(error, NoCollaborator):
        return 404, "Agent not found in collaborators for this workspace"
    if isinstance(error, NotFound) and error.message == NO_SESSION:
        return 404, "Sandbox not found"
    status, _ = status_and_code(error)
    message = SESSION.sub("sandbox", error.message)
    return status, message[:1].upper() + message[1:]


def _wrong(loc: Sequence[str | int], message: str, kind: str) -> dict[str, Any]:
    return {"loc": list(loc), "msg": message, "type": kind}
