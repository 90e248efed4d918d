"""Fallbacks: who takes over when a port of a sandbox fails: the sandbox that was registered for it, or a new one.

A new one begins from the latest snapshot of the workspace. The door of previews asks; however many ask at once, it
happens once.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import structlog

from atoll.domain.errors import AtollError
from atoll.domain.preview import Preview
from atoll.services.previews.previews import Previews
from atoll.services.previews.restarting import Restarting

_log = structlog.get_logger()

AGAIN_S = 60.0  # after which one that could not be begun is tried again: anybody may ask a public preview
FAILED_MAX = 4_096
CLOSE_S = 5.0


class Fallbacks:
    """One for all previews."""

    def __init__(
        self,
        previews: Previews,
        restarting: Restarting,
        answers: Callable[[Preview], Awaitable[bool]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`answers` says whether the program behind a preview answers anything at all."""
        self._previews = previews
        self._restarting = restarting
        self._answers = answers
        self._monotonic = monotonic
        self._under_way: dict[str, asyncio.Task[str | None]] = {}
        self._failed: OrderedDict[str, float] = OrderedDict()  # until when, by sandbox

    async def after(
        self, preview: Preview, *, failed: str, ended: bool, reached: bool = False, by_owner: bool = False
    ) -> str | None:
        """The sandbox to ask instead of the one that failed; None when there is none. `ended`: it is not there.
        `reached`: it took the request, so that one slow page is no reason yet: its program is asked first."""
        task = self._under_way.get(preview.id)
        if task is None:
            taking = self._take_over(preview, failed, ended=ended, reached=reached, by_owner=by_owner)
            task = asyncio.create_task(taking, name=f"fallback {preview.id}")
            self._under_way[preview.id] = task
            task.add_done_callback(lambda _: self._under_way.pop(preview.id, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Give up what is under way; a second call does nothing."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)

    async def _take_over(
        self, preview: Preview, failed: str, *, ended: bool, reached: bool, by_owner: bool
    ) -> str | None:
        try:
            stored = await self._previews.find(preview.sandbox_id, preview.port)
            if stored is None:
                return None
            if stored.target != failed:
                return stored.target  # somebody saw to it
            if stored.use_fallback:
                return None
            if stored.fallback_sandbox_id is not None:
                if reached and await self._answers(stored):
                    return None
                after = await self._previews.promote(stored)
            else:
                may_begin = ended and self._previews.limits.start_fallback
                found = await self._anew(stored, failed, by_owner=by_owner) if may_begin else None
                if found is None:
                    return None
                after = found
        except AtollError as error:
            _log.warning("preview.fallback_failed", preview=preview.id, error=error.message)
            return None
        _log.info("preview.promoted", preview=preview.id, fallback=after.target)
        return after.target

    async def _anew(self, stored: Preview, failed: str, *, by_owner: bool) -> Preview | None:
        """The preview with a new sandbox that took over; None where none is to be begun, or could not be lately."""
        if self._failed.get(failed, 0.0) > self._monotonic():
            return None
        try:
            begun = await self._restarting.begin(failed, by_owner=by_owner)
            return None if begun is None else await self._promoted(stored, begun)
        except AtollError:
            self._failed[failed] = self._monotonic() + AGAIN_S
            while len(self._failed) > FAILED_MAX:
                self._failed.popitem(last=False)
            raise

    async def _promoted(self, stored: Preview, begun: str) -> Preview:
        """The preview as it is then: another server may have begun one as well."""
        after: Preview | None = None
        try:
            after = await self._previews.promote(stored, begun)
            return after
        finally:
            if after is None or after.target != begun:
                await self._restarting.undo(begun)
