"""The terminal of a compute: the same as the Terminal Platform's, at ComputeSDK's address."""

from __future__ import annotations

from starlette.websockets import WebSocket

from atoll.domain.principal import Principal
from atoll.services.home_sandboxes import HomeSandboxes
from atoll.services.terminals import Terminals
from atoll.surfaces.addresses import sandbox_in
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.operation import WEBSOCKET, Answer, Operation
from atoll.surfaces.terminal_socket import PARAMETERS, TERMINAL_HEADERS, TERMINAL_TEXT, serve_terminal


class ComputeTerminal:
    """The WebSocket's handler."""

    def __init__(self, homes: HomeSandboxes, terminals: Terminals) -> None:
        self._homes = homes
        self._terminals = terminals

    async def open(self, socket: WebSocket, principal: Principal) -> None:
        sandbox_id = await self._homes.resolve(principal, sandbox_in(socket))
        await serve_terminal(socket, principal, self._terminals, sandbox_id)


def operations(homes: HomeSandboxes, terminals: Terminals) -> list[Operation]:
    """What is served of terminals."""
    switching = Answer(101, "the terminal", None, headers=TERMINAL_HEADERS)
    return [
        Operation(
            WEBSOCKET, "/compute/{id}/terminal", ComputeTerminal(homes, terminals).open, "openComputeTerminal",
            "A compute's terminal (WebSocket)", answers=(switching,), parameters=PARAMETERS,
            errors=(400, 403, 404, 409, 426, 429, 503, 504), token_in_query=True, subprotocol=True,
            description=TERMINAL_TEXT, tag="computes", error=ComputeError,
        ),
    ]  # fmt: skip
