"""W04: the WebSocket protocol, frame by frame on a real stream, and by the Autobahn suite where there is one."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e import autobahn
from tests.e2e.server import STDOUT, Server, environment, frame, free_port
from tests.e2e.test_streams import raw, request

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, PROTOCOL_ERROR, BAD_DATA, TOO_LARGE = 1000, 1002, 1007, 1009
MASK = b"\x37\xfa\x21\x3d"


def ws(opcode: int, data: bytes = b"", *, fin: bool = True, reserved: int = 0, mask: bool = True) -> bytes:
    """One frame of a client."""
    head = bytes([(fin << 7) | (reserved << 4) | opcode])
    size = len(data)
    masked = 0x80 if mask else 0
    if size < 126:
        head += bytes([masked | size])
    elif size < 65_536:
        head += bytes([masked | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", size)
    if not mask:
        return head + data
    return head + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(data))


@pytest.fixture
def echo(server: Server) -> str:
    return server.create()


class Peer:
    """A client that writes bytes and reads frames."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def frame(self) -> tuple[int, bytes]:
        """(opcode, payload) of the next frame; it must be whole, final and unmasked."""
        first, second = self._take(2)
        assert first & 0x70 == 0, "reserved bits"
        assert second & 0x80 == 0, "a server does not mask"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2))
            assert size > 125
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8))
            assert size > 65_535
        return first & 0x8F, self._take(size)

    def closed_with(self) -> int:
        """The close code; then the server ends the connection."""
        while True:
            kind, data = self.frame()
            if kind == 0x80 | CLOSE:
                code = struct.unpack("!H", data[:2])[0] if data else 1005
                break
        self.sock.settimeout(10)
        while self.sock.recv(4096):
            pass
        return code

    def head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._received()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._buffer += self._received()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _received(self) -> bytes:
        data = self.sock.recv(65_536)
        assert data, "the connection ended"
        return data


@contextmanager
def joined(server: Server, sandbox: str, command: str = "cat") -> Generator[Peer]:
    with raw(server) as sock:
        sock.sendall(request(server, "GET", f"/v1/sessions/{sandbox}/exec?cmd={command}", upgrade=True))
        peer = Peer(sock)
        head = peer.head()
        assert head.startswith(b"HTTP/1.1 101"), head
        # The example of RFC 6455, 1.3.
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        assert b"sec-websocket-extensions" not in head.lower()
        yield peer


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(ws(BINARY, frame(1, b"x"), mask=False), PROTOCOL_ERROR, id="unmasked"),
        pytest.param(ws(BINARY, b"x", reserved=4), PROTOCOL_ERROR, id="reserved bit 1 without an extension"),
        pytest.param(ws(BINARY, b"x", reserved=1), PROTOCOL_ERROR, id="reserved bit 3"),
        pytest.param(ws(3, b"x"), PROTOCOL_ERROR, id="reserved data opcode"),
        pytest.param(ws(11), PROTOCOL_ERROR, id="reserved control opcode"),
        pytest.param(ws(PING, b"x", fin=False), PROTOCOL_ERROR, id="fragmented ping"),
        pytest.param(ws(CLOSE, b"", fin=False), PROTOCOL_ERROR, id="fragmented close"),
        pytest.param(ws(PING, b"x" * 126), PROTOCOL_ERROR, id="ping of 126 bytes"),
        pytest.param(ws(CONT, b"x"), PROTOCOL_ERROR, id="continuation of nothing"),
        pytest.param(ws(TEXT, b"x", fin=False) + ws(TEXT, b"y"), PROTOCOL_ERROR, id="message within a message"),
        pytest.param(ws(TEXT, b"\xff\xfe"), BAD_DATA, id="text that is no UTF-8"),
        pytest.param(ws(TEXT, b"\xce", fin=False) + ws(CONT, b"\xff"), BAD_DATA, id="no UTF-8 across fragments"),
        pytest.param(ws(TEXT, b"\xed\xa0\x80"), BAD_DATA, id="a surrogate"),
        pytest.param(ws(CLOSE, b"\x03"), PROTOCOL_ERROR, id="close with half a code"),
        pytest.param(ws(CLOSE, struct.pack("!H", 1005)), PROTOCOL_ERROR, id="close with 1005"),
        pytest.param(ws(CLOSE, struct.pack("!H", 999)), PROTOCOL_ERROR, id="close with 999"),
        pytest.param(ws(CLOSE, struct.pack("!H", 1016)), PROTOCOL_ERROR, id="close with 1016"),
        pytest.param(ws(CLOSE, struct.pack("!H", 1000) + b"\xff"), BAD_DATA, id="close reason that is no UTF-8"),
        pytest.param(ws(CLOSE, struct.pack("!H", 1000)), NORMAL, id="close"),
        pytest.param(ws(CLOSE, struct.pack("!H", 3999) + b"bye"), 3999, id="close with a code of one's own"),
        pytest.param(ws(CLOSE), 1005, id="close without a code"),
        pytest.param(ws(CLOSE, struct.pack("!H", 1000)) + ws(PING, b"late"), NORMAL, id="ping after close"),
        pytest.param(b"\x82\xff" + struct.pack("!Q", 2**63) + MASK, TOO_LARGE, id="length with its top bit"),
        pytest.param(b"\x82\xff" + struct.pack("!Q", 2**40) + MASK, TOO_LARGE, id="a length beyond the limit"),
    ],
)
def test_w04_the_server_closes_with_the_right_code(server: Server, echo: str, data: bytes, code: int) -> None:
    with joined(server, echo) as peer:
        peer.sock.sendall(data)
        assert peer.closed_with() == code


