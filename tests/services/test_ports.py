"""Ports: real listeners on the loopback address for what a sandbox exposes, and nothing for what it does not."""

from __future__ import annotations

import asyncio
import socket

import pytest

from atoll.domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import NetworkMode, Port, Sandbox
from atoll.services.listeners import join

from .conftest import ALICE, House, until


async def exposed(house: House, *ports: int) -> Sandbox:
    sandbox = await house.create(
        "listen", str(ports[0]), network=NetworkMode.EXPOSED, ports=tuple(Port(number) for number in ports)
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
    streams = [*await asyncio.open_connection(sock=ours), *await asyncio.open_connection(sock=inner)]
    _, program_writer = await asyncio.open_connection(sock=program)
    joined = asyncio.create_task(join(*streams, half_closed_s=0.2))
    client.shutdown(socket.SHUT_WR)
    for _ in range(6):
        program_writer.write(says)
        await asyncio.sleep(0.1)
    assert joined.done() is (says == b"")
    program_writer.close()
    await asyncio.wait_for(joined, 3)
    for writer in (streams[1], streams[3]):
        writer.close()
    client.close()
