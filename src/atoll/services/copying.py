"""Copying: a folder of a sandbox into another one of it, and back; the overlays reach it as `sandboxes.copying`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from atoll.domain.copied import CopiedEntry, CopyEnd
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.services.access import Access


class Copying:
    """Conflict `session not running: status=<s>` unless it runs."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def copy(
        self,
        principal: Principal,
        sandbox_id: str,
        source: str,
        target: str,
        *,
        ignored: Sequence[str] = (),
        links: Sequence[str] = (),
        again: bool = False,
    ) -> AsyncGenerator[list[CopiedEntry] | CopyEnd, None]:
        """What was made, in pieces, then the end; see `SidekickClient.copy`. Needs `write`. Close it."""
        live = await self._access.running(principal, sandbox_id, Scope.WRITE)
        sidekick = self._access.runtime.sidekick(live.sandbox.id)
        async with self._access.inside(live, "copying", within_s=None):  # the client gives up one that stalls
            told = sidekick.copy(source, target, ignored=ignored, links=links, again=again)
            try:
                async with aclosing(told) as pieces:
                    async for piece in pieces:
                        yield piece
            finally:  # one that is left early has made something too
                self._access.mounting.changed(live.sandbox)

    async def found(
        self,
        principal: Principal,
        sandbox_id: str,
        source: str,
        target: str,
        *,
        ignored: Sequence[str] = (),
        links: Sequence[str] = (),
    ) -> list[CopiedEntry]:
        """What a copy that broke off has made and nobody has changed since, in that order. Needs `write`. NotFound when
        the source or the target is gone, InvalidInput for a target inside the source."""
        live = await self._access.running(principal, sandbox_id, Scope.WRITE)
        made: list[CopiedEntry] = []
        async with self._access.inside(live, "looking for what was copied", within_s=self._access.limits.remove_s):
            told = self._access.runtime.sidekick(live.sandbox.id).copy(
                source, target, ignored=ignored, links=links, look=True
            )
            async with aclosing(told) as pieces:
                async for piece in pieces:
                    made += [] if isinstance(piece, CopyEnd) else piece
        return made

    async def uncopy(self, principal: Principal, sandbox_id: str, target: str, entries: Sequence[CopiedEntry]) -> None:
        """Needs `write`."""
        live = await self._access.running(principal, sandbox_id, Scope.WRITE)
        async with self._access.inside(live, "taking away what was copied", within_s=self._access.limits.remove_s):
            await self._access.runtime.sidekick(live.sandbox.id).uncopy(target, entries)
        self._access.mounting.changed(live.sandbox)
