"""Ports: real listeners on the loopback address for what a sandbox exposes, and nothing for what it does not."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import NetworkMode, Port, Sandbox
from atoll.services.joining import Stream, join

from .conftest import ALICE, BOB, QUICK, House, until


async def exposed(house: House, *ports: int, principal: Principal = ALICE) -> Sandbox:
    sandbox = await house.create(
        "listen",
        str(ports[0]),
        principal=principal,
        network=NetworkMode.EXPOSED,
        ports=tuple(Port(number) for number in ports),
    )
    await until(lambda: house.host.sandboxes[sandbox.id].listening)
    return sandbox


async def round_trip(port: int, data: bytes = b"ping") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(3):
        try:
            back = await reader.read(-1)
        except ConnectionResetError:
            back = b""  # refused inside
    writer.close()
    return back


async def test_an_exposed_port_is_a_listener_on_the_loopback_address(house: House) -> None:
    sandbox = await exposed(house, 8080, 9090)
    url = await house.sandboxes.ports.url(ALICE, sandbox.id, 8080)
    assert url.url == f"http://127.0.0.1:{url.host_port}"
    assert (url.container_port, url.protocol) == (8080, "tcp")
    assert await round_trip(url.host_port, b"x" * 1_000_000) == b"x" * 1_000_000
    urls = house.sandboxes.ports.urls(sandbox)
    assert [one.container_port for one in urls] == [8080, 9090]
    assert await round_trip(urls[1].host_port) == b""  # nothing listens there inside


async def test_the_listener_goes_with_the_sandbox(house: House) -> None:
    sandbox = await exposed(house, 8080)
    port = house.sandboxes.ports.urls(sandbox)[0].host_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"held open")
    assert await reader.read(100) == b"held open"
    killed = await house.sandboxes.kill(ALICE, sandbox.id)
    async with asyncio.timeout(3):
        try:
            assert await reader.read(100) == b""
        except ConnectionError:
            pass
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert house.sandboxes.ports.urls(killed) == []


async def test_dial_reaches_declared_ports_only(house: House) -> None:
    sandbox = await exposed(house, 8080, 9090)
    reader, writer = await house.sandboxes.ports.dial(ALICE, sandbox.id, 8080)
    writer.write(b"hi")
    assert await reader.read(10) == b"hi"
    writer.close()
    with pytest.raises(Unavailable):
        await house.sandboxes.ports.dial(ALICE, sandbox.id, 9090)
    for call in (house.sandboxes.ports.dial, house.sandboxes.ports.url):
        with pytest.raises(NotFound, match="not exposed"):
            await call(ALICE, sandbox.id, 22)
        for port in (0, -1, 65_536):
            with pytest.raises(InvalidInput):
                await call(ALICE, sandbox.id, port)


async def test_without_exposed_there_are_no_ports(house: House) -> None:
    sandbox = await house.create("listen", "8080", network=NetworkMode.OUTGOING)
    assert house.sandboxes.ports.urls(sandbox) == []
    with pytest.raises(NotFound):
        await house.sandboxes.ports.dial(ALICE, sandbox.id, 8080)
    await house.sandboxes.kill(ALICE, sandbox.id)
    with pytest.raises(Conflict):
        await house.sandboxes.ports.dial(ALICE, sandbox.id, 8080)


async def test_a_restart_keeps_the_port_and_takes_another_when_it_is_taken(house: House) -> None:
    sandbox = await exposed(house, 8080)
    port = house.sandboxes.ports.urls(sandbox)[0].host_port
    await house.restart()
    assert await round_trip(port) == b"ping"
    await house.sandboxes.close()
    with socket.create_server(("127.0.0.1", port)):
        house.build()
        await house.sandboxes.start()
        url = await house.sandboxes.ports.url(ALICE, sandbox.id, 8080)
        assert url.host_port != port
        assert await round_trip(url.host_port) == b"ping"


async def test_connections_through_a_port_are_bounded(house: House) -> None:
    sandbox = await exposed(house, 8080)
    port = house.sandboxes.ports.urls(sandbox)[0].host_port
    many = house.limits.tcp_streams_per_sandbox + 20
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(many)]

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"?")
        try:
            async with asyncio.timeout(3):
                return await reader.read(1) == b"?"
        except ConnectionError:
            return False

    answered = [await answers(*pair) for pair in pairs]
    assert 0 < answered.count(True) <= house.limits.tcp_streams_per_sandbox
    for _, writer in pairs:
        writer.close()


@asynccontextmanager
async def connected(port: int, count: int) -> AsyncIterator[int]:
    """So many connections, each after the other; how many of them get an answer."""
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    answered = 0
    try:
        for reader, writer in pairs:
            writer.write(b"?")
            try:
                async with asyncio.timeout(3):
                    answered += await reader.read(1) == b"?"
            except ConnectionError:
                pass
        yield answered
    finally:
        for _, writer in pairs:
            writer.close()


async def test_connections_of_a_key_and_of_the_server_are_bounded_too(tmp_path: Path) -> None:
    house = House(tmp_path, limits=replace(QUICK, tcp_streams_per_key=3, tcp_streams_max=5))
    await house.sandboxes.start()
    ports = [
        house.sandboxes.ports.urls(await exposed(house, 8080, principal=key))[0].host_port
        for key in (ALICE, ALICE, BOB)
    ]
    for _ in range(2):  # what has left makes room
        async with connected(ports[0], 2) as first, connected(ports[1], 2) as second, connected(ports[2], 3) as others:
            assert (first, second, others) == (2, 1, 2)
        await until(lambda: not house.sandboxes._listeners._streams)
    await house.sandboxes.close()


async def test_with_the_sandbox_go_the_connections_of_clients_that_do_not_read(house: House) -> None:
    before = set(os.listdir("/proc/self/fd"))
    sandbox = await exposed(house, 8080)
    with socket.create_connection(("127.0.0.1", house.sandboxes.ports.urls(sandbox)[0].host_port)) as client:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            while True:
                async with asyncio.timeout(0.3):
                    await loop.sock_sendall(client, bytes(65_536))
        own = {str(client.fileno())}
        assert len(set(os.listdir("/proc/self/fd")) - before - own) > 1
        await house.sandboxes.kill(ALICE, sandbox.id)
        assert len(set(os.listdir("/proc/self/fd")) - before - own) <= 1  # the echo's, if it has not seen it yet


async def test_a_command_can_start_listening_later(house: House) -> None:
    sandbox = await house.create(network=NetworkMode.EXPOSED, ports=(Port(3000),))
    port = house.sandboxes.ports.urls(sandbox)[0].host_port
    assert await round_trip(port) == b""
    stream = await house.sandboxes.processes.start(ALICE, sandbox.id, ProcessSpec(("listen", "3000")))
    await until(lambda: house.host.sandboxes[sandbox.id].listening)
    assert await round_trip(port) == b"ping"
    await stream.close()


@pytest.mark.parametrize("says", [b"", b"."], ids=["silent", "dripping"])
async def test_a_side_that_stays_silent_after_the_others_end_is_given_up(says: bytes) -> None:
    ours, client = socket.socketpair()
    inner, program = socket.socketpair()
    streams = [Stream(*await asyncio.open_connection(sock=one)) for one in (ours, inner)]
    _, program_writer = await asyncio.open_connection(sock=program)
    joined = asyncio.create_task(join(*streams, half_closed_s=0.2))
    client.shutdown(socket.SHUT_WR)
    for _ in range(6):
        program_writer.write(says)
        await asyncio.sleep(0.1)
    assert joined.done() is (says == b"")
    program_writer.close()
    await asyncio.wait_for(joined, 3)
    for writer in (stream.writer for stream in streams):
        writer.close()
    client.close()


async def test_a_side_that_does_not_read_what_is_left_for_it_is_given_up() -> None:
    ours, client = socket.socketpair()
    inner, program = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    while not writer.transport.get_write_buffer_size():
        writer.write(bytes(8192))
    other = Stream(*await asyncio.open_connection(sock=inner))
    joined = asyncio.create_task(join(Stream(reader, writer), other, half_closed_s=0.2))
    program.close()
    client.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.1)
    assert not joined.done()
    async with asyncio.timeout(3):
        await joined
    await until(lambda: ours.fileno() == -1)
    client.close()


async def test_little_waits_for_a_side_that_does_not_read() -> None:
    ours, client = socket.socketpair()
    inner, program = socket.socketpair()
    outer = Stream(*await asyncio.open_connection(sock=ours))
    other = Stream(*await asyncio.open_connection(sock=inner, limit=16_384))
    joined = asyncio.create_task(join(outer, other, half_closed_s=0.2))
    program.setblocking(False)
    with pytest.raises(TimeoutError):
        while True:
            async with asyncio.timeout(0.3):
                await asyncio.get_running_loop().sock_sendall(program, bytes(8192))
    assert outer.writer.transport.get_write_buffer_size() <= 32_768 + 65_536
    joined.cancel()
    await asyncio.wait([joined])
    assert ours.fileno() == inner.fileno() == -1
    client.close()
    program.close()
