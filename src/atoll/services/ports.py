"""Ports: reach what listens inside a sandbox; surfaces and the gateway reach it as `sandboxes.ports`."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass

from atoll.domain.principal import Principal


@dataclass(frozen=True, slots=True)
class PortUrl:
    """Where a port of a sandbox is reached from outside."""

    container_port: int
    host_port: int
    url: str  # http://<public host>:<host port>
    protocol: str = "tcp"


class Ports:
    """Only ports that the sandbox declared, in network mode `exposed`."""

    async def dial(
        self, principal: Principal, sandbox_id: str, port: int
    ) -> tuple[StreamReader, StreamWriter]:
        """A byte stream to 127.0.0.1:port inside; the caller closes it. Needs `execute`.

        InvalidInput `port` outside 1..65535, NotFound when it is not exposed, Conflict when the sandbox does not run,
        Unavailable when nothing listens.
        """
        raise NotImplementedError

    async def url(self, principal: Principal, sandbox_id: str, port: int) -> PortUrl:
        """Needs `read`. Errors as `dial`, but for Unavailable."""
        raise NotImplementedError

    async def urls(self, principal: Principal, sandbox_id: str) -> list[PortUrl]:
        """All exposed ports, in the order declared; empty when there are none or it does not run. Needs `read`."""
        raise NotImplementedError
