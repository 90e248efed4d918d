"""What the groups of the runtime suite share: the runtime under test, sandboxes made in it, and words for waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ClassVar

import pytest

from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import ProcessSpec, RunResult
from atoll.domain.sandbox import SandboxSpec
from atoll.runtimes.base import Capability, Ended, Runtime
from atoll.sidekick.client import ProcessStream, SidekickClient

Machine = Callable[[], Runtime]
PATIENCE_S = 10.0


class Suite:
    """`features`: "shell" is a whole POSIX shell with jobs, pipes and loops; "proc" is a /proc to count in."""

    features: ClassVar[frozenset[str]] = frozenset({"shell", "proc"})

    @pytest.fixture
    def machine(self) -> Machine:
        """A new runtime object on the same machine, each time it is called."""
        raise NotImplementedError

    @pytest.fixture
    async def runtime(self, machine: Machine) -> AsyncIterator[Runtime]:
        """Started; at the end everything that it made is destroyed."""
        runtime = machine()
        await runtime.start()
        try:
            yield runtime
        finally:
            await runtime.shutdown()

    @pytest.fixture
    async def sandbox_id(self, runtime: Runtime) -> str:
        """A sandbox without a main process."""
        return await made(runtime)

    @pytest.fixture
    def inside(self, runtime: Runtime, sandbox_id: str) -> SidekickClient:
        """The sidekick of `sandbox_id`."""
        return runtime.sidekick(sandbox_id)

    def flood_argv(self, size: int) -> tuple[str, ...]:
        """A command that writes `size` bytes to stdout."""
        return ("sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x")

    def echo_server_argv(self, port: int) -> tuple[str, ...]:
        """A command that prints a line once it listens on 127.0.0.1:port, then echoes every connection's bytes."""
        script = (
            "import socketserver as s\n"
            "class H(s.StreamRequestHandler):\n"
            "    def handle(self):\n"
            "        while d := self.request.recv(65536): self.request.sendall(d)\n"
            "class S(s.ThreadingTCPServer): allow_reuse_address = True\n"
            f"v = S(('127.0.0.1', {port}), H)\n"
            "print('listening', flush=True)\n"
            "v.serve_forever()"
        )
        return ("python3", "-c", script)

    def need(self, *features: str) -> None:
        missing = set(features) - self.features
        if missing:
            pytest.skip(f"this runtime has no {', '.join(sorted(missing))}")


async def made(runtime: Runtime, spec: SandboxSpec | None = None) -> str:
    """A new sandbox's id."""
    sandbox_id = new_sandbox_id()
    await runtime.make(sandbox_id, spec or SandboxSpec())
    return sandbox_id


def able(runtime: Runtime, capability: Capability) -> None:
    if capability not in runtime.capabilities:
        pytest.skip(f"this runtime does not declare {capability}")


async def sh(inside: SidekickClient, script: str, **fields: object) -> RunResult:
    """Run a shell script."""
    stdin = fields.pop("stdin_bytes", b"")
    assert isinstance(stdin, bytes)
    spec = ProcessSpec(("sh", "-c", script), stdin=bool(stdin), **fields)  # type: ignore[arg-type]
    async with asyncio.timeout(PATIENCE_S):
        return await inside.run(spec, stdin=stdin)


async def read_until(stream: ProcessStream, wanted: bytes) -> bytes:
    """Output up to and including `wanted`."""
    seen = b""
    async with asyncio.timeout(PATIENCE_S):
        async for _, data in stream:
            seen += data
            if wanted in seen:
                return seen
    raise AssertionError(f"{wanted!r} is not in {seen!r}")


async def read_all(stream: ProcessStream) -> bytes:
    """All output until the process has ended."""
    async with asyncio.timeout(PATIENCE_S):
        return b"".join([data async for _, data in stream])


async def next_event(runtime: Runtime, within_s: float = PATIENCE_S) -> Ended | None:
    """The next sandbox that ended by itself; None when none did in time."""
    events = runtime.events()
    try:
        async with asyncio.timeout(within_s):
            async for ended in events:
                return ended
    except TimeoutError:
        pass
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
    return None


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def content(inside: SidekickClient, path: str) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        _, pieces = await inside.read_file(path)
        return b"".join([piece async for piece in pieces])
