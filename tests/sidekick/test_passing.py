"""A socket that a sidekick hands over is taken only when it is what was asked for: it runs where the tenant is."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll.domain.errors import NotFound, Unavailable
from atoll.sidekick import protocol as wire
from atoll.sidekick.passing import take_port

KEPT: list[socket.socket] = []  # the other ends, until a test is over
PASSED = wire.json_frame(wire.RESULT, {"passed": True})


def connected() -> tuple[socket.socket, int]:
    server = socket.create_server(("127.0.0.1", 0))
    port: int = server.getsockname()[1]
    sock = socket.create_connection(("127.0.0.1", port))
    accepted, _ = server.accept()
    server.close()
    KEPT.append(accepted)
    return sock, port


async def taken(port: int, frame: bytes, *fds: int) -> socket.socket | None:
    """What the server takes of a sidekick that says this, with these beside it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        if frame:
            theirs.sendmsg([frame], rights)
        else:
            theirs.close()
        async with asyncio.timeout(5):
            return await take_port(ours, port)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while KEPT:
        KEPT.pop().close()


async def test_a_connection_to_the_port_is_taken() -> None:
    sock, port = connected()
    with sock:
        found = await taken(port, PASSED, sock.fileno())
        assert found is not None
        with found:
            assert found.getpeername() == ("127.0.0.1", port)
            assert not os.get_inheritable(found.fileno())


Odd = Callable[[], socket.socket]
ODD: dict[str, Odd] = {
    "unix": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "unconnected": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
}


@pytest.mark.parametrize("kind", ODD)
async def test_anything_else_is_refused_and_closed(kind: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with ODD[kind]() as odd, pytest.raises(Unavailable):
        await taken(80, PASSED, odd.fileno())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_file_is_no_connection_and_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as file:
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(Unavailable):
            await taken(80, PASSED, file.fileno())
        assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_another_port_no_socket_several_and_nonsense_are_refused() -> None:
    sock, port = connected()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with sock:
        fd = sock.fileno()
        for frame, fds in ((PASSED, (fd,)), (PASSED, ()), (PASSED, (fd, fd)), (wire.frame(wire.RESULT, b"no"), (fd,))):
            with pytest.raises(Unavailable):
                await taken(port + 1, frame, *fds)
        error = wire.json_frame(wire.ERROR, {"code": "unavailable", "message": "nothing listens"})
        with pytest.raises(Unavailable, match="nothing listens"):
            await taken(port, error)
        with pytest.raises(NotFound):
            await taken(port, b"")
        assert await taken(port, wire.json_frame(wire.RESULT, {})) is None, "an older sidekick, which carries bytes"
        assert len(list(Path("/proc/self/fd").iterdir())) == before
