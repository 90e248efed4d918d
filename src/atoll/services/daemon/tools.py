"""Tools: the parts of the sidekick API that keep something in a sandbox, together; app.py starts and closes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from atoll.domain.errors import AtollError, NotFound
from atoll.domain.fixture import Fixture, FixtureKind
from atoll.domain.sandbox import Sandbox
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.daemon.env_files import EnvFiles
from atoll.services.daemon.fixtures import Fixtures
from atoll.services.daemon.hub import Hubs
from atoll.services.daemon.overlays import Overlays
from atoll.services.daemon.port_urls import PortUrls
from atoll.services.daemon.servers import Servers
from atoll.services.daemon.signals import Signals
from atoll.services.daemon.supervising import Supervision
from atoll.services.daemon.watchers import Watchers
from atoll.services.sandboxes import Sandboxes

_log = structlog.get_logger()
CLOSE_S = 5.0


class Tools:
    """Watchers, signals, environment files, overlays and servers of all sandboxes. `data` is a folder of their own."""

    def __init__(
        self,
        records: Records,
        sandboxes: Sandboxes,
        hubs: Hubs,
        urls: PortUrls,
        data: Path,
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._records = records
        self._sandboxes = sandboxes
        self._fixtures = fixtures = Fixtures(records, sandboxes, clock)
        self.urls = urls
        self.watchers = Watchers(fixtures, hubs)
        self.signals = Signals(fixtures, hubs, urls)
        self.env_files = EnvFiles(sandboxes)
        self.overlays = Overlays(fixtures, data)
        supervision = Supervision(fixtures, self.overlays, self.env_files, self.signals, urls)
        self.servers = Servers(fixtures, self.overlays, supervision)
        self._work: set[asyncio.Task[None]] = set()
        sandboxes.hear_of_wakings(lambda sandbox: self._spawn(lambda: self._woken(sandbox), f"woken {sandbox.id}"))
        sandboxes.hear_of_ends(lambda sandbox: self._spawn(lambda: self._ended(sandbox), f"ended {sandbox.id}"))

    async def start(self) -> None:
        """Go on with what is kept in the sandboxes that run; forget what was kept in those that are gone."""
        known: dict[str, list[Fixture]] = {}
        for fixture in await self._records.list_fixtures():
            known.setdefault(fixture.sandbox, []).append(fixture)
        for sandbox_id, fixtures in known.items():
            sandbox = await self._records.get_sandbox(sandbox_id)
            if sandbox is None or (sandbox.ended and not sandbox.may_wake):
                await self._forget(sandbox_id)
            elif self._sandboxes.reaching.running(sandbox_id) is not None:
                for fixture in fixtures:
                    self._adopt(fixture)

    async def close(self) -> None:
        """A second call does nothing."""
        work = set(self._work)
        for task in work:
            task.cancel()
        if work:
            await asyncio.wait(work, timeout=CLOSE_S)
        await self._fixtures.close()

    def _adopt(self, fixture: Fixture) -> None:
        match fixture.kind:
            case FixtureKind.SERVER:
                self.servers.adopt(fixture)
            case FixtureKind.WATCHER:
                self.watchers.adopt(fixture)
            case FixtureKind.SIGNALS:
                self.signals.adopt(fixture)
            case FixtureKind.OVERLAY:
                self.overlays.adopt(fixture)

    async def _woken(self, sandbox: Sandbox) -> None:
        for fixture in await self._records.list_fixtures(sandbox=sandbox.id):
            try:
                if fixture.kind is FixtureKind.SERVER:
                    await self.servers.woken(fixture)
                else:
                    await self._fixtures.leave(fixture.id)
                    self._adopt(fixture)
            except NotFound:
                continue  # deleted meanwhile

    async def _ended(self, sandbox: Sandbox) -> None:
        """Nothing of it is left in the runtime; one that may wake keeps what it had."""
        for fixture in await self._records.list_fixtures(sandbox=sandbox.id):
            await self._fixtures.leave(fixture.id)
        if sandbox.ended and not sandbox.may_wake:
            await self._forget(sandbox.id)

    async def _forget(self, sandbox_id: str) -> None:
        self.signals.forget(sandbox_id)
        await self._records.drop_fixtures(sandbox_id)
        await self.overlays.forget(sandbox_id)

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        task = asyncio.create_task(_quietly(work, name), name=name)
        self._work.add(task)
        task.add_done_callback(self._work.discard)


async def _quietly(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    try:
        await work()
    except AtollError as error:
        _log.info("tools.refused", work=name, error=error.message)
    except Exception:
        _log.exception("tools.failed", work=name)
