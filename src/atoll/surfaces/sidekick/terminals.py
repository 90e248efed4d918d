"""The handlers of terminals: made, listed and ended here; what goes in and out travels over the WebSocket."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.principal import Principal
from atoll.services.daemon.terminals import RAW, DaemonTerminals
from atoll.settings import Settings
from atoll.surfaces.addresses import Addresses
from atoll.surfaces.bodies import read_model
from atoll.surfaces.models import BodyModel
from atoll.surfaces.sidekick import answers
from atoll.surfaces.sidekick.errors import done


class TerminalBody(BodyModel):
    """POST /terminals."""

    shell: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(None, description="of one on a PTY")
    encoding: Literal["raw", "base64"] | None = Field(None, description="how its output is told; default: raw")
    pty: bool | None = Field(None, description="a shell; false: a name for commands")


class TerminalHandlers:
    """One method for each operation."""

    def __init__(self, terminals: DaemonTerminals, settings: Settings) -> None:
        self._terminals = terminals
        self._addresses = Addresses(settings)
        self._body_bytes = settings.server.body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, TerminalBody, self._body_bytes, optional=True)
        made = await self._terminals.create(
            principal,
            request.path_params["id"],
            pty=bool(body.pty),
            shell=body.shell,
            encoding=body.encoding or RAW,
        )
        return done("Terminal created", answers.terminal(made, self._url(request)), 201)

    async def list(self, request: Request, principal: Principal) -> Response:
        found = await self._terminals.list(principal, request.path_params["id"])
        url = self._url(request)
        return done("Terminals", {"terminals": [answers.terminal(one, url) for one in found]})

    async def get(self, request: Request, principal: Principal) -> Response:
        found = await self._terminals.get(principal, request.path_params["id"], request.path_params["terminal"])
        return done("Terminal", answers.terminal(found, self._url(request)))

    async def close(self, request: Request, principal: Principal) -> Response:
        await self._terminals.close(principal, request.path_params["id"], request.path_params["terminal"])
        return Response(status_code=204)

    def _url(self, request: Request) -> str:
        return self._addresses.events(request, request.path_params["id"])
