"""The async client of one sidekick: processes, files and ports of one sandbox; services and gateway use it.

Every call opens one connection through the runtime's connector, so calls never wait for each other.
"""

from __future__ import annotations

import asyncio
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from atoll.domain import errors
from atoll.domain.copied import CopiedEntry, CopyEnd
from atoll.domain.file_change import FileChange
from atoll.domain.process import Exit, FileEntry, ProcessInfo, ProcessSpec, RunResult
from atoll.sidekick import answers
from atoll.sidekick import protocol as wire

Connector = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]

ANSWER_S = 15.0  # a sidekick answers everything but waiting within this
WATCH_S = 60.0  # looking through a large tree
STALL_S = 120.0  # a file transfer that moves nothing for so long is given up
CLOSE_S = 1.0


class Link:
    """One connection: frames out, frames in."""

    def __init__(self, reader: StreamReader, writer: StreamWriter, *, gone: str = "the sandbox has ended") -> None:
        self.reader = reader
        self.writer = writer
        self._gone = gone

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Ignored when the sidekick has hung up: reading tells how."""
        if not self.writer.is_closing():
            self.writer.write(wire.frame(kind, payload))

    async def read(self) -> tuple[int, bytes]:
        """The next frame; NotFound when the sidekick is gone, the error that an ERROR frame tells."""
        try:
            kind, size = wire.HEADER.unpack(await self.reader.readexactly(wire.HEADER.size))
            if size > wire.MAX_FRAME_BYTES:  # it runs where the tenant is: no trust in what it says
                raise answers.nonsense(f"a frame of {size} bytes")
            payload = await self.reader.readexactly(size) if size else b""
        except (IncompleteReadError, ConnectionError):
            raise errors.NotFound(self._gone) from None
        if kind == wire.ERROR:
            raise answers.error_of(answers.parsed(payload))
        return kind, payload

    async def result(self, timeout_s: float | None = ANSWER_S) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                kind, payload = await self.read()
        except TimeoutError:
            raise errors.DeadlineExceeded("the sandbox did not answer in time") from None
        if kind != wire.RESULT:
            raise answers.nonsense(f"frame {kind:#x}")
        return answers.parsed(payload)

    def leave(self) -> None:
        """Close it now. What is not sent yet is dropped: whoever leaves then was cut short, and nobody may read it."""
        if self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()
        else:
            self.writer.close()

    async def close(self) -> None:
        self.writer.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.writer.wait_closed()
        except TimeoutError:
            self.writer.transport.abort()  # what nobody reads would hold it open
            await asyncio.sleep(0)  # in which it goes
        except OSError:
            pass


@dataclass(frozen=True, slots=True)
class GateStream:
    """What a program inside has sent to a gate: bytes both ways. `address` and `port` are where it meant to go, as the
    sidekick says, which runs where the tenant is."""

    gate: str  # api, model, out or dns: of sidekick/gates.py
    address: str
    port: int
    reader: StreamReader
    writer: StreamWriter


class ProcessStream:
    """One client's view of a process: output from an offset on, and a way to its stdin. Closing it only detaches."""

    def __init__(self, link: Link, process_id: str, pid: int, offset: int) -> None:
        self._link = link
        self.id = process_id
        self.pid = pid  # 0: there was no program to start
        self.offset = offset  # of the next output byte; stdout and stderr counted together, in order of arrival
        self.first_offset = offset  # where the replay really started: more than asked for when the ring moved on
        self.exit: Exit | None = None  # set once iteration has ended

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        """(STDOUT or STDERR, bytes) until the process has ended and all its output was yielded."""
        while self.exit is None:
            kind, payload = await self._link.read()
            if kind == wire.EXIT:
                self.exit = answers.exit_of(answers.parsed(payload))
                return
            if kind not in (wire.STDOUT, wire.STDERR):
                raise answers.nonsense(f"frame {kind:#x}")
            self.offset += len(payload)
            yield kind, payload

    async def write_stdin(self, data: bytes) -> None:
        """Returns once the bytes are on their way (backpressure); ignored when the process has no open stdin."""
        for at in range(0, len(data), wire.CHUNK_BYTES):
            self._link.send(wire.STDIN, data[at : at + wire.CHUNK_BYTES])
            await self._drain()

    async def close_stdin(self) -> None:
        self._link.send(wire.STDIN_CLOSE)
        await self._drain()

    async def resize(self, cols: int, rows: int) -> None:
        """Ignored for a process without a PTY."""
        self._link.send(wire.RESIZE, wire.SIZE.pack(cols & 0xFFFF, rows & 0xFFFF))
        await self._drain()

    async def close(self) -> None:
        """Detach; the process goes on. A second call does nothing."""
        await self._link.close()

    async def _drain(self) -> None:
        try:
            await self._link.writer.drain()
        except ConnectionError:
            pass  # it has ended: reading tells how


