"""Connections: whatever a client sends, leaves unread or cuts off, the sidekick answers in words and keeps nothing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import NotFound, TooLarge, Unavailable
from atoll.domain.process import ProcessSpec
from atoll.sidekick import protocol as wire
from atoll.sidekick.main import MAX_CONNECTIONS
from tests.sidekick.running import RunningSidekick, receive, receive_all, send, until


@pytest.mark.parametrize(
    "sent",
    [
        wire.frame(wire.STDIN, b"hello"),
        wire.frame(0, b""),
        wire.frame(0xFF, b"x" * 100),
        wire.frame(wire.REQUEST, b""),
        wire.frame(wire.REQUEST, b"not json"),
        wire.frame(wire.REQUEST, b"[]"),
        wire.frame(wire.REQUEST, b"null"),
        wire.frame(wire.REQUEST, b"{}"),
        wire.frame(wire.REQUEST, b"\xff\xfe"),
        wire.frame(wire.REQUEST, b'{"op": []}'),
        wire.frame(wire.REQUEST, b'{"op": {}}'),
        wire.frame(wire.REQUEST, b'{"op": "no such thing"}'),
        wire.frame(wire.REQUEST, b"[" * 100_000),
        wire.frame(wire.REQUEST, b'{"a":' * 100_000),
        wire.frame(wire.REQUEST, b"9" * 100_000),
        struct.pack("!BI", wire.REQUEST, wire.MAX_FRAME_BYTES + 1),
        struct.pack("!BI", wire.REQUEST, 0xFFFF_FFFF),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:24]),
)
def test_what_is_no_request_is_refused_in_words(sidekick: RunningSidekick, sent: bytes) -> None:
    with sidekick.open() as sock:
        sock.sendall(sent)
        answer = receive(sock)
        assert answer is not None
        assert answer[0] == wire.ERROR
        assert answer[1]["code"] in ("bad_request", "too_large")
        assert receive(sock) is None
    assert sidekick.ask({"op": "ping"})[0] == wire.RESULT  # type: ignore[index]


ODD: list[Any] = [None, True, 0, -1, 1e400, "", "x", "\0", "\ud800", [], [1], {}, {"a": 1}, 2**70, "/" * 5000, "a\nb"]
REQUESTS: dict[str, dict[str, Any]] = {
    "start": {
        "argv": ["true"],
        "env": {},
        "cwd": None,
        "tty": False,
        "cols": 80,
        "rows": 24,
        "stdin": 0,
        "timeout_s": 1,
    },
    "attach": {"process": "p1", "offset": 0},
    "wait": {"process": "p1"},
    "stop": {"process": "p1", "grace_s": 0.1},
    "signal": {"process": "p1", "signal": 9},
    "read": {"path": "x"},
    "write": {"path": "x", "mode": 0o600},
    "list": {"path": "x"},
    "stat": {"path": "x"},
    "make_dir": {"path": "x"},
    "remove": {"path": "x", "recursive": True},
    "move": {"from": "x", "to": "y"},
    "dial": {"port": 1},
}


@pytest.mark.parametrize("op", REQUESTS)
def test_odd_fields_are_answered_without_an_error_of_ours(sidekick: RunningSidekick, op: str, tmp_path: Path) -> None:
    somewhere = str(tmp_path / "nowhere" / "at" / "all")
    for field in REQUESTS[op]:
        for odd in ODD:
            request = {"op": op, **REQUESTS[op], field: odd}
            if field not in ("path", "from", "to"):
                request.update({name: somewhere for name in ("path", "from", "to") if name in request})
            elif odd in ("", "x", "a\nb") or (isinstance(odd, str) and odd.startswith("/")):
                continue  # a good path, and of this machine
            answer = sidekick.ask(request, wire.frame(wire.END) if op == "write" else b"")
            assert answer is None or answer[0] != wire.ERROR or answer[1]["code"] != "internal", (request, answer)
        with sidekick.open() as sock:  # absent
            request = {"op": op, **{k: v for k, v in REQUESTS[op].items() if k != field}}
            if field in ("path", "from", "to") or not {"path", "from", "to"} & set(request):
                send(sock, wire.REQUEST, request)
                sock.shutdown(socket.SHUT_WR)
                answer = receive(sock)
                assert answer is None or answer[0] != wire.ERROR or answer[1]["code"] != "internal", (request, answer)


def test_random_bytes_do_not_shake_it(sidekick: RunningSidekick) -> None:
    dice = random.Random(4711)
    for _ in range(300):
        with sidekick.open() as sock:
            kind = dice.choice([wire.REQUEST, wire.STDIN, wire.DATA, dice.randrange(256)])
            body = dice.randbytes(dice.randrange(200))
            if dice.random() < 0.5:
                body = json.dumps({"op": dice.choice([*REQUESTS, "ping"]), "process": "p1"}).encode() + body[:2]
            sock.sendall(wire.frame(kind, body)[: dice.randrange(1, 300)])
            if dice.random() < 0.5:
                sock.settimeout(0.02)
                try:
                    receive_all(sock)
                except TimeoutError:
                    pass
    assert sidekick.ask({"op": "ping"})[0] == wire.RESULT  # type: ignore[index]


def test_one_connection_too_many_is_told_so(sidekick: RunningSidekick) -> None:
    kept = [sidekick.open() for _ in range(MAX_CONNECTIONS)]
    try:
        until(lambda: sidekick.descriptors() >= MAX_CONNECTIONS)
        answer = sidekick.ask({"op": "ping"})
        assert answer is not None
        assert (answer[0], answer[1]["code"]) == (wire.ERROR, "unavailable")
    finally:
        for sock in kept:
            sock.close()
    until(lambda: (sidekick.ask({"op": "ping"}) or (0,))[0] == wire.RESULT)


async def test_a_client_learns_of_too_many_connections_as_unavailable(sidekick: RunningSidekick) -> None:
    kept = [sidekick.open() for _ in range(MAX_CONNECTIONS)]
    try:
        with pytest.raises(Unavailable):
            await sidekick.client.ping()
    finally:
        for sock in kept:
            sock.close()


def test_thousands_of_connections_come_and_go(sidekick: RunningSidekick) -> None:
    for _ in range(4):
        for sock in [sidekick.open() for _ in range(1500)]:
            sock.close()
    until(lambda: (sidekick.ask({"op": "ping"}) or (0,))[0] == wire.RESULT)


def test_it_waits_quietly_when_it_is_out_of_descriptors(tmp_path: Path) -> None:
    with RunningSidekick(tmp_path, files=64) as sidekick:
        kept = [sidekick.open() for _ in range(100)]
        until(lambda: sidekick.descriptors() >= 60)
        before = sidekick.cpu_s()
        time.sleep(0.5)
        assert sidekick.cpu_s() - before < 0.2
        for sock in kept:
            sock.close()
        until(lambda: (sidekick.ask({"op": "ping"}) or (0,))[0] == wire.RESULT)
        assert sidekick.log() == ""


def test_a_client_that_reads_nothing_holds_up_nobody_and_no_memory(sidekick: RunningSidekick) -> None:
    flood = {"op": "start", "argv": ["sh", "-c", "exec cat /dev/zero"]}
    before = sidekick.memory_bytes()
    kept = [sidekick.open() for _ in range(4)]
    for sock in kept:
        send(sock, wire.REQUEST, flood)
    time.sleep(0.3)
    assert sidekick.ask({"op": "ping"})[0] == wire.RESULT  # type: ignore[index]
    assert sidekick.memory_bytes() - before < 16 * 2**20
    for sock in kept:
        sock.close()
    processes = sidekick.ask({"op": "processes"})[1]["processes"]  # type: ignore[index]
    for process in processes:
        sidekick.ask({"op": "stop", "process": process["id"], "grace_s": 0})


async def test_a_client_that_vanishes_at_any_moment_does_not_stop_the_program(sidekick: RunningSidekick) -> None:
    """A follower that nobody unfollows would hold the program's output back for ever."""
    dice = random.Random(7)
    started = 0
    for number in range(150):
        with sidekick.open() as sock:
            send(sock, wire.REQUEST, {"op": "start", "argv": ["sh", "-c", "head -c 3000000 /dev/zero; exit 9"]})
            started += 1
            if number % 3 == 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            if number % 2:
                await asyncio.sleep(dice.random() * 0.01)
        if number % 10 == 9:
            async with asyncio.timeout(20):
                for process in await sidekick.client.processes():
                    try:
                        assert (await sidekick.client.wait(process.id)).code == 9
                    except NotFound:
                        continue  # it ended, and only so many are remembered
    assert started == 150
    assert all(process.exit for process in await sidekick.client.processes())


async def test_a_refusal_reaches_a_client_that_is_still_sending(sidekick: RunningSidekick, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    async def endless() -> Any:
        for _ in range(2000):
            yield bytes(262_144)

    for _ in range(20):
        with pytest.raises(Exception, match="is a directory"):
            await sidekick.client.write_file(str(tmp_path / "folder"), endless())


async def test_a_full_disk_is_told_while_the_client_is_still_sending(sidekick: RunningSidekick, tmp_path: Path) -> None:
    full = "/dev/full"
    if not os.path.exists(full):
        pytest.skip("no /dev/full")
    limit = await sidekick.client.run(ProcessSpec(("true",)))
    assert limit.exit.code == 0
    # a file size limit of the sidekick itself stands for a full disk
    pid = sidekick.process.pid
    import resource

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))

    async def much() -> Any:
        for _ in range(400):
            yield bytes(262_144)

    for _ in range(10):
        with pytest.raises(TooLarge):
            await sidekick.client.write_file(str(tmp_path / "big"), much())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".atoll")] == []
