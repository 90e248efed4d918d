"""Hubs: what happens in a sandbox, told to all who listen at its sidekick API's WebSocket; `services/daemon` publishes.

A hub lives in memory, as long as somebody listens: events are no record. One listener that is too slow is dropped, and
never stops the others.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from atoll.domain.errors import QuotaExceeded

SOCKETS_MAX = 256  # of one sandbox
CHANNELS_MAX = 256  # of one listener
CHANNEL_CHARACTERS = 256
MESSAGES_MAX, BYTES_MAX = 4_096, 8 * 2**20  # that wait for one listener
OFFSETS_MAX = 256  # of streams whose listener went away
# A client learns a terminal's id from the answer to its request, and only then listens for its event: it is told again
# after these times, and so is who connects meanwhile.
ANNOUNCED_AFTER_S = (0.05, 0.5, 2.0)
HUBS_MAX = 10_000


class Listener:
    """One who listens: the channels that it wants, and the messages that wait for it."""

    def __init__(self, started: Callable[[str], None]) -> None:
        self.channels: set[str] = set()
        self.started = started  # is told of a channel whose command starts now
        self.dropped = False
        self._messages: deque[str] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def offer(self, message: str) -> None:
        """Never waits: whoever is too far behind is dropped."""
        if len(self._messages) >= MESSAGES_MAX or self._bytes >= BYTES_MAX:
            self.dropped = True
            self._messages.clear()
            self._some.set()
            self._room.set()
        self._add(message)

    async def put(self, message: str) -> None:
        """Waits for room: for what its own listener alone gets."""
        await self._room.wait()
        self._add(message)

    async def next(self) -> str | None:
        """The next message; None once it is dropped."""
        while not self._messages and not self.dropped:
            self._some.clear()
            await self._some.wait()
        if self.dropped:
            return None
        message = self._messages.popleft()
        self._bytes -= len(message)
        if self._bytes < BYTES_MAX // 8 and len(self._messages) < MESSAGES_MAX // 8:
            self._room.set()
        return message

    def _add(self, message: str) -> None:
        if self.dropped:
            return
        self._messages.append(message)
        self._bytes += len(message)
        self._some.set()
        if self._bytes >= BYTES_MAX // 4 or len(self._messages) >= MESSAGES_MAX // 4:
            self._room.clear()  # below what `offer` may fill, so that a stream cannot have its own listener dropped


class Hub:
    """The listeners of one sandbox."""

    def __init__(self) -> None:
        self.listeners: set[Listener] = set()
        self._announced: dict[str, str] = {}  # message by channel, while it is still told
        self._left: OrderedDict[str, int] = OrderedDict()

    @contextmanager
    def listening(self, started: Callable[[str], None]) -> Generator[Listener]:
        """A new listener while it is open. QuotaExceeded where there are too many."""
        if len(self.listeners) >= SOCKETS_MAX:
            raise QuotaExceeded(f"this sandbox has {SOCKETS_MAX} event sockets open already", retry_after_s=5)
        listener = Listener(started)
        self.listeners.add(listener)
        for message in self._announced.values():
            for after_s in ANNOUNCED_AFTER_S:
                asyncio.get_running_loop().call_later(after_s, self._tell, listener, message)
        try:
            yield listener
        finally:
            self.listeners.discard(listener)

    def publish(self, type: str, channel: str, data: Any, *, everybody: bool = False) -> None:
        """Tell those who subscribed to the channel, or everybody. Never waits."""
        wanted = [one for one in self.listeners if everybody or channel in one.channels]
        if wanted:
            message = event(type, channel, data)
            for one in wanted:
                one.offer(message)

    def announce(self, type: str, channel: str, data: Any) -> None:
        """Tell everybody of something new, more than once: who asked for it may listen a moment later only."""
        message = event(type, channel, data)
        self._announced[channel] = message
        loop = asyncio.get_running_loop()
        for after_s in ANNOUNCED_AFTER_S:
            loop.call_later(after_s, self._tell_all, message)
        loop.call_later(ANNOUNCED_AFTER_S[-1], self._announced.pop, channel, None)

    def start(self, channel: str) -> None:
        """A command starts now: those who subscribed to its channel begin to follow it."""
        for one in self.listeners:
            if channel in one.channels:
                one.started(channel)

    def leave(self, channel: str, offset: int) -> None:
        """Whoever followed the channel's stream has gone, and has been sent everything before that byte."""
        self._left[channel] = offset
        self._left.move_to_end(channel)
        while len(self._left) > OFFSETS_MAX:
            self._left.popitem(last=False)

    def resumed(self, channel: str) -> int:
        """Where whoever follows it now begins: where the last one that went away was, else with the first byte."""
        return self._left.pop(channel, 0)

    @property
    def idle(self) -> bool:
        return not self.listeners and not self._announced

    def _tell_all(self, message: str) -> None:
        for one in self.listeners:
            one.offer(message)

    def _tell(self, listener: Listener, message: str) -> None:
        if listener in self.listeners:
            listener.offer(message)


class Hubs:
    """The hub of each sandbox."""

    def __init__(self) -> None:
        self._by_sandbox: OrderedDict[str, Hub] = OrderedDict()

    def of(self, sandbox_id: str) -> Hub:
        """Its hub, made when it is first asked for; those that nobody listens at are forgotten in time."""
        hub = self._by_sandbox.get(sandbox_id)
        if hub is None:
            hub = self._by_sandbox[sandbox_id] = Hub()
            if len(self._by_sandbox) > HUBS_MAX:
                self._forget_idle()
        self._by_sandbox.move_to_end(sandbox_id)
        return hub

    def _forget_idle(self) -> None:
        """The half that was used longest ago, so that this is seldom looked for."""
        for sandbox_id in list(self._by_sandbox)[: HUBS_MAX // 2]:
            if self._by_sandbox[sandbox_id].idle:
                del self._by_sandbox[sandbox_id]


def event(type: str, channel: str, data: Any) -> str:
    """A message as it goes over the wire; one without a channel has none."""
    message: dict[str, Any] = {"type": type, "data": data}
    if channel:
        message["channel"] = channel
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)
