"""FakeSidekick: the sidekick's client without a connection: it acts on a FakeSandbox."""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

from atoll.domain.copied import CopiedEntry, CopyEnd
from atoll.domain.errors import Conflict, NotFound, Unavailable
from atoll.domain.process import MAIN, Exit, FileEntry, ProcessInfo, ProcessSpec, RunResult
from atoll.sidekick.client import ProcessStream, SidekickClient, WatchStream
from atoll.sidekick.protocol import CHUNK_BYTES, STDERR, STDOUT
from atoll.testing.fake_copying import copied
from atoll.testing.fake_host import FakeHost
from atoll.testing.fake_processes import FakeProcess, FakeStream
from atoll.testing.fake_sandbox import FakeSandbox
from atoll.testing.fake_watch import FakeWatch, listening


class FakeSidekick(SidekickClient):
    """Every request touches its sandbox: it is not idle."""

    def __init__(self, host: FakeHost, sandbox_id: str) -> None:  # pyright: ignore[reportMissingSuperCall]
        self._host = host
        self._id = sandbox_id

    async def ping(self) -> dict[str, Any]:
        sandbox = self._sandbox()
        running = sum(1 for process in sandbox.processes.values() if process.exit is None)
        return {"version": 1, "processes": running, "usage": {"cpu_s": 0.001, "memory_peak_bytes": 2**20}}

    async def start(self, spec: ProcessSpec) -> ProcessStream:
        return FakeStream(self._sandbox().start(spec), 0)

    async def attach(self, process_id: str, offset: int = 0) -> ProcessStream:
        return FakeStream(self._process(process_id), offset)

    async def run(self, spec: ProcessSpec, *, stdin: bytes = b"", max_output_bytes: int = 8 * 2**20) -> RunResult:
        stream = await self.start(spec)
        outputs = {STDOUT: bytearray(), STDERR: bytearray()}
        truncated = False
        feeder = asyncio.create_task(_feed(stream, stdin)) if spec.stdin else None
        try:
            async for kind, data in stream:
                room = max_output_bytes - len(outputs[kind])
                outputs[kind] += data[:room]
                truncated = truncated or len(data) > room
        finally:
            if feeder is not None:
                feeder.cancel()
        assert stream.exit is not None
        return RunResult(stream.id, stream.exit, bytes(outputs[STDOUT]), bytes(outputs[STDERR]), truncated)

    async def processes(self) -> list[ProcessInfo]:
        return [process.describe() for process in self._sandbox().processes.values()]

    async def wait(self, process_id: str) -> Exit:
        return await self._process(process_id).ended()

    async def signal(self, process_id: str, signal: int) -> None:
        self._process(process_id).signal(signal)

    async def stop(self, process_id: str, grace_s: float) -> Exit:
        process = self._process(process_id)
        process.stop(grace_s)
        return await process.ended()

    async def stop_all(self, grace_s: float) -> Exit | None:
        processes = list(self._sandbox().processes.values())
        for process in processes:
            process.stop(grace_s)
        for process in processes:
            await process.ended()
        main = self._sandbox().processes.get(MAIN)
        return None if main is None else main.exit

    async def read_file(self, path: str) -> tuple[FileEntry, AsyncIterator[bytes]]:
        entry, content = self._sandbox().files.read(path)
        return entry, _pieces(content)

    async def write_file(self, path: str, chunks: AsyncIterator[bytes], *, mode: int | None = None) -> int:
        self._sandbox().files.check_writable(path)
        content = b"".join([chunk async for chunk in chunks])
        return self._sandbox().files.write(path, content, mode)

    async def list_dir(self, path: str) -> list[FileEntry]:
        return self._sandbox().files.list(path)

    async def stat(self, path: str) -> FileEntry:
        return self._sandbox().files.stat(path)

    async def make_dir(self, path: str) -> None:
        self._sandbox().files.make_dir(path)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        self._sandbox().files.remove(path, recursive=recursive)

    async def move(self, source: str, destination: str) -> None:
        self._sandbox().files.move(source, destination)

    async def dial(self, port: int) -> tuple[StreamReader, StreamWriter]:
        if port not in self._sandbox().listening:
            raise Unavailable(f"nothing listens on port {port}")
        ours, theirs = socket.socketpair()
        self._host.keep(_echo(theirs))
        return await asyncio.open_connection(sock=ours)

    async def touch(self) -> None:
        self._sandbox()

    async def probe(self, port: int) -> tuple[StreamReader, StreamWriter]:
        return await self.dial(port)

    async def watch(self, path: str, ignored: Sequence[str] = ()) -> WatchStream:
        return FakeWatch(lambda: self._host.sandbox(self._id).files, path, ignored)

    async def copy(
        self,
        source: str,
        target: str,
        *,
        ignored: Sequence[str] = (),
        links: Sequence[str] = (),
        again: bool = False,
        look: bool = False,
    ) -> AsyncGenerator[list[CopiedEntry] | CopyEnd, None]:
        made = copied(self._sandbox().files, source, target, ignored, links, look=look)
        yield made
        folders = sum(one.kind == "d" for one in made)
        yield CopyEnd(len(made) - folders, folders)

    async def uncopy(self, target: str, entries: Sequence[CopiedEntry]) -> None:
        for one in entries:
            with suppress(NotFound, Conflict):
                self._sandbox().files.remove(f"{target}/{one.path}", recursive=False)

    async def ports(self) -> AsyncGenerator[list[int], None]:
        async for ports in listening(lambda: self._host.sandbox(self._id).listening):
            yield ports

    def _sandbox(self) -> FakeSandbox:
        sandbox = self._host.sandbox(self._id)
        sandbox.touch()
        return sandbox

    def _process(self, process_id: str) -> FakeProcess:
        process = self._sandbox().processes.get(process_id)
        if process is None:
            raise NotFound(f"process {process_id!r} not found")
        return process


async def _feed(stream: ProcessStream, data: bytes) -> None:
    await stream.write_stdin(data)
    await stream.close_stdin()


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), CHUNK_BYTES):
        yield content[at : at + CHUNK_BYTES]


async def _echo(sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
