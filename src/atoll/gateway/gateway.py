"""Gateway: what serves the streams that come out of sandboxes, by the gate through which they came.

The gates service hands them over; app.py puts the parts together.
"""

from __future__ import annotations

import asyncio

from atoll.domain.sandbox import NetworkMode
from atoll.gateway.api import ApiGateway
from atoll.gateway.egress import Egress
from atoll.gateway.http import HttpStreams
from atoll.services.identity.connected import Connected
from atoll.services.lives import Live
from atoll.sidekick.client import GateStream
from atoll.sidekick.gates import API, DNS, MODEL, OUT


class Gateway:
    """One for all sandboxes of a server."""

    def __init__(self, api: ApiGateway, egress: Egress, connected: Connected, models: HttpStreams) -> None:
        self._api = api
        self._models = models
        self._egress = egress
        self._connected = connected

    async def serve(self, live: Live, stream: GateStream) -> None:
        """Until the stream is over. The sandbox is known by its connection; what it says of a stream it may make up."""
        if stream.gate == API and live.sandbox.spec.capability is not None:
            await self._api.serve(live, stream)
        elif stream.gate == MODEL and live.sandbox.spec.task is not None:
            await self._models.serve(live, stream)
        elif stream.gate in (OUT, DNS) and live.sandbox.spec.network is NetworkMode.LISTED:
            await self._egress.serve(live, stream)

    def changed(self, live: Live) -> None:
        """Its list of names is another one."""
        self._egress.changed(live)

    def ended(self, sandbox_id: str) -> None:
        """Nothing comes out of it any more."""
        self._egress.forget(sandbox_id)
        self._connected.forget(sandbox_id)

    async def close(self) -> None:
        """A second call does nothing."""
        await asyncio.gather(self._api.close(), self._models.close())