def test_w04_pings_are_answered_in_the_middle_of_a_fragmented_message(server: Server, echo: str) -> None:
    message = frame(1, b"fragments")
    with joined(server, echo) as peer:
        peer.sock.sendall(ws(BINARY, message[:3], fin=False) + ws(PING, b"are you there"))
        assert peer.frame() == (0x80 | PONG, b"are you there")
        peer.sock.sendall(ws(CONT, b"", fin=False) + ws(PONG, b"unasked") + ws(CONT, message[3:]))
        assert peer.frame() == (0x80 | BINARY, frame(STDOUT, b"fragments"))


def test_w04_frames_byte_by_byte_and_many_at_once(server: Server, echo: str) -> None:
    with joined(server, echo) as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in ws(BINARY, frame(1, b"slow")):
            peer.sock.sendall(bytes([byte]))
        assert peer.frame()[1] == frame(STDOUT, b"slow")
        peer.sock.sendall(b"".join(ws(BINARY, frame(1, b"%03d" % number)) for number in range(100)))
        seen = b""
        while len(seen) < 300:
            seen += peer.frame()[1][5:]
        assert seen == b"".join(b"%03d" % number for number in range(100))


@pytest.mark.parametrize("size", [0, 125, 126, 127, 65_535, 65_536, 400_000])
def test_w04_every_form_of_length_is_understood(server: Server, echo: str, size: int) -> None:
    with joined(server, echo, "wc&cmd=-c") as peer:
        peer.sock.sendall(ws(BINARY, frame(1, bytes(size))) + ws(BINARY, b"\x06"))
        assert peer.frame()[1][5:].strip() == b"%d" % size


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12", 426),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: short", 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("Sec-WebSocket-Version: 13\r\n", "", 400),
    ],
)
def test_w04_a_bad_handshake_starts_nothing(server: Server, echo: str, old: str, new: str, status: int) -> None:
    before = len(server.http.get(f"/v1/sessions/{echo}/processes").json()["processes"])
    data = request(server, "GET", f"/v1/sessions/{echo}/exec?cmd=cat", upgrade=True).decode()
    assert old in data
    with raw(server) as sock:
        sock.sendall(data.replace(old, new).encode())
        head = Peer(sock).head()
    assert int(head.split()[1]) in (status, 400), head
    assert len(server.http.get(f"/v1/sessions/{echo}/processes").json()["processes"]) == before


# The whole of 6 (UTF-8) and 9 (large messages) pass too and take a minute more: these are one of each kind.
CASES = [*(f"{n}.*" for n in (1, 2, 3, 4, 5, 7, 10)), *(f"6.{n}.*" for n in (1, 2, 3, 4)), "9.3.1", "9.4.2", "9.7.1"]
ECHO_SERVER = """
import asyncio, sys
from atoll.serve import listening
from atoll.settings import load
from starlette.websockets import WebSocket

class Echo:
    settings = load(overrides={"server.port": int(sys.argv[1]), "server.frame_bytes": 64 * 2**20})

    def drain(self):
        pass

    async def __call__(self, scope, receive, send):
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        while (message := await socket.receive())["type"] == "websocket.receive":
            await socket.send({**message, "type": "websocket.send"})

async def main():
    async with listening(Echo()):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


@pytest.mark.timeout(180)
def test_w04_autobahn(tmp_path: Path) -> None:
    """Our protocol class with our settings, an echo behind it; compression (12, 13) is not offered."""
    suite = autobahn.suite_or_skip()
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", ECHO_SERVER, str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        results = autobahn.run(suite, f"ws://127.0.0.1:{port}/", CASES, tmp_path / "autobahn")
    finally:
        server.communicate(timeout=10)
    assert len(results) > 100
    assert autobahn.failed(results) == {}


# No terminal is an echo of messages: what comes back is bytes, however they were sent. So what can pass are the cases
# in which nothing needs to come back, for it could come in two or to the next case: all but 1, some of 5, 6.1, 6.2,
# 7.1.1, 9 and 10. A token is good for a minute, so they come in two lots.
TERMINAL_CASES = (
    ["2.*", "3.*", "4.*", "5.1", "5.2", "5.9", "5.15", "5.18", "6.3.*"],
    ["7.1.2", "7.1.3", "7.1.4", "7.3.*", "7.5.*", "7.9.*"],
)


@pytest.mark.timeout(180)
def test_w04_autobahn_over_a_terminal(server: Server, tmp_path: Path) -> None:
    """The whole way to a program on a PTY, behind a terminal that changes nothing."""
    suite, box = autobahn.suite_or_skip(), server.create()
    results: autobahn.Results = {}
    shell = "/tmp/shell"
    server.sh(box, f"printf '#!/bin/sh\nstty raw -echo; exec cat > /dev/null\n' > {shell}; chmod +x {shell}")
    for number, cases in enumerate(TERMINAL_CASES):
        token = server.http.post(f"/sandboxes/{box}/terminal/token").json()["token"]  # good for a minute
        query = f"terminal=t{number}&shell={shell}&token={token}&offset={2**62}"  # not what the case before was shown
        url = f"ws://127.0.0.1:{server.port}/sandboxes/{box}/terminal?{query}"
        results |= autobahn.run(suite, url, cases, tmp_path / f"autobahn{number}")
    assert len(results) == 54
    assert autobahn.failed(results) == {}
