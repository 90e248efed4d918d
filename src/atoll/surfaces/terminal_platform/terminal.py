"""The Sandbox API's terminal: a WebSocket, and tokens that open it where no header can be sent."""

from __future__ import annotations

from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from atoll.domain.principal import Principal
from atoll.services.home_sandboxes import HomeSandboxes
from atoll.services.sandbox_tokens import TERMINAL_S, SandboxTokens
from atoll.services.terminals import Terminals, terminal_token
from atoll.surfaces.bodies import json_response
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.terminal_socket import serve_terminal


class TerminalTokenAnswer(AnswerModel):
    """`url` is the path of the WebSocket with the token in it."""

    token: str
    expires_at: datetime
    expires_in: int
    url: str


class TerminalHandlers:
    """The WebSocket's handler, and the tokens'."""

    def __init__(self, homes: HomeSandboxes, terminals: Terminals, tokens: SandboxTokens) -> None:
        self._homes = homes
        self._terminals = terminals
        self._tokens = tokens

    async def open(self, socket: WebSocket, principal: Principal) -> None:
        sandbox_id = await self._homes.resolve(principal, socket.path_params["id"])
        await serve_terminal(socket, principal, self._terminals, sandbox_id)

    async def mint(self, request: Request, principal: Principal) -> Response:
        sandbox_id = await self._homes.resolve(principal, request.path_params["id"])
        made = await terminal_token(self._tokens, principal, sandbox_id)
        return json_response(
            {
                "token": made.text,
                "expires_at": made.expires_at,
                "expires_in": int(TERMINAL_S),
                "url": f"/sandboxes/{sandbox_id}/terminal?token={made.text}",
            }
        )
