"""The async client of one sidekick: processes, files and ports of one sandbox; services and gateway use it.

Every call opens one connection through the runtime's connector, so calls never wait for each other.
"""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from atoll.domain.process import Exit, FileEntry, ProcessInfo, ProcessSpec, RunResult

Connector = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]


class ProcessStream:
    """One client's view of a process: output from an offset on, and a way to its stdin. Closing it only detaches."""

    id: str
    offset: int  # of the next output byte; stdout and stderr counted together, in order of arrival
    first_offset: int  # where the replay really started: above what was asked for when the ring had moved on
    exit: Exit | None  # set once iteration has ended

    def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        """(STDOUT or STDERR, bytes) until the process has ended and all its output was yielded."""
        ...

    async def write_stdin(self, data: bytes) -> None:
        """Returns once the bytes are on their way (backpressure); ignored when the process has no open stdin."""

    async def close_stdin(self) -> None: ...

    async def resize(self, cols: int, rows: int) -> None:
        """Ignored for a process without a PTY."""

    async def close(self) -> None:
        """Detach; the process goes on. A second call does nothing."""


class SidekickClient:
    """Calls raise NotFound (sandbox, process or file gone), InvalidInput (field named), Conflict, DeadlineExceeded."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def ping(self) -> dict[str, Any]:
        """`{"version", "idle_s", "processes"}`."""
        ...

    async def start(self, spec: ProcessSpec) -> ProcessStream:
        """Start a process and attach to it. InvalidInput for a bad cwd; a missing program ends with 127, 126 if not
        executable, and a line on stderr."""
        ...

    async def attach(self, process_id: str, offset: int = 0) -> ProcessStream:
        """Replay the ring from `offset`, then follow. Works for ended processes too."""
        ...

    async def run(
        self, spec: ProcessSpec, *, stdin: bytes = b"", max_output_bytes: int = 8 * 2**20
    ) -> RunResult:
        """Start, feed stdin, collect up to `max_output_bytes` of each stream, and wait for the end."""
        ...

    async def processes(self) -> list[ProcessInfo]: ...

    async def wait(self, process_id: str) -> Exit: ...

    async def signal(self, process_id: str, signal: int) -> None:
        """Send a signal to its process group. Conflict when it has ended."""

    async def stop(self, process_id: str, grace_s: float) -> Exit:
        """TERM to the whole tree, wait up to `grace_s`, KILL."""
        ...

    async def read_file(self, path: str) -> tuple[FileEntry, AsyncIterator[bytes]]:
        """A regular file's entry and its bytes, in order. InvalidInput for anything that is not a regular file."""
        ...

    async def write_file(self, path: str, chunks: AsyncIterator[bytes], *, mode: int | None = None) -> int:
        """Replace the file in one step (old or new, never torn); parents are made. Returns its size."""
        ...

    async def list_dir(self, path: str) -> list[FileEntry]:
        """Sorted by name."""
        ...

    async def stat(self, path: str) -> FileEntry: ...

    async def make_dir(self, path: str) -> None:
        """With parents; no error when it exists."""

    async def remove(self, path: str, *, recursive: bool = False) -> None: ...

    async def move(self, source: str, destination: str) -> None: ...

    async def dial(self, port: int) -> tuple[StreamReader, StreamWriter]:
        """A byte stream to 127.0.0.1:port inside. Unavailable when nothing listens."""
        ...
