"""Metering: what sandboxes use while nobody asks for anything is counted against their owners' quotas.

Sandboxes runs it on the reconciler's timer; what a sandbox used when its record is stored anyway is counted then.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from atoll.domain.errors import AtollError
from atoll.domain.sandbox import SandboxState
from atoll.services.access import Access
from atoll.services.endings import Endings
from atoll.services.lives import Live, charges

_log = structlog.get_logger()

AT_ONCE = 20
KNOWN_S = 60.0
MEASURED_MAX = 1_000  # in one pass; the next one begins where it ended


class Metering:
    """Measures the sandboxes of owners whose CPU or egress has a bound."""

    def __init__(self, access: Access, endings: Endings) -> None:
        self._access = access
        self._endings = endings
        self._last = ""
        self._known: dict[str, tuple[float, bool]] = {}

    async def run(self) -> int:
        """Measure and count each that is due; how many there were."""
        owners = {live.sandbox.owner for live in self._access.lives}
        self._known = {owner: known for owner, known in self._known.items() if owner in owners}
        metered = {owner for owner in owners if await self._counts(owner)}
        due = sorted((live for live in self._access.lives if live.sandbox.owner in metered), key=_id)
        due = [live for live in due if _id(live) > self._last] + [live for live in due if _id(live) <= self._last]
        due = due[:MEASURED_MAX]
        for at in range(0, len(due), AT_ONCE):
            await asyncio.gather(*(self._measure(live) for live in due[at : at + AT_ONCE]))
        self._last = _id(due[-1]) if due else ""
        for owner in {live.sandbox.owner for live in due}:
            await self._access.quotas.look(owner)
        return len(due)

    async def _counts(self, owner: str) -> bool:
        """Whether it has such a bound, as it was a minute ago at most."""
        now = time.monotonic()
        known = self._known.get(owner)
        if known is None or now >= known[0]:
            metered = (await self._access.quotas.of(owner)).metered
            known = self._known[owner] = (now + KNOWN_S, metered)
        return known[1]

    async def _measure(self, live: Live) -> None:
        if live.busy or live.sandbox.state is not SandboxState.RUNNING:
            return
        measured = await self._endings.measure(live)
        after = live.usage(measured)
        if not charges(live.sandbox, after):
            return
        try:
            await self._access.lives.move(live, None, None, measured=measured)
        except AtollError as error:  # the next pass counts it
            _log.info("metering.missed", sandbox_id=live.sandbox.id, error=error.message)


def _id(live: Live) -> str:
    return live.sandbox.id
