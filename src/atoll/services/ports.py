"""Ports: reach what listens inside a sandbox; surfaces and the gateway reach it as `sandboxes.ports`."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass

from atoll.domain.errors import NotFound
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import NetworkMode, Port, Sandbox, SandboxState
from atoll.services.access import Access
from atoll.services.specs import check_port


@dataclass(frozen=True, slots=True)
class PortUrl:
    """Where a port of a sandbox is reached from outside."""

    container_port: int
    host_port: int
    url: str  # http://<public host>:<host port>
    protocol: str = "tcp"


class Ports:
    """Only ports that the sandbox declared, in network mode `exposed`."""

    def __init__(self, access: Access, public_host: str) -> None:
        self._access = access
        self.host = public_host

    async def dial(self, principal: Principal, sandbox_id: str, port: int) -> tuple[StreamReader, StreamWriter]:
        """A byte stream to 127.0.0.1:port inside; the caller closes it. Needs `execute`.

        InvalidInput `port` outside 1..65535, NotFound when it is not exposed, Conflict when the sandbox does not run,
        Unavailable when nothing listens.
        """
        access = self._access
        live = await access.running(principal, sandbox_id, Scope.EXECUTE)
        _declared(live.sandbox, port)
        async with access.inside(live, "reaching the port", within_s=access.limits.call_s):
            return await access.runtime.dial(sandbox_id, port)

    async def url(self, principal: Principal, sandbox_id: str, port: int) -> PortUrl:
        """Needs `read`. Errors as `dial`, but for Unavailable."""
        live = await self._access.running(principal, sandbox_id, Scope.READ)
        return self._describe(_declared(live.sandbox, port))

    def urls(self, sandbox: Sandbox) -> list[PortUrl]:
        """All exposed ports of a sandbox that the caller has, in the order declared; empty unless it is live."""
        if not sandbox.live and sandbox.state is not SandboxState.SUSPENDED:
            return []
        return [self._describe(port) for port in sandbox.spec.ports if port.host_port is not None]

    def _describe(self, port: Port) -> PortUrl:
        if port.host_port is None:
            raise NotFound(f"port {port.container} is not reachable")
        return PortUrl(port.container, port.host_port, f"http://{self.host}:{port.host_port}", port.protocol)


def _declared(sandbox: Sandbox, number: int) -> Port:
    check_port(number)
    if sandbox.spec.network in (NetworkMode.EXPOSED, NetworkMode.LISTED):
        for port in sandbox.spec.ports:
            if port.container == number:
                return port
    raise NotFound(f"port {number} is not exposed: name it in ports, with network exposed")
