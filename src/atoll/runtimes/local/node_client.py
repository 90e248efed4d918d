"""The server's side of the node: start it when it is not there, speak to it, notice when it dies and start it again."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from atoll.domain import errors
from atoll.domain.host_paths import without_paths
from atoll.runtimes.local.node_wire import BUSY, READY

_log = structlog.get_logger()

START_S = 20.0
ANSWER_S = 30.0
RESTART_PAUSE_S = 0.2
BUSY_PAUSE_S = 0.05
ENDING_PAUSE_S = 0.01
LINE_BYTES = 16 * 2**20

_ERRORS: dict[str, type[errors.AtollError]] = {
    kind.code: kind
    for kind in (errors.InvalidInput, errors.NotFound, errors.Conflict, errors.Unsupported, errors.Unavailable)
}

_PACKAGE_FOLDER = str(Path(__file__).resolve().parents[3])

# isolated from the environment and the user's packages; only this package's own folder is added
_PROGRAM = (
    "import json, sys; sys.path.insert(0, sys.argv[1]);"
    "from atoll.runtimes.local.node import main; main(sys.argv[2], json.loads(sys.argv[3]))"
)


_ONCE = ("make", "make_tree")  # not known whether the node did it before it died; everything else can be asked again


def _error(op: str, code: str, message: str) -> errors.AtollError:
    """The node's error. Those that are no fault of the request may name files of this machine: the log has them."""
    kind = _ERRORS.get(code, errors.Internal)
    if kind in (errors.InvalidInput, errors.NotFound, errors.Conflict):
        return kind(message)
    told = without_paths(message)
    if told != message:
        _log.warning("node.refused", op=op, error=message)
    return kind(told)


class NodeDown(errors.Unavailable):
    """The node went down; the next one is being started."""


