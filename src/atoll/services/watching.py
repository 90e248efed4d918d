"""Watching: waits for the ends that nobody asked for, of main processes and of whole sandboxes; Sandboxes runs it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from atoll.domain.errors import AtollError, Unavailable
from atoll.domain.process import MAIN
from atoll.domain.sandbox import SandboxState
from atoll.runtimes.base import Ended, Handle
from atoll.services.access import Access
from atoll.services.deadline import deadline
from atoll.services.endings import Endings
from atoll.services.listeners import Listeners
from atoll.services.lives import Live

_log = structlog.get_logger()

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 5.0
RECORD_TRIES = 12
RECORDED_AT_ONCE = 16


class Watching:
    """One task for each sandbox with a main process, one for the runtime's events."""

    def __init__(self, access: Access, endings: Endings, listeners: Listeners) -> None:
        self._access = access
        self._endings = endings
        self._listeners = listeners
        self._recording = asyncio.Semaphore(RECORDED_AT_ONCE)

    async def adopt(self, live: Live, handle: Handle) -> None:
        """Watch a sandbox that runs, and open its ports unless they are. A second call does nothing."""
        if live.watched:
            return
        await self._reopen(live)
        live.watched = True
        self._access.gates.open(live)
        if live.sandbox.spec.command:
            live.watcher = self._access.background.spawn(self._follow_main(live), f"watch {live.sandbox.id}")

    async def follow_events(self) -> None:
        """Hand each end that the runtime tells to its sandbox, until cancelled."""
        delay_s = RETRY_FIRST_S
        while True:
            try:
                async for ended in self._access.runtime.events():
                    delay_s = RETRY_FIRST_S
                    self._access.background.spawn(self._take(ended), f"ended {ended.id}")
                _log.warning("runtime.events_ended")
            except AtollError as error:
                _log.warning("runtime.events_failed", error=error.message)
            except Exception:
                _log.exception("runtime.events_failed")
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def _take(self, ended: Ended) -> None:
        """Record it, then let the runtime forget it. Nobody counts it as lost meanwhile: many may end together."""
        access = self._access
        with access.lives.told(ended.id):
            try:
                await self._until_made(ended.id)
                async with self._recording:
                    await self._record(ended)
            except Exception:
                _log.exception("sandbox.end_unrecorded", sandbox_id=ended.id)
            await access.runtime.forget(ended.id)

    async def _until_made(self, sandbox_id: str) -> None:
        """A deadline may pass before `make` has returned."""
        live = self._access.lives.get(sandbox_id)
        if live is not None:
            async with deadline(self._access.limits.make_s, "waiting for the make"):
                await live.made.wait()

    async def _record(self, ended: Ended) -> None:
        """The end into the records, also when they are down for a moment; after that the reconciler finds it lost."""
        delay_s = RETRY_FIRST_S
        for _ in range(RECORD_TRIES):
            try:
                live = self._access.lives.get(ended.id)
                if live is None:
                    sandbox = await self._access.records.get_sandbox(ended.id)
                    if sandbox is None or not sandbox.live:
                        return
                    live = self._access.lives.add(sandbox)
                await self._endings.ended_by_runtime(live, ended)
                return
            except Unavailable as error:
                _log.warning("sandbox.end_unrecorded", sandbox_id=ended.id, error=error.message)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def _follow_main(self, live: Live) -> None:
        access, delay_s = self._access, RETRY_FIRST_S
        while live.sandbox.state is SandboxState.RUNNING:
            try:
                exit_ = await access.runtime.sidekick(live.sandbox.id).wait(MAIN)
                await self._endings.main_exited(live, exit_)
                return
            except Exception as error:
                _log.info("sandbox.watch_cut", sandbox_id=live.sandbox.id, error=str(error))
                if live.sandbox.state is SandboxState.RUNNING and not live.busy:
                    await access.look(live)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def _reopen(self, live: Live) -> None:
        """After a restart the listeners are gone; a port that somebody took meanwhile gets another number."""
        ports = live.sandbox.spec.ports
        if not ports or self._listeners.has(live.sandbox.id):
            return
        opened = await self._listeners.open(live.sandbox, ports)
        if opened != ports:
            event = self._access.event("sandbox.ports_moved", live.sandbox)
            spec = replace(live.sandbox.spec, ports=opened)
            await self._access.lives.move(live, None, event, spec=spec)
