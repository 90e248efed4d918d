"""Listeners: each exposed port of a live sandbox is a real TCP listener on 127.0.0.1.

Makings and watching open them, endings close them."""

from __future__ import annotations

import asyncio
import time
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import structlog

from atoll.domain.errors import AtollError, Unavailable
from atoll.domain.sandbox import Port, Sandbox
from atoll.runtimes.base import Runtime
from atoll.services.deadline import deadline
from atoll.services.joining import HELD_BYTES, Stream, join
from atoll.services.limits import Limits

_log = structlog.get_logger()

HOST = "127.0.0.1"
CLOSE_S = 1.0
RETRY_S = 0.05


@dataclass(slots=True)
class _Door:
    """The listeners of one sandbox and the connections that came through them."""

    key: str  # whose sandbox it is
    servers: list[asyncio.Server] = field(default_factory=list[asyncio.Server])
    streams: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    patient_until: float = 0.0  # on the monotonic clock: until then its main process may yet begin to listen


class Listeners:
    """By sandbox; nothing outlives `close`."""

    def __init__(self, runtime: Runtime, limits: Limits, wake: Callable[[str], Awaitable[None]] | None = None) -> None:
        """`wake` makes a sandbox again that is suspended."""
        self._runtime = runtime
        self._wake = wake
        self._limits = limits
        self._doors: dict[str, _Door] = {}
        self._streams = Counter[str]()  # by key

    def has(self, sandbox_id: str) -> bool:
        return sandbox_id in self._doors

    async def open(self, sandbox: Sandbox, ports: tuple[Port, ...]) -> tuple[Port, ...]:
        """The ports with their `host_port`: the one they had, when it is still free. Unavailable when none is."""
        if not ports:
            return ()
        door = self._doors.setdefault(sandbox.id, _Door(sandbox.owner))
        opened: list[Port] = []
        try:
            for port in ports:
                server = await self._listen(sandbox.id, port, door)
                door.servers.append(server)
                opened.append(replace(port, host_port=server.sockets[0].getsockname()[1]))
        except OSError as error:
            await self.close(sandbox.id)
            raise Unavailable(f"no port of this machine is free: {error.strerror}") from error
        return tuple(opened)

    async def close(self, sandbox_id: str) -> None:
        """Close its listeners and cut what came through them; no error when there are none."""
        door = self._doors.pop(sandbox_id, None)
        if door is None:
            return
        for server in door.servers:
            server.close()
        for task in door.streams:
            task.cancel()
        if door.streams:
            await asyncio.wait(door.streams, timeout=CLOSE_S)

    async def close_all(self) -> None:
        for sandbox_id in list(self._doors):
            await self.close(sandbox_id)

    def woken(self, sandbox_id: str) -> None:
        """It was made again just now: whoever connects waits up to `wake_port_s` for its main process to listen."""
        door = self._doors.get(sandbox_id)
        if door is not None:
            door.patient_until = time.monotonic() + self._limits.wake_port_s

    async def _listen(self, sandbox_id: str, port: Port, door: _Door) -> asyncio.Server:
        async def accepted(reader: StreamReader, writer: StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            door.streams.add(task)
            self._streams[door.key] += 1
            try:
                if self._has_room(door):
                    await self._join(sandbox_id, port.container, Stream(reader, writer))
            except asyncio.CancelledError:
                pass  # the sandbox ended: cutting the connection is the answer
            finally:
                writer.transport.abort()
                door.streams.discard(task)
                self._streams -= Counter({door.key: 1})  # which forgets a key that has none

        if port.host_port is not None:
            try:
                return await asyncio.start_server(accepted, HOST, port.host_port, limit=HELD_BYTES)
            except OSError:
                pass  # somebody took it while the server was down
        return await asyncio.start_server(accepted, HOST, 0, limit=HELD_BYTES)

    def _has_room(self, door: _Door) -> bool:
        """For what came last, which is counted already."""
        limits = self._limits
        return (
            len(door.streams) <= limits.tcp_streams_per_sandbox
            and self._streams[door.key] <= limits.tcp_streams_per_key
            and self._streams.total() <= limits.tcp_streams_max
        )

    async def _join(self, sandbox_id: str, port: int, client: Stream) -> None:
        try:
            if self._wake is not None:
                await self._wake(sandbox_id)
            inner = await self._dial(sandbox_id, port)
        except (AtollError, OSError) as error:
            _log.info("port.refused", sandbox_id=sandbox_id, port=port, error=str(error))
            return
        await join(client, inner, half_closed_s=self._limits.half_closed_s)

    async def _dial(self, sandbox_id: str, port: int) -> Stream:
        """Of one that was woken just now it is no error that nothing listens yet."""
        while True:
            try:
                async with deadline(self._limits.call_s, "reaching the port"):
                    return Stream(*await self._runtime.dial(sandbox_id, port))
            except Unavailable:
                door = self._doors.get(sandbox_id)
                if door is None or time.monotonic() >= door.patient_until:
                    raise
            await asyncio.sleep(RETRY_S)
