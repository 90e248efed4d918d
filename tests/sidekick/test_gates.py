"""Gates of a running sidekick: who waits is served in turn, and what comes meanwhile waits in the kernel."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.sidekick import protocol as wire
from tests.sidekick.running import receive, send, until

PROGRAM = """
import json, os, socket, sys
from atoll.sidekick.identity import Identity
from atoll.sidekick.main import serve
os.chdir(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind("sidekick")
listener.listen(2048)
gates = {"api": socket.create_server(("127.0.0.1", 0)), "dns": socket.socket(socket.AF_INET, socket.SOCK_DGRAM)}
gates["dns"].bind(("127.0.0.1", 0))
ports = {name: gate.getsockname()[1] for name, gate in gates.items()}
serve(
    listener, Identity(os.getuid(), os.getgid(), separate=False),
    {"env": {}, "work_dir": sys.argv[1], "ring_bytes": 1 << 20},
    usage=dict, oom_count=lambda: 0, ready=lambda: print(json.dumps(ports), flush=True), gates=gates,
)
"""


class Gated:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.ports = json.loads(self.process.stdout.readline())

    def wait(self) -> socket.socket:
        """A connection of the server that waits at the gates."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.folder / "sidekick"))
        sock.settimeout(10)
        send(sock, wire.REQUEST, {"op": "accept"})
        return sock

    def call(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports["api"]), 10)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait(5)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[Gated]:
    made = Gated(tmp_path)
    try:
        before = made.descriptors()
        yield made
        assert made.process.poll() is None
        until(lambda: made.descriptors() <= before)
    finally:
        made.close()


def test_a_program_and_the_server_are_joined(gated: Gated) -> None:
    with gated.wait() as server, gated.call() as program:
        assert receive(server) == (wire.RESULT, {"gate": "api"})
        program.sendall(b"in")
        assert server.recv(10) == b"in"
        server.sendall(b"out")
        server.shutdown(socket.SHUT_WR)
        assert program.recv(10) == b"out" and program.recv(10) == b""
        program.sendall(b"more")  # its own end is open still
        assert server.recv(10) == b"more"


def test_nobody_comes_to_a_gate_from_outside(gated: Gated) -> None:
    """Else whoever reaches a published port has what the sandbox's programs have."""
    with socket.socket(socket.AF_UNIX) as dialled:
        dialled.connect(str(gated.folder / "sidekick"))
        dialled.settimeout(10)
        send(dialled, wire.REQUEST, {"op": "dial", "port": gated.ports["api"]})
        answer = receive(dialled)
        assert answer is not None and answer[0] == wire.ERROR and answer[1]["code"] == "unavailable"


def test_a_program_that_comes_before_the_server_waits(gated: Gated) -> None:
    with gated.call() as program:
        program.sendall(b"early")
        with gated.wait() as server:
            assert receive(server) == (wire.RESULT, {"gate": "api"})
            assert server.recv(10) == b"early"


def test_a_server_that_went_away_takes_nothing(gated: Gated) -> None:
    gated.wait().close()
    with gated.call() as program, gated.wait() as server:
        program.sendall(b"in")
        assert receive(server) == (wire.RESULT, {"gate": "api"})
        assert server.recv(10) == b"in"


def test_a_question_is_a_datagram_inside_and_a_message_outside(gated: Gated) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program, gated.wait() as server:
        program.settimeout(10)
        program.sendto(b"who?", ("127.0.0.1", gated.ports["dns"]))
        assert receive(server) == (wire.RESULT, {"gate": "dns"})
        assert server.recv(6) == b"\0\4who?"
        server.sendall(b"\0")
        server.sendall(b"\2")
        server.sendall(b"me")
        assert program.recvfrom(100) == (b"me", ("127.0.0.1", gated.ports["dns"]))
        assert server.recv(1) == b""


def test_so_many_may_wait_and_no_more(gated: Gated) -> None:
    waiting = [gated.wait() for _ in range(64)]
    with gated.wait() as late:
        answer = receive(late)
        assert answer is not None and answer[0] == wire.ERROR and answer[1]["code"] == "unavailable"
    waiting.pop().close()
    until(lambda: _is_taken(gated))
    for sock in waiting:
        sock.close()


def _is_taken(gated: Gated) -> bool:
    """Whether one more may wait: it is not refused at once."""
    with gated.wait() as sock:
        sock.settimeout(0.2)
        try:
            return receive(sock) is None
        except TimeoutError:
            return True
