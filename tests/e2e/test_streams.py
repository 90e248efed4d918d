"""Clients who vanish, dawdle or never stop: input, cancelled commands, destruction in the middle (L04, L08, L09)."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.machine import open_files, resident_bytes, until
from tests.e2e.server import STDIN, STDIN_CLOSE, STDOUT, Server, drain, frame, messages
from tests.oracles import descriptors

T = TypeVar("T")

MIB = 2**20
GROWTH_MAX = 32 * MIB
COUNT = "set -- /proc/[0-9]*; echo $#"  # processes inside, without any for the counting but the shell itself


def test_l04_a_gibibyte_of_input_to_a_program_that_reads_none_is_held_back(server: Server) -> None:
    """The sender is stopped, nobody's memory grows, and when it leaves the program gets on without it."""
    sandbox = server.create()
    stream = server.stream(sandbox, "sh", "-c", "sleep 3; echo over")
    before = resident_bytes(server.pid)
    sent = 0

    def send() -> None:
        nonlocal sent
        piece = frame(STDIN, bytes(256 * 1024))
        try:
            while sent < 1024 * MIB:
                stream.send(piece)
                sent += len(piece)
        except (ConnectionClosed, OSError):
            pass

    thread = threading.Thread(target=send)
    thread.start()
    time.sleep(1.5)
    at_rest = sent
    time.sleep(0.5)
    assert sent == at_rest, "it still takes input"
    assert at_rest < 64 * MIB
    assert resident_bytes(server.pid) - before < GROWTH_MAX
    assert server.session(sandbox)["usage"]["memoryPeakBytes"] < 32 * MIB
    stdout, _, code = drain(stream)
    thread.join(10)
    assert (stdout, code) == (b"over\n", 0)


def test_l04_input_ends_when_it_is_closed_and_not_before(server: Server) -> None:
    sandbox = server.create()
    stream = server.stream(sandbox, "sh", "-c", "cat; echo closed")
    for piece in (b"one ", b"two"):
        stream.send(frame(STDIN, piece))
        assert stream.recv(10) == frame(STDOUT, piece)
    stream.send(bytes([STDIN_CLOSE]))
    assert drain(stream) == (b"closed\n", b"", 0)


def test_l04_a_half_closed_connection_gets_its_output(server: Server) -> None:
    """A client that sends its request and shuts down its writing side (HTTP/1.0 style) still wants the answer."""
    sandbox = server.create()
    body = json.dumps({"command": ["sh", "-c", "sleep 0.3; echo answer"]}).encode()
    with raw(server) as client:
        client.sendall(request(server, "POST", f"/v1/sessions/{sandbox}/exec", body))
        answer = b""
        while b"}" not in answer and (piece := client.recv(65_536)):  # head and body may come apart
            answer += piece
    assert b"answer\\n" in answer


def test_l08_500_commands_whose_clients_vanish_leave_nothing(server: Server) -> None:
    """Plain requests and streams, cut at random points: handshake, request, output; by FIN and by RST."""
    sandbox = server.create()
    server.exec(sandbox, "true")
    until(lambda: running_commands(server, sandbox) == 0)
    server.machine.rest()
    files, node_files = open_files(server.pid), settled(lambda: descriptors(server.machine.node()))
    inside = server.sh(sandbox, COUNT)
    seed = random.randrange(2**32)
    print("seed", seed)
    asyncio.run(storm(server, sandbox, 500, random.Random(seed)))
    until(lambda: running_commands(server, sandbox) == 0, within_s=20, what="every command has ended")
    until(lambda: server.sh(sandbox, COUNT) == inside, what="nothing else runs inside")
    until(lambda: open_files(server.pid) <= files + 4, within_s=30, what="descriptors are given back")
    assert settled(lambda: descriptors(server.machine.node())) == node_files
    assert server.sh(sandbox, "echo answers") == "answers\n"


def settled(look: Callable[[], T], for_s: float = 1.0) -> T:
    """What it shows once that has been the same for a while: the node makes spares when it finds the time."""
    seen, since = look(), time.monotonic()
    while time.monotonic() - since < for_s:
        time.sleep(0.1)
        if (now := look()) != seen:
            seen, since = now, time.monotonic()
    return seen


async def storm(server: Server, sandbox: str, count: int, dice: random.Random) -> None:
    at_once = asyncio.Semaphore(60)

    async def one() -> None:
        async with at_once:
            if dice.random() < 0.7:
                body = json.dumps({"command": ["sh", "-c", "echo begun; sleep 60"]}).encode()
                data = request(server, "POST", f"/v1/sessions/{sandbox}/exec", body)
            else:
                target = f"/v1/sessions/{sandbox}/exec?cmd=sh&cmd=-c&cmd=yes+|+head+-c+1M;+sleep+0.5"
                data = request(server, "GET", target.replace(" ", "%20").replace("|", "%7C"), upgrade=True)
            where = urlsplit(server.url)
            _, writer = await asyncio.open_connection(where.hostname, where.port)
            try:
                writer.write(data[: dice.randrange(len(data)) if dice.random() < 0.1 else len(data)])
                await writer.drain()
                await asyncio.sleep(dice.random() * 0.03)
                if dice.random() < 0.5:  # a reset instead of a goodbye
                    sock: socket.socket = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            finally:
                writer.transport.abort() if dice.random() < 0.5 else writer.close()

    await asyncio.gather(*(one() for _ in range(count)))


