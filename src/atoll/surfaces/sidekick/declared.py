"""How the sidekick API declares its operations: below which path, with which cookie and errors.

Every table of operations in this folder is written with it.
"""

from __future__ import annotations

from atoll.surfaces.models import BodyModel
from atoll.surfaces.operation import Answer, Handler, Operation, Parameter
from atoll.surfaces.sidekick.errors import SidekickError

DAEMON = "/sb/{id}"
TAG = "sidekick"
GONE = (404, 409)  # errors of everything that acts in a sandbox
COOKIE = "atoll_session"  # of whoever came by a magic link


def declared(
    method: str,
    path: str,
    handler: Handler,
    id: str,
    summary: str,
    found: tuple[Answer, ...],
    *,
    parameters: tuple[Parameter, ...] = (),
    body: type[BodyModel] | None = None,
    body_required: bool = True,
    errors: tuple[int, ...] = (),
    description: str = "",
) -> Operation:
    """An operation below a sandbox's daemon; what everything there may answer is among its errors."""
    return Operation(
        method, DAEMON + path, handler, id, summary, found, parameters, body, body_required,
        errors=(400, *GONE, *errors), tag=TAG, description=description, error=SidekickError, cookie=COOKIE,
    )  # fmt: skip
