"""Passing: how a sidekick hands over a socket that it has connected inside the sandbox, and how the server takes it.

Runtimes whose sidekicks are reached by a unix socket use it, so that a preview's bytes take one step and not three.
"""

from __future__ import annotations

import array
import asyncio
import socket
from typing import NoReturn

from atoll.domain import errors
from atoll.sidekick import answers
from atoll.sidekick import protocol as wire

ANSWER_BYTES_MAX = 4_096
_FD_BYTES = array.array("i").itemsize
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_LOOPBACK = ("127.0.0.1", "::1")


async def take_port(to_sidekick: socket.socket, port: int) -> socket.socket | None:
    """The connection to 127.0.0.1:port inside, without waiting in any call; whoever gets it closes it. `to_sidekick`
    is a connected unix socket that does not block; it is closed in the end.

    None from a sidekick of an older version, which has made `to_sidekick` such a connection itself and thereby useless
    here. NotFound, Unavailable as from `dial`. The sidekick runs where the tenant is: what comes is looked at, and must
    never be used in a way that blocks, since the other side holds the same open file and may change its flags.
    """
    try:
        to_sidekick.send(wire.json_frame(wire.REQUEST, {"op": "dial", "port": port, "pass": True}))
        data, passed = await _answer(to_sidekick)
    except OSError:
        raise errors.NotFound("the sandbox has ended") from None
    finally:
        to_sidekick.close()
    try:
        if _told(data).get("passed") is not True:
            return None
        if not passed:
            _refuse()
        return _checked(passed.pop(), port)
    finally:
        _close(passed)


async def _answer(sock: socket.socket) -> tuple[bytearray, list[int]]:
    data, passed = bytearray(), list[int]()
    try:
        while not _complete(data):
            await _readable(sock)
            piece, ancillary, flags, _ = sock.recvmsg(
                ANSWER_BYTES_MAX, socket.CMSG_SPACE(2 * _FD_BYTES), socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            )
            for level, kind, held in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    passed += array.array("i", held[: len(held) // _FD_BYTES * _FD_BYTES])
            if not piece:
                raise errors.NotFound("the sandbox has ended")
            data += piece
            if flags & socket.MSG_CTRUNC or len(passed) > 1 or len(data) > ANSWER_BYTES_MAX:
                _refuse()
    except BaseException:
        _close(passed)
        raise
    return data, passed


def _complete(data: bytearray) -> bool:
    return len(data) >= wire.HEADER.size and len(data) >= wire.HEADER.size + wire.HEADER.unpack_from(data)[1]


def _told(data: bytearray) -> dict[str, object]:
    kind, size = wire.HEADER.unpack_from(data)
    payload = answers.parsed(bytes(data[wire.HEADER.size : wire.HEADER.size + size]))
    if kind == wire.ERROR:
        raise answers.error_of(payload)
    return answers.fields_of(payload)


def _checked(fd: int, port: int) -> socket.socket:
    """A TCP connection to that port of a loopback, which is the sandbox's: it has no way to another's."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:  # a file, say, which it has not taken
        socket.close(fd)
        _refuse()
    try:
        fit = (
            sock.family in _FAMILIES
            and sock.type == socket.SOCK_STREAM
            and sock.proto == socket.IPPROTO_TCP
            and sock.getpeername()[:2] in [(host, port) for host in _LOOPBACK]
        )
        if not fit:
            _refuse()
        sock.setblocking(False)
    except OSError:
        sock.close()
        _refuse()
    except BaseException:
        sock.close()
        raise
    return sock


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(sock, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _close(passed: list[int]) -> None:
    for fd in passed:
        socket.close(fd)
    passed.clear()


def _refuse() -> NoReturn:
    raise answers.nonsense("no connection to a port")
