"""Creating is sent again by itself when its connection breaks: with one key, so that it has one effect."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from atoll.domain.errors import Conflict
from atoll.sdk import Sandbox
from atoll.sdk.errors import ConnectionFailed

MADE = {
    "id": "sess_0123456789ab", "status": "running", "image": "host", "createdAt": "2026-03-01T12:00:00Z",
    "command": [], "tty": False, "paused": False,
}  # fmt: skip
BUSY = b"HTTP/1.1 409 Conflict\r\nretry-after: 0\r\ncontent-length: 2\r\n\r\n{}"
REFUSED = b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\n{}"


def created() -> bytes:
    body = json.dumps(MADE).encode()
    return b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


class Scripted:
    """Answers one request after the other with what the script says; None: hangs up in the middle."""

    def __init__(self) -> None:
        self.script: list[bytes | None] = []
        self.keys: list[str] = []
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        for open_ in (self._listener, *self._open):
            with suppress(OSError):
                open_.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            with connection, connection.makefile("rb") as lines:
                while self._answered(connection, lines):
                    pass

    def _answered(self, connection: socket.socket, lines: socket.SocketIO) -> bool:
        headers: dict[str, str] = {}
        while line := lines.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if not headers:
            return False
        lines.read(int(headers.get("content-length", 0)))
        self.keys.append(headers["idempotency-key"])
        answer = self.script.pop(0)
        if answer is not None:
            connection.sendall(answer)
        return answer is not None


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.close()


def create(server: Scripted) -> Sandbox:
    return Sandbox.create(url=server.url, api_key="sk_" + "0" * 64)


def test_a_broken_connection_is_no_error_and_the_key_stays_the_same(server: Scripted) -> None:
    server.script = [None, BUSY, BUSY, created()]
    assert create(server).id == MADE["id"]
    assert len(server.keys) == 4
    assert len(set(server.keys)) == 1
    server.script = [created()]
    create(server)
    assert len(set(server.keys)) == 2, "each call has a key of its own"


def test_a_connection_that_breaks_again_is_an_error(server: Scripted) -> None:
    server.script = [None, None]
    with pytest.raises(ConnectionFailed):
        create(server)
    assert len(server.keys) == 2


def test_a_conflict_that_does_not_say_when_to_come_again_is_one(server: Scripted) -> None:
    server.script = [REFUSED]
    with pytest.raises(Conflict):
        create(server)
    assert len(server.keys) == 1
