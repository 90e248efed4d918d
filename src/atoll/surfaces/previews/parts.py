"""The parts of previews, put together: services, the gateway's proxy and the door; the composition root makes one."""

from __future__ import annotations

import asyncio
from typing import Literal

import structlog
from starlette.types import ASGIApp

from atoll.domain.errors import AtollError
from atoll.gateway.previews.health import Health
from atoll.gateway.previews.limits import CarryLimits
from atoll.gateway.previews.pool import UPKEEP_S, Pool
from atoll.gateway.previews.proxy import Proxy
from atoll.records.base import Records
from atoll.services.identity.connected import Connected
from atoll.services.identity.signing_keys import SigningKeys
from atoll.services.previews.fallbacks import Fallbacks
from atoll.services.previews.limits import PreviewLimits
from atoll.services.previews.previews import Previews
from atoll.services.previews.restarting import Restarting
from atoll.services.previews.tokens import PreviewTokens
from atoll.services.sandboxes import Sandboxes
from atoll.services.workspaces.workspaces import Workspaces
from atoll.surfaces.door import Door
from atoll.surfaces.previews.door import PreviewDoor
from atoll.surfaces.previews.opening import Authenticate, Opening
from atoll.surfaces.previews.tickets import QuickWay
from atoll.telemetry.metrics import Metrics

_log = structlog.get_logger("atoll.surface")
PRUNE_EVERY = 600  # looks of the pool's timer


class PreviewParts:
    """`start` before anything is served, `close` at the end."""

    def __init__(
        self,
        records: Records,
        connected: Connected,
        sandboxes: Sandboxes,
        workspaces: Workspaces,
        signing_keys: SigningKeys,
        *,
        issuer: str,
        limits: PreviewLimits,
        carry: CarryLimits,
        health_s: float,
    ) -> None:
        tokens = PreviewTokens(signing_keys, connected, issuer=issuer, lasts_s_max=limits.token_s_max)
        self.previews = Previews(records, sandboxes.reaching, tokens, limits)
        self.pool = Pool(sandboxes.reaching, carry)
        self._proxy = Proxy(self.pool, carry)
        self._records = records
        self.health = Health(self.previews, sandboxes.reaching)
        self._checking: asyncio.Task[None] | None = None
        self._health_every = max(1, round(health_s / UPKEEP_S))
        restarting = Restarting(records, connected, sandboxes, workspaces)
        self._fallbacks = Fallbacks(self.previews, restarting, self.health.answers)

    def door(
        self,
        app: ASGIApp,
        door: Door,
        authenticate: Authenticate,
        pages: Literal["auto", "trusted", "sandboxed"] = "auto",
    ) -> PreviewDoor:
        """What lets requests for previews in and hands all others to `app`."""
        opening = Opening(door, self.previews, authenticate)
        sandboxed = pages == "sandboxed" or (pages == "auto" and bool(self.previews.limits.domain))
        made = PreviewDoor(
            app, door, opening, self.previews, self._proxy, self._fallbacks, self.health, sandboxed=sandboxed
        )
        self.pool.checks.append(made.look)
        return made

    def quick(self, app: ASGIApp, previews: PreviewDoor, door: Door, metrics: Metrics) -> QuickWay:
        """The whole application, with a quick way to previews in front."""
        return QuickWay(app, previews, door, metrics, self.previews.limits.domain)

    async def start(self) -> None:
        self.pool.start()
        self._looks = 0
        self.pool.checks.append(self._upkeep)

    async def _upkeep(self) -> None:
        """On the pool's timer: what is asked less often."""
        self._looks += 1
        if self._looks % self._health_every == 0 and (self._checking is None or self._checking.done()):
            # Beside the timer, which tells what is in use: many programs that hang take long to be asked.
            self._checking = asyncio.create_task(self._check_health(), name="health of previews")
        if self._looks % PRUNE_EVERY == 0:
            await self._records.prune_previews()

    async def _check_health(self) -> None:
        try:
            await self.health.run()
        except AtollError as error:
            _log.warning("previews.health", error=error.message)

    async def close(self) -> None:
        """Cut everything that goes through; a second call does nothing."""
        await self.pool.close()
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        await self._fallbacks.close()
