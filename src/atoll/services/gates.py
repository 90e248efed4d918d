"""Gates: waits for the streams that come out of sandboxes, and hands each to whoever serves it, with its sandbox.

Watching opens them for sandboxes that have any, endings close them. While nobody waits, what comes waits inside.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from atoll.domain.errors import AtollError, Conflict
from atoll.domain.sandbox import NetworkMode, Sandbox, SandboxState
from atoll.runtimes.base import Runtime
from atoll.services.limits import Limits
from atoll.services.lives import Live
from atoll.sidekick.client import GateStream
from atoll.telemetry.metrics import Metrics

_log = structlog.get_logger()

WAITING = 4  # streams of one sandbox that are taken without a pause; more wait in its kernel for a moment
RESERVED = 4  # the last fourth of all places is for owners that have few
FEW = 64  # of them: less than a sixty-fourth of all
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 5.0
CLOSE_S = 1.0
TOLD_S = 10.0  # the log has one line of a sandbox's refused streams in this time: programs try hundreds in a second


class Servant(Protocol):
    """Who serves the streams: the gateway."""

    async def serve(self, live: Live, stream: GateStream) -> None:
        """Until the stream is over."""
        ...

    def changed(self, live: Live) -> None:
        """What the sandbox may reach is another than before: what it may not any more is cut."""
        ...

    def ended(self, sandbox_id: str) -> None:
        """Its gates are closed."""
        ...


class Nobody:
    """Streams are cut as they come."""

    async def serve(self, live: Live, stream: GateStream) -> None:
        return

    def changed(self, live: Live) -> None:
        return

    def ended(self, sandbox_id: str) -> None:
        return


@dataclass(slots=True)
class _Watch:
    live: Live
    waiting: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    streams: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    room: asyncio.Condition = field(default_factory=asyncio.Condition)
    refused: int = 0  # streams, since the log was told
    told_at: float = -math.inf


class Gates:
    """`servant` is set by the composition root; nothing of a sandbox outlives `close`."""

    def __init__(
        self,
        runtime: Runtime,
        limits: Limits,
        metrics: Metrics | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.servant: Servant = Nobody()
        self._monotonic = monotonic
        self._runtime = runtime
        self._limits = limits
        self._metrics = (metrics or Metrics()).gateway
        self._watches: dict[str, _Watch] = {}
        self._streams = Counter[str]()  # by owner
        self._ending: set[asyncio.Task[None]] = set()

    def open(self, live: Live) -> None:
        """Wait at the gates of a sandbox that runs; nothing for one that has none, or whose are open."""
        sandbox_id = live.sandbox.id
        if sandbox_id in self._watches or not has_gates(live.sandbox):
            return
        watch = self._watches[sandbox_id] = _Watch(live)
        for _ in range(WAITING):
            # what comes out of it has nothing to do with the request that made it
            task = asyncio.create_task(self._wait(watch), name=f"gates of {sandbox_id}", context=Context())
            watch.waiting.add(task)
            task.add_done_callback(watch.waiting.discard)

    def close(self, sandbox_id: str) -> None:
        """Cut every stream of a sandbox; no error when there are none."""
        watch = self._watches.pop(sandbox_id, None)
        if watch is None:
            return
        self.servant.ended(sandbox_id)
        for task in (*watch.waiting, *watch.streams):
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close_all(self) -> None:
        for sandbox_id in list(self._watches):
            self.close(sandbox_id)
        if self._ending:
            await asyncio.wait(set(self._ending), timeout=CLOSE_S)

    async def _wait(self, watch: _Watch) -> None:
        delay_s = RETRY_FIRST_S
        sandbox_id = watch.live.sandbox.id
        while watch.live.sandbox.state in (SandboxState.RUNNING, SandboxState.STOPPING, SandboxState.SUSPENDING):
            try:
                async with watch.room:
                    await watch.room.wait_for(lambda: self._has_room(watch))
                stream = await self._runtime.accept(sandbox_id)
            except Conflict:
                return  # it was made without any
            except (AtollError, OSError) as error:
                if watch.live.sandbox.state is SandboxState.RUNNING and not watch.live.paused:
                    _log.info("gates.cut", sandbox_id=sandbox_id, error=str(error))
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
                continue
            delay_s = RETRY_FIRST_S
            self._begin(watch, stream)

    def _has_room(self, watch: _Watch) -> bool:
        return len(watch.streams) < self._limits.gate_streams_per_sandbox

    def _begin(self, watch: _Watch, stream: GateStream) -> None:
        owner = watch.live.sandbox.owner
        if not self._has_place(owner):
            self._metrics.refused("streams")
            stream.writer.transport.abort()
            return
        self._streams[owner] += 1
        task = asyncio.create_task(self._answer(watch, stream), name=f"stream of {watch.live.sandbox.id}")
        watch.streams.add(task)

        def over(_task: asyncio.Task[None]) -> None:
            watch.streams.discard(task)
            self._streams.subtract({owner: 1})
            if not self._streams[owner]:
                del self._streams[owner]

        task.add_done_callback(over)

    def _has_place(self, owner: str) -> bool:
        """The last places are for owners that have few: some that take all they may shut nobody out."""
        most = self._limits.gate_streams_max
        left = most - self._streams.total()
        may = self._limits.gate_streams_per_owner if left > most // RESERVED else most // FEW
        return left > 0 and self._streams[owner] < may

    def _tell(self, watch: _Watch, stream: GateStream, error: Exception) -> None:
        watch.refused += 1
        now = self._monotonic()
        if now - watch.told_at < TOLD_S:
            return
        sandbox_id, times = watch.live.sandbox.id, watch.refused
        _log.info("gates.refused", sandbox_id=sandbox_id, gate=stream.gate, error=str(error), times=times)
        watch.refused, watch.told_at = 0, now

    async def _answer(self, watch: _Watch, stream: GateStream) -> None:
        try:
            await self.servant.serve(watch.live, stream)
        except (AtollError, OSError) as error:
            self._tell(watch, stream, error)
        except Exception:
            _log.exception("gates.fault", sandbox_id=watch.live.sandbox.id, gate=stream.gate)
        finally:
            stream.writer.transport.abort()
            task = asyncio.current_task()
            assert task is not None
            watch.streams.discard(task)
            async with watch.room:
                watch.room.notify()


def has_gates(sandbox: Sandbox) -> bool:
    """Whether anything but a port leads out of it to the server."""
    spec = sandbox.spec
    return spec.capability is not None or spec.task is not None or spec.network is NetworkMode.LISTED
