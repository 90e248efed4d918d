"""FakeSandbox: one sandbox of a FakeHost: scripted programs, files in a tree, limits that end it, no isolation."""

from __future__ import annotations

import asyncio
import socket
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from pathlib import Path

from atoll.domain.errors import Conflict, InvalidInput, NotFound
from atoll.domain.process import MAIN, ProcessSpec
from atoll.domain.sandbox import NetworkMode, SandboxSpec, Usage
from atoll.sidekick.client import GateStream
from atoll.testing.fake_layers import load_layer
from atoll.testing.fake_processes import FakeProcess
from atoll.testing.fake_programs import Context, program_of, run
from atoll.testing.fake_trees import FakeTrees, TreeFiles

ENDED_KEPT = 32


class FakeSandbox:
    """`end` is called when a limit of its own passes, with the reason."""

    def __init__(
        self, trees: FakeTrees, sandbox_id: str, spec: SandboxSpec, end: Callable[[FakeSandbox, str], None]
    ) -> None:
        self.id = sandbox_id
        self.spec = spec
        self.resources = spec.resources
        self.files = TreeFiles(trees, spec.workspaces)
        self.listening: set[int] = set()
        self.processes: dict[str, FakeProcess] = {}
        self.started = self.last_active = time.monotonic()
        self.cpu_s, self.sent_bytes = 0.001, 0  # what tests say that it used
        self.frozen = False
        self._end = end
        self._count = 0
        self._streams: asyncio.Queue[GateStream] = asyncio.Queue(64)
        self._gone = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        for layer in spec.layers:
            load_layer(self.files, Path(layer))

    def start(self, spec: ProcessSpec, process_id: str | None = None) -> FakeProcess:
        cwd = spec.cwd or self.spec.work_dir
        if not self.files.is_dir(cwd):
            raise InvalidInput(f"cwd {cwd!r}: no such directory", field="cwd")
        if process_id is None:
            self._count += 1
            process_id = f"p{self._count}"
        own = self.spec.given.env if process_id == MAIN else {}
        pid = 0 if program_of(spec.argv) is None else 100 + self._count
        process = FakeProcess(process_id, pid, spec, cwd, {**self.spec.env, **own, **spec.env})
        if self.frozen:
            process.running.clear()
        self.processes[process_id] = process
        ended = [p for p in self.processes.values() if p.exit is not None and p.id != MAIN]
        for old in ended[: max(0, len(ended) - ENDED_KEPT)]:
            del self.processes[old.id]
        context = Context(process, self.files, self.listening)
        process.start(lambda _process: run(context))
        return process

    async def connect(self, gate: str, address: str = "", port: int = 0) -> tuple[StreamReader, StreamWriter]:
        """As a program inside does: the stream that `accept` gives to the server."""
        ours, theirs = socket.socketpair()
        self._streams.put_nowait(GateStream(gate, address, port, *await asyncio.open_connection(sock=theirs)))
        return await asyncio.open_connection(sock=ours)

    async def accept(self) -> GateStream:
        spec = self.spec
        if spec.capability is None and spec.task is None and spec.network is not NetworkMode.LISTED:
            raise Conflict("this sandbox has no gate")
        taken, gone = asyncio.create_task(self._streams.get()), asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait((taken, gone), return_when=asyncio.FIRST_COMPLETED)
            if taken.done():
                return taken.result()
            raise NotFound(f"sandbox {self.id} has ended")
        finally:
            for task in (taken, gone):
                task.cancel()

    def touch(self) -> None:
        """A request came: it is not idle."""
        self.last_active = time.monotonic()

    def watch_deadline(self) -> None:
        """End it when its first limit passes."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        now = time.monotonic()
        limits = self.resources
        due = [
            (after_s - (now - since), reason)
            for after_s, since, reason in (
                (limits.timeout_s, self.started, "timeout"),
                (limits.idle_s, self._idle_since(now), "idle"),
                (limits.max_age_s, self.started, "max_age"),
            )
            if after_s is not None
        ]
        if not due:
            return
        left_s, reason = min(due)
        loop = asyncio.get_running_loop()
        if left_s <= 0:
            self._end(self, reason)
        else:
            self._deadline = loop.call_later(min(left_s, 0.05) + 0.001, self.watch_deadline)

    def freeze(self, frozen: bool) -> None:
        self.frozen = frozen
        for process in self.processes.values():
            process.running.clear() if frozen else process.running.set()

    def usage(self) -> Usage:
        elapsed_s = time.monotonic() - self.started
        return Usage(elapsed_s, cpu_s=self.cpu_s, memory_peak_bytes=2**20, sent_bytes=self.sent_bytes)

    def trees_in_use(self) -> set[str]:
        """Those that are mounted in it, and those that its processes have kept since a swap."""
        for process_id in set(self.files.kept) - {p.id for p in self.processes.values() if p.exit is None}:
            del self.files.kept[process_id]
        return {*self.files.kept.values(), *(mount.tree_id for mount in self.files.mounts)}

    async def vanish(self) -> None:
        self._gone.set()
        if self._deadline is not None:
            self._deadline.cancel()
        await asyncio.gather(*(process.vanish() for process in self.processes.values()))

    def _idle_since(self, now: float) -> float:
        serves = bool(self.spec.ports)  # then the main process waits for others
        started = [process for process in self.processes.values() if process.id != MAIN or not serves]
        return now if any(process.exit is None for process in started) else self.last_active
