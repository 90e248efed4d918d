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
from atoll.domain.principal import Principal
from atoll.services.locks import Locks
from atoll.services.previews.previews import Previews
from atoll.services.previews.restarting import Begun, Restarting

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
        self._under_way: dict[tuple[str, str], asyncio.Task[str | None]] = {}  # by preview, and who asks
        self._begins = Locks()  # by sandbox
        self._failed: OrderedDict[tuple[str, str], float] = OrderedDict()  # until when, by sandbox, and who asked

    async def after(
        self, preview: Preview, *, failed: str, ended: bool, reached: bool = False, asker: Principal | None = None
    ) -> str | None:
        """The sandbox to ask instead of the one that failed; None when there is none. `ended`: it is not there.
        `reached`: it took the request, so that one slow page is no reason yet: its program is asked first.
        `asker`: who asks with a credential; what they may not do is tried again for who may."""
        asking = (preview.id, _name_of(asker))
        task = self._under_way.get(asking)
        if task is None:
            taking = self._take_over(preview, failed, ended=ended, reached=reached, asker=asker)
            task = asyncio.create_task(taking, name=f"fallback {preview.id}")
            self._under_way[asking] = task
            task.add_done_callback(lambda _: self._under_way.pop(asking, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Give up what is under way; a second call does nothing."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)

    async def _take_over(
        self, preview: Preview, failed: str, *, ended: bool, reached: bool, asker: Principal | None
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
                target = (await self._previews.promote(stored)).target
            else:
                may_begin = ended and self._previews.limits.start_fallback
                found = await self._anew(stored, failed, asker) if may_begin else None
                if found is None:
                    return None
                target = found
        except AtollError as error:
            _log.warning("preview.fallback_failed", preview=preview.id, error=error.message)
            return None
        _log.info("preview.promoted", preview=preview.id, fallback=target)
        return target

    async def _anew(self, stored: Preview, failed: str, asker: Principal | None) -> str | None:
        """A new sandbox that took over; None where none is to be begun, or could not be lately for who asks. There is
        one for all ports of the one that failed."""
        asking = (failed, _name_of(asker))
        async with self._begins.hold(failed):
            now = await self._previews.find(stored.sandbox_id, stored.port)
            if now is not None and now.target != failed:
                return now.target
            if self._failed.get(asking, 0.0) > self._monotonic():
                return None
            try:
                begun = await self._restarting.begin(failed, asker)
                return None if begun is None else await self._promoted(stored, begun)
            except AtollError:
                self._failed[asking] = self._monotonic() + AGAIN_S
                while len(self._failed) > FAILED_MAX:
                    self._failed.popitem(last=False)
                raise

    async def _promoted(self, stored: Preview, begun: Begun) -> str | None:
        """What took over: another server may have begun one as well."""
        taker: str | None = None
        try:
            taker = await self._previews.succeed(stored.sandbox_id, stored.owner, begun.id)
            return taker
        finally:
            if taker != begun.id:
                await self._restarting.undo(begun)


def _name_of(asker: Principal | None) -> str:
    return "" if asker is None else asker.credential