class WatchStream:
    """What changes below a folder, in pieces, from `watch` on. Close it."""

    def __init__(self, link: Link, path: str, kind: str) -> None:
        self._link = link
        self.path = path
        self.kind = kind  # directory or file

    async def __aiter__(self) -> AsyncIterator[list[FileChange]]:
        """NotFound when the sandbox has ended."""
        while True:
            yield answers.changes_of(await self._link.result(timeout_s=None))

    async def close(self) -> None:
        await self._link.close()


class SidekickClient:
    """Calls raise NotFound (sandbox, process or file gone), InvalidInput (field named), Conflict, DeadlineExceeded."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def ping(self) -> dict[str, Any]:
        """`{"version", "processes", "usage": {"cpu_s", "memory_peak_bytes"}}`."""
        return answers.fields_of(await self._ask("ping"))

    async def start(self, spec: ProcessSpec) -> ProcessStream:
        """Start a process and attach to it. InvalidInput for a bad cwd; a missing program ends with 127, one that is
        not executable with 126, and a line on stderr."""
        return await self._stream(
            {
                "op": "start",
                "argv": spec.argv,
                "env": spec.env,
                "cwd": spec.cwd,
                "tty": spec.tty,
                "cols": spec.cols,
                "rows": spec.rows,
                "stdin": spec.stdin,
                "timeout_s": spec.timeout_s,
                "label": spec.label,
                "serves": spec.serves,
            }
        )

    async def attach(self, process_id: str, offset: int = 0) -> ProcessStream:
        """Replay the ring from `offset`, then follow. Works for ended processes too."""
        return await self._stream({"op": "attach", "process": process_id, "offset": offset})

    async def run(self, spec: ProcessSpec, *, stdin: bytes = b"", max_output_bytes: int = 8 * 2**20) -> RunResult:
        """Start, feed stdin, collect up to `max_output_bytes` of each stream, and wait for the end."""
        stream = await self.start(spec)
        feeder = asyncio.create_task(_feed(stream, stdin)) if spec.stdin else None
        collected = {wire.STDOUT: bytearray(), wire.STDERR: bytearray()}
        truncated = False
        try:
            async for kind, data in stream:
                kept = collected[kind]
                room = max_output_bytes - len(kept)
                kept += data[:room]
                truncated = truncated or len(data) > room
            assert stream.exit is not None
            return RunResult(
                stream.id,
                stream.exit,
                bytes(collected[wire.STDOUT]),
                bytes(collected[wire.STDERR]),
                truncated,
            )
        finally:
            if feeder is not None:
                feeder.cancel()
            await stream.close()

    async def processes(self) -> list[ProcessInfo]:
        """Running ones and those that ended lately."""
        found: list[ProcessInfo] = []
        async with self._link({"op": "processes"}) as link:
            while piece := answers.processes_of(await link.result()):
                found += piece
                if len(found) > answers.PROCESSES_MAX:
                    raise answers.nonsense("more processes than there can be")
        return found

    async def wait(self, process_id: str) -> Exit:
        """Returns when the process has ended, however long that takes."""
        return answers.exit_of(await self._ask("wait", timeout_s=None, process=process_id))

    async def signal(self, process_id: str, signal: int) -> None:
        """Send a signal to its process group. Conflict when it has ended."""
        await self._ask("signal", process=process_id, signal=signal)

    async def stop(self, process_id: str, grace_s: float) -> Exit:
        """TERM to the whole tree, wait up to `grace_s`, KILL."""
        answer = await self._ask("stop", timeout_s=grace_s + ANSWER_S, process=process_id, grace_s=grace_s)
        return answers.exit_of(answer)

    async def stop_all(self, grace_s: float) -> Exit | None:
        """The same for everything that runs in the sandbox; returns when all has ended, with the main process's end."""
        answer = await self._ask("stop", timeout_s=grace_s + ANSWER_S, grace_s=grace_s)
        main = answers.fields_of(answer).get("main")
        return None if main is None else answers.exit_of(main)

    async def read_file(self, path: str) -> tuple[FileEntry, AsyncIterator[bytes]]:
        """A regular file's entry and its bytes, in order. InvalidInput for anything that is not a regular file.

        Iterate to the end, or close the iterator (`aclose`): it holds the connection.
        """
        link = await self._open({"op": "read", "path": path})
        try:
            entry = answers.entry_of(await link.result())
        except BaseException:
            await link.close()
            raise
        return entry, _contents(link)

    async def write_file(self, path: str, chunks: AsyncIterator[bytes], *, mode: int | None = None) -> int:
        """Replace the file in one step (old or new, never torn); parents are made. Returns its size."""
        async with self._link({"op": "write", "path": path, "mode": mode}) as link:
            answer = asyncio.create_task(link.result(timeout_s=None))
            try:
                async for chunk in chunks:
                    if answer.done():
                        break  # refused: the rest is of no use
                    for at in range(0, len(chunk), wire.MAX_FRAME_BYTES):
                        link.send(wire.DATA, chunk[at : at + wire.MAX_FRAME_BYTES])
                    await _drain(link)
                else:
                    link.send(wire.END)
                async with asyncio.timeout(STALL_S):
                    return answers.size_of(await answer)
            except TimeoutError:
                raise errors.DeadlineExceeded("the file transfer stalled") from None
            finally:
                answer.cancel()

    async def list_dir(self, path: str) -> list[FileEntry]:
        """Sorted by name."""
        entries: list[FileEntry] = []
        async with self._link({"op": "list", "path": path}) as link:
            while piece := answers.entries_of(await link.result()):
                entries += piece
                if len(entries) > answers.ENTRIES_MAX:
                    raise answers.nonsense("more entries than it tells of")
        return entries

    async def stat(self, path: str) -> FileEntry:
        return answers.entry_of(await self._ask("stat", path=path))

    async def make_dir(self, path: str) -> None:
        """With parents; no error when it exists."""
        await self._ask("make_dir", path=path)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        await self._ask("remove", timeout_s=STALL_S, path=path, recursive=recursive)

    async def move(self, source: str, destination: str) -> None:
        """Within one file system; the destination's parents are made, a file there is replaced."""
        async with self._link({"op": "move", "from": source, "to": destination}) as link:
            await link.result()

    async def dial(self, port: int) -> tuple[StreamReader, StreamWriter]:
        """A byte stream to 127.0.0.1:port inside. Unavailable when nothing listens."""
        return await self._connected("dial", port)

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
        """Copy what is in a folder into another one: what was made, in pieces, then the end. Nothing that is there is
        replaced; folders called as in `links` become links to the source's. `again` after a copy that broke off;
        `look` makes nothing, and tells what such a copy has made that is still as it was. Leaving the iterator ends it.
        NotFound, InvalidInput `target` inside the source, TooLarge."""
        request = {"op": "copy", "source": source, "target": target, "ignored": list(ignored), "links": list(links)}
        async with self._link(request | {"again": again, "look": look}) as link:
            while True:
                told = answers.copied(await link.result(STALL_S))
                yield told
                if isinstance(told, CopyEnd):
                    return

    async def uncopy(self, target: str, entries: Sequence[CopiedEntry]) -> None:
        """Take away what `copy` made, in this order, at most 500 at once; what has changed since stays."""
        told = [[one.kind, one.path, one.size, one.modified_ns] for one in entries]
        await self._ask("uncopy", timeout_s=STALL_S, target=target, entries=told)

    async def probe(self, port: int) -> tuple[StreamReader, StreamWriter]:
        """As `dial`, for who only looks whether something is well: it does not count as a use of the sandbox."""
        return await self._connected("probe", port)

    async def watch(self, path: str, ignored: Sequence[str] = ()) -> WatchStream:
        """Follow what changes below a folder, or of one file. NotFound, TooLarge (more than one watch holds),
        Unavailable (too many watches), InvalidInput `ignored`."""
        link = await self._open({"op": "watch", "path": path, "ignored": list(ignored)})
        try:
            return WatchStream(link, *answers.watched(await link.result(WATCH_S)))
        except BaseException:
            await link.close()
            raise

    async def ports(self) -> AsyncGenerator[list[int], None]:
        """The ports that something listens on, now and after each change, until the sandbox ends; close it."""
        async with self._link({"op": "ports"}) as link:
            while True:
                yield answers.ports_of(await link.result(timeout_s=None))

    async def touch(self) -> None:
        """It is in use: its idle time begins anew."""
        await self._ask("touch")

    async def accept(self) -> GateStream:
        """Wait at the sandbox's gates, however long, for the next program that connects or asks for a name there.

        Conflict when it has none, Unavailable when too many wait already.
        """
        link = await self._open({"op": "accept"})
        try:
            gate, address, port = answers.accepted(await link.result(timeout_s=None))
        except BaseException:
            await link.close()
            raise
        return GateStream(gate, address, port, link.reader, link.writer)

    async def _connected(self, op: str, port: int) -> tuple[StreamReader, StreamWriter]:
        link = await self._open({"op": op, "port": port})
        try:
            await link.result()
        except BaseException:
            await link.close()
            raise
        return link.reader, link.writer

    async def _open(self, request: dict[str, Any]) -> Link:
        reader, writer = await self._connector()
        writer.write(wire.json_frame(wire.REQUEST, request))
        return Link(reader, writer)

    @asynccontextmanager
    async def _link(self, request: dict[str, Any]) -> AsyncGenerator[Link, None]:
        link = await self._open(request)
        try:
            yield link
        finally:
            link.leave()

    async def _ask(self, op: str, *, timeout_s: float | None = ANSWER_S, **fields: Any) -> Any:
        async with self._link({"op": op, **fields}) as link:
            return await link.result(timeout_s)

    async def _stream(self, request: dict[str, Any]) -> ProcessStream:
        link = await self._open(request)
        try:
            return ProcessStream(link, *answers.started(await link.result()))
        except BaseException:
            await link.close()
            raise


async def _contents(link: Link) -> AsyncIterator[bytes]:
    try:
        while True:
            async with asyncio.timeout(STALL_S):
                kind, payload = await link.read()
            if kind == wire.END:
                return
            if kind != wire.DATA:
                raise answers.nonsense(f"frame {kind:#x}")
            yield payload
    except TimeoutError:
        raise errors.DeadlineExceeded("the file transfer stalled") from None
    finally:
        link.leave()


async def _drain(link: Link) -> None:
    try:
        async with asyncio.timeout(STALL_S):
            await link.writer.drain()
    except ConnectionError:
        pass  # the answer tells why


async def _feed(stream: ProcessStream, data: bytes) -> None:
    await stream.write_stdin(data)
    await stream.close_stdin()
