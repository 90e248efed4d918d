"""Gateway: what serves the streams that come out of sandboxes, by the gate through which they came.

The gates service hands them over; app.py puts the parts together.
"""

from __future__ import annotations

from atoll.gateway.api import ApiGateway
from atoll.services.lives import Live
from atoll.sidekick.client import GateStream
from atoll.sidekick.gates import API


class Gateway:
    """One for all sandboxes of a server."""

    def __init__(self, api: ApiGateway) -> None:
        self._api = api

    async def serve(self, live: Live, stream: GateStream) -> None:
        """Until the stream is over. The sandbox is known by its connection; what it says of a stream it may make up."""
        if stream.gate == API and live.sandbox.spec.capability is not None:
            await self._api.serve(live, stream)

    async def close(self) -> None:
        """A second call does nothing."""
        await self._api.close()
