"""Runtimes that misbehave, each in one named way, over the fake: tests hold the services to their deadlines with them.

Slow answers late, Never not at all, Bad with faults that are no errors of ours, SlowBad late and wrong, Lying says that
sandboxes exist which do not, Vanishing loses them without a word.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Collection
from typing import Any

from atoll.domain.sandbox import Resources, SandboxSpec, Usage
from atoll.runtimes.base import Ended, Found, Handle
from atoll.sidekick.client import SidekickClient
from atoll.testing.fake_runtime import FakeHost, FakeRuntime

CALLS = frozenset(
    {"make", "find", "list", "destroy", "dial", "set_deadline", "stats", "pause", "resume", "bake", "inside"}
)


class Fault(Exception):
    """What a broken runtime raises: none of our errors."""


class Misbehaving(FakeRuntime):
    """A FakeRuntime that calls `trouble` before each of `calls` ("inside": everything that a sidekick is asked)."""

    def __init__(self, host: FakeHost | None = None, *, calls: Collection[str] = CALLS) -> None:
        super().__init__(host)
        self.calls = frozenset(calls)

    async def trouble(self, call: str) -> None:
        """Misbehave, or return to behave."""

    async def _before(self, call: str) -> None:
        if call in self.calls:
            await self.trouble(call)

    async def make(self, sandbox_id: str, spec: SandboxSpec) -> Handle:
        await self._before("make")
        return await super().make(sandbox_id, spec)

    async def find(self, sandbox_id: str) -> Found | None:
        await self._before("find")
        return await super().find(sandbox_id)

    async def list(self) -> list[Found]:
        await self._before("list")
        return await super().list()

    async def destroy(self, sandbox_id: str) -> Usage | None:
        await self._before("destroy")
        return await super().destroy(sandbox_id)

    async def dial(self, sandbox_id: str, port: int) -> tuple[StreamReader, StreamWriter]:
        await self._before("dial")
        return await super().dial(sandbox_id, port)

    async def set_deadline(self, sandbox_id: str, resources: Resources) -> None:
        await self._before("set_deadline")
        await super().set_deadline(sandbox_id, resources)

    async def stats(self, sandbox_id: str) -> Usage:
        await self._before("stats")
        return await super().stats(sandbox_id)

    async def pause(self, sandbox_id: str) -> None:
        await self._before("pause")
        await super().pause(sandbox_id)

    async def resume(self, sandbox_id: str) -> None:
        await self._before("resume")
        await super().resume(sandbox_id)

    async def bake(self, sandbox_id: str, destination: str) -> None:
        await self._before("bake")
        await super().bake(sandbox_id, destination)

    def sidekick(self, sandbox_id: str) -> SidekickClient:
        inner = super().sidekick(sandbox_id)
        return _Troubled(inner, self) if "inside" in self.calls else inner


class _Troubled(SidekickClient):
    """A sidekick's client whose every call goes through its runtime's trouble."""

    def __init__(self, inner: SidekickClient, runtime: Misbehaving) -> None:  # pyright: ignore[reportMissingSuperCall]
        self._inner = inner
        self._runtime = runtime

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        inner, runtime = self._inner, self._runtime

        async def call(*args: Any, **kwargs: Any) -> Any:
            await runtime.trouble("inside")
            return await getattr(inner, name)(*args, **kwargs)

        return call


class SlowRuntime(Misbehaving):
    """Every call takes `slow_s` longer."""

    slow_s = 0.1

    async def trouble(self, call: str) -> None:
        await asyncio.sleep(self.slow_s)


class NeverRuntime(Misbehaving):
    """Calls never return."""

    async def trouble(self, call: str) -> None:
        await asyncio.Event().wait()


class BadRuntime(Misbehaving):
    """Calls fail with something that is no error of ours."""

    async def trouble(self, call: str) -> None:
        raise Fault(f"{call} broke")


class SlowBadRuntime(Misbehaving):
    """Calls do what they should, late, and fail all the same: nobody can tell what was done."""

    slow_s = 0.1

    async def make(self, sandbox_id: str, spec: SandboxSpec) -> Handle:
        await super().make(sandbox_id, spec)
        raise Fault("make broke after the fact")

    async def trouble(self, call: str) -> None:
        await asyncio.sleep(self.slow_s)
        if call != "make":
            raise Fault(f"{call} broke")


class LyingRuntime(FakeRuntime):
    """Says that every sandbox it ever made still runs; nothing answers in those that do not."""

    def __init__(self, host: FakeHost | None = None) -> None:
        super().__init__(host)
        self.claimed: dict[str, Handle] = {}

    async def make(self, sandbox_id: str, spec: SandboxSpec) -> Handle:
        self.claimed[sandbox_id] = await super().make(sandbox_id, spec)
        return self.claimed[sandbox_id]

    async def find(self, sandbox_id: str) -> Found | None:
        handle = self.claimed.get(sandbox_id)
        return None if handle is None else Found(sandbox_id, handle)

    async def list(self) -> list[Found]:
        return [Found(sandbox_id, handle) for sandbox_id, handle in self.claimed.items()]

    async def lose(self, sandbox_id: str) -> None:
        """It is gone, and nobody says so."""
        sandbox = self.host.sandboxes.pop(sandbox_id)
        await sandbox.vanish()

    async def events(self) -> AsyncIterator[Ended]:
        await asyncio.Event().wait()
        yield Ended("", "")


class VanishingRuntime(FakeRuntime):
    """Loses sandboxes `vanish_s` after they were made, without an event."""

    def __init__(self, host: FakeHost | None = None, *, vanish_s: float = 0.05) -> None:
        super().__init__(host)
        self.vanish_s = vanish_s

    async def make(self, sandbox_id: str, spec: SandboxSpec) -> Handle:
        handle = await super().make(sandbox_id, spec)
        self.host.keep(self._vanish(sandbox_id))
        return handle

    async def _vanish(self, sandbox_id: str) -> None:
        await asyncio.sleep(self.vanish_s)
        sandbox = self.host.sandboxes.pop(sandbox_id, None)
        if sandbox is not None:
            await sandbox.vanish()


__all__ = [
    "BadRuntime",
    "Fault",
    "LyingRuntime",
    "Misbehaving",
    "NeverRuntime",
    "SlowBadRuntime",
    "SlowRuntime",
    "VanishingRuntime",
]
