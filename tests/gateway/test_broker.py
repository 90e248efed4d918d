"""Brokered secrets: a value that is in no sandbox, in requests to its hosts and nowhere else."""

from __future__ import annotations

import asyncio
import base64
import ssl
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from atoll.domain.brokering import Substitution, placeholder
from atoll.domain.errors import Conflict
from atoll.domain.sandbox import NetworkMode, Sandbox, SandboxSpec, SandboxState
from atoll.gateway.broker import BrokerRefused
from atoll.gateway.egress import Egress
from atoll.services.authorities import Authorities
from atoll.services.giving import NoGiving
from atoll.services.lives import Live
from atoll.sidekick.client import GateStream
from atoll.telemetry.metrics import Metrics
from tests.gateway.conftest import Internet

HOST, OTHER, ADDRESS = "api.example", "other.example", "93.184.216.34"
VALUE = b"the-value-itself"
ID = "sess_000000000001"
STANDS = placeholder(ID, "sec_1")


class Giving(NoGiving):
    def __init__(self, value: bytes = VALUE) -> None:
        self.value = value
        self.gone = False

    async def brokered(self, sandbox: Sandbox, host: str) -> tuple[Substitution, ...]:
        if self.gone:
            raise Conflict
        return (Substitution(STANDS.encode(), self.value),) if host == HOST else ()


