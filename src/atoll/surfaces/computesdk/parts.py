"""The parts behind ComputeSDK's gateway and its sandboxes' daemons, put together; the composition root makes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from atoll.domain.errors import Unsupported
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.records.base import Records
from atoll.services.daemon.children import Children
from atoll.services.daemon.hub import Hubs
from atoll.services.daemon.own_sandboxes import OwnSandboxes
from atoll.services.sandbox_names import SandboxNames
from atoll.services.sandbox_tokens import SandboxTokens
from atoll.services.sandboxes import Sandboxes
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.computesdk import gateway
from atoll.surfaces.computesdk.gateway import GatewayHandlers
from atoll.surfaces.computesdk.gateway_bodies import SandboxOptions
from atoll.surfaces.operation import Operation
from atoll.surfaces.sidekick import children, daemon, tokens
from atoll.surfaces.sidekick.children import ChildHandlers
from atoll.surfaces.sidekick.daemon import DaemonHandlers, Furniture
from atoll.surfaces.sidekick.tokens import TokenHandlers

Json = dict[str, Any]


class ComputeParts:
    """`furnish` puts overlays and servers into sandboxes, `furniture` tells what became of them."""

    def __init__(
        self,
        records: Records,
        sandboxes: Sandboxes,
        workspaces: Workspaces,
        sandbox_tokens: SandboxTokens,
        hubs: Hubs,
        settings: Settings,
    ) -> None:
        self.own = OwnSandboxes(records, sandboxes, workspaces)
        self.children = Children(records, sandboxes, self.own, sandbox_tokens, hubs)
        self.furnish: Callable[[Principal, Sandbox, list[Json], list[Json], str], Awaitable[Json]] = _no_furniture
        self.furniture: Furniture = _none
        sandboxes.hear_of_ends(lambda sandbox: sandbox_tokens.forget(sandbox.id))
        self._names = SandboxNames(records)
        self._sandboxes = sandboxes
        self._tokens = sandbox_tokens
        self._settings = settings

    async def start(self) -> None:
        """After the sandboxes."""
        await self.own.start()
        await self.children.start()

    async def close(self) -> None:
        """Before the sandboxes. A second call does nothing."""
        await self.children.close()
        await self.own.close()

    def gateway(self) -> list[Operation]:
        """What the gateway serves."""
        of = GatewayHandlers(self.own, self._sandboxes, self._names, self._tokens, self._furnished, self._settings)
        return gateway.operations(of)

    def daemons(self) -> list[Operation]:
        """What stands below /sb/{id} of tokens, child sandboxes and the daemon itself."""
        return [
            *daemon.operations(DaemonHandlers(self._sandboxes, self.children, self._told, self._settings)),
            *tokens.operations(TokenHandlers(self._tokens, self._sandboxes, self._settings)),
            *children.operations(ChildHandlers(self.children, self._tokens, self._furnished, self._settings)),
        ]

    async def _furnished(self, principal: Principal, sandbox: Sandbox, asked: SandboxOptions, base: str) -> Json:
        if not (asked.overlays or asked.servers):
            return {}
        return await self.furnish(principal, sandbox, asked.overlays or [], asked.servers or [], base)

    async def _told(self, principal: Principal, sandbox_id: str, base: str) -> tuple[list[Json], list[Json]]:
        return await self.furniture(principal, sandbox_id, base)


async def _no_furniture(*_: Any) -> Json:
    raise Unsupported("overlays and servers are not served")


async def _none(*_: Any) -> tuple[list[Json], list[Json]]:
    return [], []
