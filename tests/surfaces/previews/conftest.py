"""What the tests of previews share: a server with a sandbox, whose ports are programs of the test's own on loopback."""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from atoll.domain.errors import Unavailable
from tests.surfaces.conftest import ALICE, House, Opener, open_house  # noqa: F401

PORT = 3000
UPGRADE = (
    "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
Program = Callable[[StreamReader, StreamWriter], Awaitable[None]]


@dataclass
class Heard:
    """A request as a program got it."""

    line: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Street:
    """`serve` lets a program listen on a port of a sandbox."""

    house: House
    sandbox: str
    programs: dict[tuple[str, int], Program] = field(default_factory=dict)
    connections: int = 0  # that were ever made
    open: int = 0  # that a program still has
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def serve(self, program: Program, port: int = PORT, sandbox: str = "") -> None:
        self.programs[sandbox or self.sandbox, port] = program

    async def take_port(self, sandbox: str, port: int) -> socket.socket:
        program = self.programs.get((sandbox, port))
        if program is None:
            raise Unavailable(f"nothing listens on port {port} in the sandbox")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=theirs)
        task = asyncio.create_task(self._run(program, reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: _cut(writer))
        return ours

    async def _run(self, program: Program, reader: StreamReader, writer: StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            await program(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            _cut(writer)

    async def fall_silent(self, sandbox: str = "", port: int = PORT) -> None:
        """The program ends, and with it all connections that programs have."""
        del self.programs[sandbox or self.sandbox, port]
        for task in list(self.tasks):
            task.cancel()
        await self.quiet()

    async def register(self, key: str = ALICE, **body: Any) -> dict[str, Any]:
        wanted = {"sandbox_id": self.sandbox, "port": PORT} | body
        answer = await self.house.call("POST", "/preview/register", key, json=wanted)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def token(self, **body: Any) -> str:
        wanted = {"sandbox_id": self.sandbox, "port": PORT} | body
        return (await self.house.call("POST", "/preview/token", json=wanted)).json()["token"]

    def path(self, rest: str = "/", port: int = PORT) -> str:
        return f"/preview/{self.sandbox}/{port}{rest}"

    async def raw(self, data: bytes) -> bytes:
        """What the server says to these bytes, until it hangs up or is silent for a moment."""
        host, port = self.house.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        found = b""
        try:
            writer.write(data)
            async with asyncio.timeout(1):
                while piece := await reader.read(65_536):
                    found += piece
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
        return found

    async def quiet(self) -> None:
        """Until no program has a connection."""
        async with asyncio.timeout(5):
            while self.open:  # noqa: ASYNC110  # what ends it is at the other end of a socket
                await asyncio.sleep(0.01)


def _cut(writer: StreamWriter) -> None:
    if not writer.is_closing() or writer.transport.get_write_buffer_size():  # one that has closed cannot be aborted
        writer.transport.abort()


@asynccontextmanager
async def street(house: House) -> AsyncIterator[Street]:
    made = Street(house, (await house.create())["id"])
    house.app.runtime.take_port = made.take_port  # type: ignore[method-assign]
    yield made
    for task in list(made.tasks):
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


Streets = Callable[..., Any]


@pytest.fixture
def open_street(open_house: Opener) -> Streets:  # noqa: F811
    @asynccontextmanager
    async def opener(**settings: Any) -> AsyncIterator[Street]:
        async with open_house(**settings) as house, street(house) as made:
            yield made

    return opener


async def heard(reader: StreamReader) -> Heard:
    """One request with its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Heard(line, headers, body)


def answering(found: list[Heard], answer: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi") -> Program:
    """Keeps what it hears and answers each request with the same."""

    async def program(reader: StreamReader, writer: StreamWriter) -> None:
        while True:
            found.append(await heard(reader))
            writer.write(answer)
            await writer.drain()

    return program