@pytest.mark.parametrize("end", ["kill", "stop", "exit"])
def test_l09_destroyed_in_the_middle_of_everything_there_is_one_winner(server: Server, end: str) -> None:
    sandbox = server.create(["sh", "-c", "trap 'exit 0' TERM; while ! test -e /tmp/end; do sleep 0.05; done"])
    terminal = server.stream(sandbox, "bash", tty="true")
    follower = server.attach(sandbox)
    going_on = threading.Event()
    answers: dict[str, int] = {}

    def exec_() -> None:
        with server.client() as client:
            answer = client.post(f"/v1/sessions/{sandbox}/exec", json={"command": ["sleep", "60"]})
            answers["exec"] = answer.status_code

    def body() -> object:
        while not going_on.is_set():
            yield os.urandom(65_536)
            time.sleep(0.01)

    def upload() -> None:
        with server.client() as client:
            try:
                answer = client.post(f"/v1/sessions/{sandbox}/files", params={"path": "/tmp/up"}, content=body())
                answers["upload"] = answer.status_code
            except Exception as error:
                answers["upload"] = 409 if "disconnect" in str(error).lower() or isinstance(error, OSError) else 0
                raise

    def destroy(number: int) -> None:
        with server.client() as client:
            if end == "kill":
                answer = client.delete(f"/v1/sessions/{sandbox}")
            else:
                answer = client.post(f"/v1/sessions/{sandbox}/stop")
            answers[f"destroy {number}"] = answer.status_code

    threads = [threading.Thread(target=work) for work in (exec_, upload)]
    for thread in threads:
        thread.start()
    until(lambda: server.session(sandbox)["usage"]["bytesIn"] > 100_000 and running_commands(server, sandbox) == 3)
    if end == "exit":
        server.exec(sandbox, "touch", "/tmp/end")
        until(lambda: server.session(sandbox)["status"] != "running")
        destroyers = []
    else:
        destroyers = [threading.Thread(target=destroy, args=(number,)) for number in range(8)]
        for thread in destroyers:
            thread.start()
    for thread in (*threads, *destroyers):
        thread.join(30)
        going_on.set()
    going_on.set()
    won = [code for name, code in answers.items() if name.startswith("destroy")]
    if end == "kill":
        assert sorted(won) == [200] + [409] * 7
    elif end == "stop":
        assert set(won) <= {200, 409}  # who comes while the stop is under way waits for its end
        assert 200 in won
    assert answers["exec"] == 409 if end == "kill" else answers["exec"] in (200, 409)  # TERM reaches it, too
    assert answers["upload"] in ((404, 409) if end == "kill" else (201, 404, 409))  # it may end within the grace
    for stream in (terminal, follower):
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                stream.recv(10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code in (1000, 1001)
    assert server.session(sandbox)["status"] == ("killed" if end == "kill" else "stopped")
    assert sandbox not in server.machine.sandbox_folders()
    for method, path in (("POST", "exec"), ("POST", "stop"), ("GET", "files?path=/tmp"), ("GET", "processes")):
        answer = server.http.request(method, f"/v1/sessions/{sandbox}/{path}", json={"command": ["true"]})
        assert answer.status_code == 409, (path, answer.text)


def test_l09_created_and_destroyed_at_once(server: Server) -> None:
    """A delete that comes while the sandbox is being made (its id is known from the list) wins."""
    done = threading.Event()

    def reap() -> None:
        with server.client() as client:
            while not done.is_set():
                for one in client.get("/v1/sessions", params={"limit": 20}).json()["sessions"]:
                    if one["status"] in ("pending", "building", "running"):
                        client.delete(f"/v1/sessions/{one['id']}")

    thread = threading.Thread(target=reap)
    thread.start()
    try:
        answers = [server.http.post("/v1/sessions", json={"image": "host", "network": "none"}) for _ in range(60)]
    finally:
        done.set()
        thread.join(10)
    assert {answer.status_code for answer in answers} <= {201, 409}
    until(lambda: {one["status"] for one in server.sessions()[:60]} <= {"running", "killed"})


def test_w06_a_flood_of_small_messages_is_taken_in_and_health_stays_up(server: Server) -> None:
    sandbox = server.create()
    stream = server.stream(sandbox, "sh", "-c", "wc -c")
    before = resident_bytes(server.pid)
    piece = frame(STDIN, b"x")
    for number in range(30_000):
        stream.send(piece)
        if number % 10_000 == 0:
            assert server.http.get("/health").status_code == 200
    stream.send(bytes([STDIN_CLOSE]))
    assert drain(stream)[0].strip() == b"30000"
    assert resident_bytes(server.pid) - before < GROWTH_MAX


def test_a_stream_that_drops_and_comes_back_misses_nothing(server: Server) -> None:
    """By its offset, in the middle of output, many times."""
    sandbox = server.create()
    program = "import time\nfor i in range(1500):\n  print(i, flush=True)\n  time.sleep(0.001)\nexit(4)"
    stream = server.stream(sandbox, "python3", "-c", program)
    process = stream.response.headers["atoll-process"]  # type: ignore[union-attr]
    seen, drops = bytearray(), 0
    while drops < 50:
        seen += next(messages(stream))[5:]
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()
        drops += 1
        stream = server.attach(sandbox, process, offset=len(seen))
    rest, _, code = drain(stream)
    assert (bytes(seen) + rest).split() == [b"%d" % i for i in range(1500)]
    assert rest
    assert code == 4


def running_commands(server: Server, sandbox: str) -> int:
    found = server.http.get(f"/v1/sessions/{sandbox}/processes").json()["processes"]
    return sum(one["running"] and one["id"] != "main" for one in found) + sum(
        one["running"] for one in found if one["id"] == "main"
    )


def raw(server: Server) -> socket.socket:
    where = urlsplit(server.url)
    return socket.create_connection((where.hostname, where.port), timeout=20)


def request(server: Server, method: str, target: str, body: bytes = b"", *, upgrade: bool = False) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", f"Authorization: Bearer {server.key}"]
    if upgrade:
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    else:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