@dataclass
class World:
    egress: Egress
    internet: Internet
    authorities: Authorities
    live: Live
    metrics: Metrics
    heard: list[bytes] = field(default_factory=list[bytes])

    def refused(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value("egress_refused_total", {"reason": reason})

    async def say(self, words: bytes, *, host: str = HOST, port: int = 80, tls: ssl.SSLContext | None = None) -> bytes:
        """What a program inside that connects to `host` and says this is answered, until the other side hangs up."""
        reader, writer, serving = await self.connect(host, port)
        try:
            if tls is not None:
                await writer.start_tls(tls, server_hostname=host)
            writer.write(words)
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def connect(self, host: str, port: int) -> tuple[StreamReader, StreamWriter, asyncio.Task[None]]:
        import socket

        address = str(self.egress._policy(self.live).names.address_of(host))
        ours, theirs = socket.socketpair()
        stream = GateStream("out", address, port, *await asyncio.open_connection(sock=theirs))

        async def serve() -> None:
            try:
                await self.egress.serve(self.live, stream)
            finally:
                stream.writer.transport.abort()

        serving = asyncio.create_task(serve())
        return *await asyncio.open_connection(sock=ours), serving

    async def http(self, reader: StreamReader, writer: StreamWriter) -> None:
        """A server that says what it has heard, and repeats what it was given as authorization."""
        while head := await reader.readuntil(b"\r\n\r\n"):
            self.heard.append(head)
            token = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization")), b"")
            echo = b"X-Echo: " + token.partition(b": ")[2]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n" + echo + b"\r\n\r\nok")
            await writer.drain()
            return


@pytest.fixture
def world(tmp_path: Path, internet: Internet) -> World:
    internet.names |= {HOST: [ADDRESS], OTHER: [ADDRESS]}
    authorities = Authorities(tmp_path / "seed")
    metrics = Metrics()
    egress = Egress(
        internet,
        internet.connect,
        giving=Giving(),
        authorities=authorities,
        ca_file=tmp_path / "outer.pem",
        metrics=metrics,
    )
    outer = Authorities(tmp_path / "outer-seed")
    (tmp_path / "outer.pem").write_bytes(outer.bundle("outside"))
    spec = SandboxSpec(network=NetworkMode.LISTED, allow=(HOST, OTHER))
    live = Live(Sandbox(ID, "key_1", spec, "fake", datetime.now(UTC), state=SandboxState.RUNNING))
    return World(egress, internet, authorities, live, metrics)


def request(host: str, *headers: str, target: str = "/") -> bytes:
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def test_a_placeholder_becomes_the_value_in_headers_and_target_for_its_host_alone(world: World) -> None:
    await world.internet.listen(ADDRESS, 80, world.http)
    basic = base64.b64encode(f"user:{STANDS}".encode()).decode()
    answer = await world.say(request(HOST, f"Authorization: Bearer {STANDS}", target=f"/a?key={STANDS}"))
    assert b"200 OK" in answer
    assert b"Authorization: Bearer the-value-itself" in world.heard[0] and b"/a?key=the-value-itself " in world.heard[0]
    await world.say(request(HOST, f"Authorization: Basic {basic}"))
    assert base64.b64encode(b"user:" + VALUE) in world.heard[1]
    await world.say(request(HOST, f"Authorization: Basic {STANDS}"))  # a secret that is the coded text itself
    assert b"Authorization: Basic the-value-itself" in world.heard[2]
    await world.say(request(OTHER, f"Authorization: Bearer {STANDS}"), host=OTHER)
    assert STANDS.encode() in world.heard[3] and VALUE not in world.heard[3]


async def test_a_value_that_the_host_repeats_in_a_header_is_masked(world: World) -> None:
    await world.internet.listen(ADDRESS, 80, world.http)
    answer = await world.say(request(HOST, f"Authorization: Bearer {STANDS}"))
    assert f"X-Echo: Bearer {STANDS}".encode() in answer and VALUE not in answer


async def test_so_is_one_that_it_repeats_as_it_was_given_it(world: World) -> None:
    """In a redirect, which keeps the query, in the words beside the status, in what follows the body."""
    value = b"a+b/c==and more"
    world.egress._giving = Giving(value)
    basic = base64.b64encode(f"user:{STANDS}".encode())

    async def repeats(reader: StreamReader, writer: StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        world.heard.append(head)
        key, login = (head.split(name + b": ")[1].split(b"\r\n")[0] for name in (b"X-Key", b"Authorization"))
        writer.write(b"HTTP/1.1 302 for " + key + b"\r\nLocation: https://api.example" + head.split(b" ")[1])
        writer.write(b"\r\nX-Login: " + login + b"\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"0\r\nX-Last: " + key + b"\r\n\r\n")

    await world.internet.listen(ADDRESS, 80, repeats)
    words = request(HOST, f"X-Key: {STANDS}", f"Authorization: Basic {basic.decode()}", target=f"/?key={STANDS}")
    answer = await world.say(words)
    assert b"?key=a%2Bb%2Fc%3D%3Dand%20more" in world.heard[0]
    for form in (value, b"a%2Bb", base64.b64encode(b"user:" + value)):
        assert form not in answer
    assert answer.count(STANDS.encode()) == 3 and basic in answer


async def test_tls_ends_at_the_gateway_under_an_authority_of_this_sandbox(world: World, tmp_path: Path) -> None:
    outer = Authorities(tmp_path / "outer-seed").context("outside", HOST)

    async def secure(reader: StreamReader, writer: StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        transport = await loop.start_tls(writer.transport, writer.transport.get_protocol(), outer, server_side=True)
        assert transport is not None
        writer._transport = transport  # type: ignore[attr-defined]
        await world.http(reader, writer)

    await world.internet.listen(ADDRESS, 443, secure)
    trusting = ssl.create_default_context(cadata=world.authorities.bundle(ID).decode())
    answer = await world.say(request(HOST, f"X-Key: {STANDS}"), port=443, tls=trusting)
    assert b"200 OK" in answer and b"X-Key: the-value-itself" in world.heard[0]
    # of another sandbox, and of nobody: a program that trusts something else says nothing
    for bundle in (world.authorities.bundle("sess_000000000002"), Authorities(tmp_path / "x").bundle(ID)):
        with pytest.raises(ssl.SSLError):
            foreign = ssl.create_default_context(cadata=bundle.decode())
            await world.say(request(HOST, f"X-Key: {STANDS}"), port=443, tls=foreign)
    assert len(world.heard) == 1


async def test_a_host_without_a_trusted_certificate_gets_no_value(world: World, tmp_path: Path) -> None:
    wrong = Authorities(tmp_path / "wrong").context("outside", HOST)
    heard: list[bytes] = []

    async def secure(reader: StreamReader, writer: StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.start_tls(writer.transport, writer.transport.get_protocol(), wrong, server_side=True)
        except ssl.SSLError:
            return
        heard.append(await reader.read(1000))

    await world.internet.listen(ADDRESS, 443, secure)
    trusting = ssl.create_default_context(cadata=world.authorities.bundle(ID).decode())
    with pytest.raises(OSError):
        assert await world.say(request(HOST, f"X-Key: {STANDS}"), port=443, tls=trusting) == b""
        raise ConnectionError
    assert VALUE not in b"".join(heard)


@pytest.mark.parametrize(
    "words",
    [
        request(OTHER, f"X-Key: {STANDS}"),
        b"GET / HTTP/1.1\r\nHost: api.example\r\nHost: other.example\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"GET / HTTP/1.1\r\nHost: api.example\r\nX: a\r\n folded: b\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"CONNECT other.example:443 HTTP/1.1\r\nHost: api.example\r\n\r\n",
        request(HOST, f"X-Key: {STANDS}", target="http://other.example/"),  # the whole URL is what counts
        request(HOST, f"X-Key: {STANDS}", target="@other.example/"),
        request(HOST, f"X-Key: {STANDS}").replace(b"GET", b"TRACE"),  # whose answer is the request
        b"GET / HTTP/1.1\r\nHost: api.example\r\nX: a\x00b\r\n\r\n",
    ],
)
async def test_requests_that_mean_two_things_or_another_host_are_refused(world: World, words: bytes) -> None:
    await world.internet.listen(ADDRESS, 80, world.http)
    answer = await world.say(words)
    assert b"200 OK" not in answer
    for head in world.heard:  # what h11 can read in one way only is written anew in that way
        assert b"other.example" not in head
        assert head.lower().count(b"content-length") + head.lower().count(b"transfer-encoding") <= 1


async def test_a_value_that_no_header_can_hold_ends_the_exchange_and_stands_in_no_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.internet.listen(ADDRESS, 80, world.http)
    world.egress._giving = Giving(b"two\r\nlines: x")
    _reader, writer, serving = await world.connect(HOST, 80)
    writer.write(request(HOST, f"X-Key: {STANDS}"))
    with pytest.raises(OSError) as caught:
        await serving
    assert "lines" not in str(caught.value) and caught.value.__suppress_context__
    writer.close()
    assert world.heard == []


async def test_a_request_that_its_values_make_too_long_is_not_made(world: World) -> None:
    await world.internet.listen(ADDRESS, 80, world.http)
    world.egress._giving = Giving(b"v" * 30_000)
    assert b"200 OK" in await world.say(request(HOST, f"X-Key: {STANDS}{STANDS}"))
    for words in (request(HOST, f"X-Key: {STANDS * 5}"), request(HOST, *[f"X-Key: {STANDS}"] * 5)):
        _reader, writer, serving = await world.connect(HOST, 80)
        writer.write(words)
        with pytest.raises(BrokerRefused):
            await serving
        writer.close()
    assert len(world.heard) == 1


async def test_a_head_of_more_lines_than_any_has_ends_the_exchange(world: World) -> None:
    """Of the program's or of the host's; behind another request, too. Its body may have any number of them."""
    many, body = "a:b\r\n" * 300, b"\n" * 1000

    async def answers(reader: StreamReader, writer: StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            world.heard.append(head)
            if head.startswith(b"POST"):
                await reader.readexactly(len(body))
            crowd = many.encode() if b"/crowd" in head else b""
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + crowd + b"\r\nok")

    await world.internet.listen(ADDRESS, 80, answers)
    crowded = request(HOST).replace(b"\r\n\r\n", b"\r\n" + many.encode() + b"\r\n")
    posted = request(HOST, f"Content-Length: {len(body)}").replace(b"GET", b"POST") + body
    for words, passed in ((crowded, 0), (posted + crowded, 1), (request(HOST, target="/crowd"), 0)):
        answer = await world.say(words)
        assert answer.count(b" 200 OK") == passed, words[:40]
    assert len(world.heard) == 2


async def test_small_chunks_leave_the_others_their_turn(world: World) -> None:
    count, turns, arrived = 3000, 0, 0
    all_there = asyncio.Event()

    async def swallow(reader: StreamReader, writer: StreamWriter) -> None:
        nonlocal arrived
        while data := await reader.read(65_536):
            arrived += data.count(b"a\r\n")
            if arrived >= count:
                all_there.set()

    async def other() -> None:
        nonlocal turns
        while not all_there.is_set():
            turns += 1
            await asyncio.sleep(0)

    await world.internet.listen(ADDRESS, 80, swallow)
    _reader, writer, serving = await world.connect(HOST, 80)
    writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    writer.write(b"1\r\na\r\n" * count)
    async with asyncio.timeout(20):
        await other()
    assert turns > count
    writer.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_bodies_pass_both_ways_and_connections_are_used_again(world: World) -> None:
    async def twice(reader: StreamReader, writer: StreamWriter) -> None:
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(size)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(f"{size:x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
            await writer.drain()

    await world.internet.listen(ADDRESS, 80, twice)
    reader, writer, serving = await world.connect(HOST, 80)
    body = STANDS.encode() + bytes(300_000)  # in a body nothing is replaced
    for _ in range(2):
        writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(10):
            await reader.readuntil(b"\r\n\r\n")
            got = b""
            while size := int(await reader.readline(), 16):
                got += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        assert got == body
    writer.close()
    await asyncio.gather(serving, return_exceptions=True)
    assert world.live.gateway_bytes > 2 * len(body)


async def test_each_request_of_a_connection_has_the_value_of_that_moment_and_none_after_its_end(world: World) -> None:
    async def keep_alive(reader: StreamReader, writer: StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            world.heard.append(head)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await world.internet.listen(ADDRESS, 80, keep_alive)
    giving = world.egress._giving = Giving()
    reader, writer, serving = await world.connect(HOST, 80)

    async def ask() -> bytes:
        writer.write(request(HOST, f"X-Key: {STANDS}"))
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 200"):
                assert await reader.readexactly(2) == b"ok"
            return head.split(b"\r\n")[0]

    assert await ask() == b"HTTP/1.1 200 OK"
    giving.value = b"rotated-meanwhile"
    assert await ask() == b"HTTP/1.1 200 OK"
    giving.gone = True
    assert await ask() == b"HTTP/1.1 403 "
    async with asyncio.timeout(10):
        await reader.read()  # and the connection is over
    assert [VALUE in head for head in world.heard] == [True, False]
    assert b"rotated-meanwhile" in world.heard[1] and len(world.heard) == 2
    assert world.refused("secret") == 1
    writer.close()
    await asyncio.gather(serving, return_exceptions=True)


async def test_what_follows_an_upgrade_counts_as_sent(world: World) -> None:
    async def upgrade(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.readexactly(50_000)

    await world.internet.listen(ADDRESS, 80, upgrade)
    await world.say(request(HOST, "Connection: Upgrade", "Upgrade: websocket") + bytes(50_000))
    assert world.live.gateway_bytes > 50_000


async def test_websockets_pass_after_their_upgrade(world: World) -> None:
    async def upgrade(reader: StreamReader, writer: StreamWriter) -> None:
        world.heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
        writer.write(b"got " + await reader.readexactly(4))

    await world.internet.listen(ADDRESS, 80, upgrade)
    words = request(HOST, "Connection: Upgrade", "Upgrade: websocket", f"Authorization: Bearer {STANDS}") + b"ping"
    answer = await world.say(words)
    assert answer.endswith(b"firstgot ping")
    assert VALUE in world.heard[0]


def test_the_authority_of_a_sandbox_is_the_same_after_a_restart(tmp_path: Path) -> None:
    first = Authorities(tmp_path / "seed")
    trusting = ssl.create_default_context(cadata=first.bundle(ID).decode())
    again = Authorities(tmp_path / "seed").context(ID, HOST)
    program, gateway = (ssl.MemoryBIO(), ssl.MemoryBIO()), None
    inside = trusting.wrap_bio(program[0], program[1], server_hostname=HOST)
    gateway = again.wrap_bio(program[1], program[0], server_side=True)
    done: set[str] = set()
    for _ in range(8):
        for name, side in (("inside", inside), ("gateway", gateway)):
            try:
                side.do_handshake()
                done.add(name)
            except ssl.SSLWantReadError:
                pass
    assert done == {"inside", "gateway"}
    assert (tmp_path / "seed").stat().st_mode & 0o777 == 0o600
