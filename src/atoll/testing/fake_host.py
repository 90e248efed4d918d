"""FakeHost: the machine of fake runtimes, which find there what others made, as after a restart of the server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from atoll.domain.errors import NotFound
from atoll.domain.sandbox import SandboxSpec
from atoll.runtimes.base import Ended
from atoll.testing.fake_sandbox import FakeSandbox
from atoll.testing.fake_trees import FakeTrees

EVENTS_MAX = 10_000


class FakeHost:
    """The machine: sandboxes outlive the runtimes that made them, and so do ends that nobody has heard of."""

    def __init__(self, boot_id: str = "boot-1") -> None:
        self.boot_id = boot_id
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.trees = FakeTrees()
        self.events: deque[Ended] = deque(maxlen=EVENTS_MAX)
        self.event_added = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def make(self, sandbox_id: str, spec: SandboxSpec) -> FakeSandbox:
        """A new one; nothing runs in it yet."""
        sandbox = self.sandboxes[sandbox_id] = FakeSandbox(self.trees, sandbox_id, spec, self.end)
        return sandbox

    def sandbox(self, sandbox_id: str) -> FakeSandbox:
        """NotFound when it has ended."""
        found = self.sandboxes.get(sandbox_id)
        if found is None:
            raise NotFound("the sandbox has ended")
        return found

    def end(self, sandbox: FakeSandbox, reason: str) -> None:
        """It ends by itself; whoever listens hears of it once."""
        if self.sandboxes.pop(sandbox.id, None) is None:
            return
        self.events.append(Ended(sandbox.id, reason, sandbox.usage()))
        self.event_added.set()
        self.keep(sandbox.vanish())

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside; the task is kept from the garbage collector."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reboot(self) -> None:
        """Everything but the disk is gone, and nothing says so."""
        self.trees.end_keepers()
        gone, self.sandboxes = list(self.sandboxes.values()), {}
        self.events.clear()
        self.boot_id += "'"
        await asyncio.gather(*(sandbox.vanish() for sandbox in gone))