class NodeClient:
    """A connection to the node of a data folder, kept up until `close`. `on_event` gets what the node tells."""

    def __init__(self, data: Path, settings: dict[str, Any], on_event: Callable[[dict[str, Any]], None]) -> None:
        self._data = data
        self._settings = settings
        self._on_event = on_event
        self._socket_path = data / "run" / "node.sock"
        self._writer: StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False
        self._up = asyncio.Event()
        self.hello: dict[str, Any] = {}

    @property
    def started(self) -> bool:
        return self._keeper is not None

    async def start(self, *, whichever: bool = False) -> None:
        """Connect, starting the node if need be. Unavailable with the node's own words when it cannot start.

        A node of other settings or another version of Atoll gives way to a new one, unless `whichever` there is will
        do; sandboxes do not notice.
        """
        reader = await self._connect_or_start()
        self._keeper = asyncio.create_task(self._keep(reader), name="node")
        try:
            await self._greet()
        except NodeDown:  # it was just shutting down: the keeper starts another
            async with asyncio.timeout(START_S):
                await self._up.wait()
        if not whichever and self.hello.get("settings") != self._settings:
            self._up.clear()
            await self._ask("shutdown", {"destroy": False})
            async with asyncio.timeout(START_S):
                await self._up.wait()

    async def close(self) -> None:
        """Hang up; the node goes on."""
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        self._hang_up()

    async def gone(self) -> None:
        """Returns when the node that was told to shut down has ended: it answers a moment before. Unavailable when it
        does not end."""
        deadline = asyncio.get_running_loop().time() + START_S
        while not _is_free(self._data / "run" / "node.lock"):
            if asyncio.get_running_loop().time() > deadline:
                raise errors.Unavailable("the node has answered that it shuts down, and does not end")
            await asyncio.sleep(ENDING_PAUSE_S)

    async def ask(self, op: str, *, timeout_s: float = ANSWER_S, **fields: Any) -> dict[str, Any]:
        """The node's answer, from the next node if this one dies over it; its error as one of domain/errors.py.

        NodeDown when it dies over a `make`: then nothing of that sandbox remains.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    await self._up.wait()
                    try:
                        return await self._ask(op, fields)
                    except NodeDown:
                        if op in _ONCE:
                            raise
        except TimeoutError:
            raise errors.DeadlineExceeded("the node did not answer in time") from None

    async def _ask(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        if self._writer is None:
            raise NodeDown
        self._count += 1
        number = self._count
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._writer.write(json.dumps({"n": number, "op": op, **fields}).encode() + b"\n")
            answer = await future
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            raise _error(op, **answer["error"])
        return answer

    async def _keep(self, reader: StreamReader) -> None:
        """Read answers and events; when the node dies, start the next one."""
        while True:
            await self._read(reader)
            self._hang_up()
            while True:
                await asyncio.sleep(RESTART_PAUSE_S)
                try:
                    reader = await self._connect_or_start()
                    break
                except errors.Unavailable:
                    continue
            greeting = asyncio.create_task(self._greet())
            greeting.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _read(self, reader: StreamReader) -> None:
        while True:
            try:
                line = await reader.readline()
            except (ConnectionError, ValueError):
                return
            if not line:
                return
            message = json.loads(line)
            future = self._waiting.get(message.get("n", 0))
            if future is not None:
                if not future.done():
                    future.set_result(message)
            elif "event" in message:
                self._on_event(message)

    async def _greet(self) -> None:
        self.hello = await self._ask("hello", {})
        self._up.set()
        for ended in self.hello["ended"]:
            self._on_event({"event": "ended", **ended})

    def _hang_up(self) -> None:
        self._up.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NodeDown())

    async def _connect_or_start(self) -> StreamReader:
        deadline = asyncio.get_running_loop().time() + START_S
        while (reader := await self._connect()) is None:
            if not await self._spawn():  # one that is starting, or not quite gone
                if asyncio.get_running_loop().time() > deadline:
                    raise errors.Unavailable("a node of this data folder runs and does not answer")
                await asyncio.sleep(BUSY_PAUSE_S)
        return reader

    async def _connect(self) -> StreamReader | None:
        try:
            reader, self._writer = await open_unix(self._socket_path.parent, self._socket_path.name, LINE_BYTES)
        except OSError:
            return None
        return reader

    async def _spawn(self) -> bool:
        """Start the node in a session of its own, with nothing of our environment and none of our descriptors.

        False when there is another one.
        """
        run = self._data / "run"
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = os.open(run / "node.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                "-c",
                _PROGRAM,
                _PACKAGE_FOLDER,
                str(self._data),
                json.dumps(self._settings),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(log)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                line = await process.stdout.readline()
                await process.stdout.read()  # its end, so that the pipe is closed
                await process.wait()
        except TimeoutError:
            line = b""
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its session: the node that it became too
        if line not in (READY, BUSY):
            text = (run / "node.log").read_text(errors="replace").strip().splitlines()
            raise errors.Unavailable("the node could not start: " + (text[-1] if text else "no reason given"))
        return line == READY


def _is_free(file: Path) -> bool:
    """Whether nobody holds the lock on it."""
    with open(file, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


async def open_unix(folder: Path, name: str, limit: int) -> tuple[StreamReader, StreamWriter]:
    """Connect to a socket however long its folder's path is: through a descriptor of the folder."""
    path = f"{folder}/{name}"
    if len(os.fsencode(path)) < 100:
        return await _connect_unix(path, limit)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        return await _connect_unix(f"/proc/self/fd/{fd}/{name}", limit)
    finally:
        os.close(fd)


def connect_unix(folder: Path, name: str) -> socket.socket:
    """The same as a socket that does not block; BlockingIOError while too many wait there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    fd = -1
    try:
        path = f"{folder}/{name}"
        if len(os.fsencode(path)) >= 100:
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            path = f"/proc/self/fd/{fd}/{name}"
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    finally:
        if fd >= 0:
            os.close(fd)
    return sock


async def _connect_unix(path: str, limit: int) -> tuple[StreamReader, StreamWriter]:
    """At once, as a socket file answers at once, and not by way of the event loop; unless its queue is full."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(path)
        return await asyncio.open_unix_connection(sock=sock, limit=limit)
    except BlockingIOError:
        sock.close()
        return await asyncio.open_unix_connection(path, limit=limit)
    except BaseException:
        sock.close()
        raise
