"""Egress quota: what a sandbox may still send through the egress gateway, which asks before it passes bytes on.

What was sent since its record was stored is counted first, so that all that share the quota see it.
"""

from __future__ import annotations

from contextlib import suppress

from atoll.domain.errors import AtollError
from atoll.domain.sandbox import SandboxState
from atoll.services.lives import Live, Lives
from atoll.services.quotas import Quotas

PIECE_BYTES = 4 * 2**20  # that a sandbox may send before it has to ask again


class EgressQuota:
    """For all sandboxes of this server."""

    def __init__(self, lives: Lives, quotas: Quotas) -> None:
        self._lives = lives
        self._quotas = quotas

    async def left(self, live: Live) -> int | None:
        """How many bytes it may send before it has to ask again; None: any. QuotaExceeded when nothing is left."""
        if not await self._quotas.bounds_egress(live.sandbox):
            return None
        if not live.busy and live.sandbox.state is SandboxState.RUNNING and live.uncounted:
            with suppress(AtollError):  # another pass counts it; until then it is subtracted here
                await self._lives.move(live, None, None)
        remaining = await self._quotas.egress_left(live.sandbox, live.uncounted_egress_bytes)
        return None if remaining is None else min(remaining, PIECE_BYTES)
