"""What sandboxes send is cut where their owner's quota ends, and idle connections are; without a sandbox."""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from atoll.domain.errors import Forbidden, Unavailable
from atoll.domain.event import Event
from atoll.domain.ids import new_sandbox_id
from atoll.domain.quota import OverridesOf, QuotaName
from atoll.domain.sandbox import NetworkMode, Sandbox, SandboxSpec, SandboxState
from atoll.gateway.allowance import EgressSpent
from atoll.gateway.egress import Egress
from atoll.gateway.inspection import NameRefused
from atoll.services.egress_quota import EgressQuota
from atoll.services.lives import Live, Lives
from atoll.services.quotas import QuotaLimits, Quotas
from atoll.sidekick.client import GateStream
from atoll.telemetry.metrics import Metrics
from atoll.testing.memory_records import MemoryRecords
from tests.gateway.conftest import Internet

HOST, ADDRESS, OWNER = "good.example", "93.184.216.34", "key_a11ce0000000"
PIECE = 65_536


class World:
    def __init__(self, internet: Internet, most: int | None, idle_s: float = 60.0) -> None:
        self.internet, self.most = internet, most
        self.records, self.metrics = MemoryRecords(), Metrics()
        self.lives = Lives(self.records)
        self.quotas = Quotas(self.records, QuotaLimits(cache_s=0.0), metrics=self.metrics)
        left = EgressQuota(self.lives, self.quotas).left
        self.egress = Egress(internet, internet.connect, left=left, metrics=self.metrics, idle_s=idle_s)
        self.arrived = 0
        self.serving: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self.internet.names[HOST] = [ADDRESS]
        await self.internet.listen(ADDRESS, 7000, self._swallow)
        if self.most is not None:
            overrides = OverridesOf(OWNER, {QuotaName.EGRESS: self.most})
            await self.records.put_quotas(overrides, Event("quota.set", OWNER, OWNER, "admin"))

    async def _swallow(self, reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(PIECE):
            self.arrived += len(data)

    async def sandbox(self) -> Live:
        spec = SandboxSpec(network=NetworkMode.LISTED, allow=(HOST,))
        made = Sandbox(new_sandbox_id(), OWNER, spec, "fake", datetime.now(UTC), state=SandboxState.RUNNING)
        await self.records.add_sandbox(made, Event("sandbox.created", made.id, OWNER, OWNER))
        return self.lives.add(made)

    async def connect(self, live: Live) -> tuple[StreamReader, StreamWriter, asyncio.Task[None]]:
        address = str(self.egress._policy(live).names.address_of(HOST))
        ours, theirs = socket.socketpair()
        stream = GateStream("out", address, 7000, *await asyncio.open_connection(sock=theirs))

        async def serve() -> None:
            try:
                await self.egress.serve(live, stream)
            finally:
                stream.writer.transport.abort()

        self.serving.append(asyncio.create_task(serve()))
        return *await asyncio.open_connection(sock=ours), self.serving[-1]

    async def send(self, live: Live, size: int) -> None:
        """As much of it as goes, in one connection; back when that is over."""
        _, writer, serving = await self.connect(live)
        try:
            writer.write(bytes(size))
            writer.write_eof()
            async with asyncio.timeout(20):
                await asyncio.wait([serving])
        finally:
            writer.close()
        serving.result()

    def refused(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value("egress_refused_total", {"reason": reason})

    async def close(self) -> None:
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)


@pytest.fixture
async def worlds(internet: Internet) -> AsyncIterator[list[World]]:
    made: list[World] = []
    yield made
    for world in made:
        await world.close()


async def begin(worlds: list[World], internet: Internet, most: int | None, **more: float) -> World:
    worlds.append(World(internet, most, **more))
    await worlds[-1].start()
    return worlds[-1]


async def test_a_connection_is_cut_where_the_quota_ends_and_the_next_is_refused(
    worlds: list[World], internet: Internet
) -> None:
    most = 5 * 2**20
    world = await begin(worlds, internet, most)
    live = await world.sandbox()
    await world.send(live, 3 * 2**20)
    assert world.arrived == 3 * 2**20
    await world.send(live, 20 * 2**20)
    # what is cut may lose what was on its way; more than that goes nowhere, and no more is counted
    assert 3 * 2**20 <= world.arrived <= most + PIECE
    assert most <= live.gateway_bytes <= most + PIECE
    with pytest.raises(EgressSpent):
        await world.send(live, 1)
    other = await world.sandbox()
    with pytest.raises(EgressSpent):
        await world.send(other, 1)
    assert world.refused("quota") == 3
    assert [one.action for one in await world.records.list_events(target=OWNER)].count("quota.exceeded") == 1


async def test_sandboxes_of_one_owner_share_what_is_left(worlds: list[World], internet: Internet) -> None:
    most = 20 * 2**20
    world = await begin(worlds, internet, most)
    lives = [await world.sandbox() for _ in range(3)]
    await asyncio.gather(*(world.send(live, 30 * 2**20) for live in lives))
    assert most <= sum(live.gateway_bytes for live in lives) <= most + 2 * 4 * 2**20 + 3 * PIECE


async def test_without_a_bound_all_goes(worlds: list[World], internet: Internet) -> None:
    world = await begin(worlds, internet, None)
    live = await world.sandbox()
    await world.send(live, 9 * 2**20)
    assert world.arrived == 9 * 2**20 == live.gateway_bytes
    assert world.refused("quota") == 0


async def test_what_goes_while_the_records_are_away_is_counted_afterwards(
    worlds: list[World], internet: Internet
) -> None:
    world = await begin(worlds, internet, 2**20)
    live = await world.sandbox()

    async def away(_: Live) -> int | None:
        raise Unavailable("no")

    allowance = world.egress._policy(live).allowance
    asked, allowance._ask = allowance._ask, away
    await world.send(live, 2 * 2**20)
    assert live.gateway_bytes == 2 * 2**20
    allowance._ask, allowance._until = asked, 0.0
    with pytest.raises(EgressSpent):
        await world.send(live, 1)


async def test_a_connection_in_which_nobody_says_anything_is_cut(worlds: list[World], internet: Internet) -> None:
    world = await begin(worlds, internet, None, idle_s=0.2)
    live = await world.sandbox()
    reader, writer, serving = await world.connect(live)
    for _ in range(4):  # longer than it may be idle, and never so long without a word
        writer.write(b"x")
        await asyncio.sleep(0.1)
    assert not serving.done() and world.arrived == 4
    async with asyncio.timeout(10):
        assert await reader.read() == b""
        await serving
    writer.close()


async def test_refused_connections_are_counted_by_their_reasons(worlds: list[World], internet: Internet) -> None:
    world = await begin(worlds, internet, None)
    live = await world.sandbox()
    world.internet.names[HOST] = ["10.0.0.1"]
    with pytest.raises(Forbidden):
        await world.send(live, 1)
    world.internet.names[HOST] = ["93.184.216.99"]
    with pytest.raises(Unavailable):
        await world.send(live, 1)
    assert (world.refused("inside"), world.refused("unreachable"), world.refused("list")) == (1, 1, 0)
    world.internet.names[HOST] = [ADDRESS]
    _, writer, serving = await world.connect(live)
    writer.write(b"GET / HTTP/1.1\r\nHost: bad.example\r\n\r\n")
    with pytest.raises(NameRefused):
        async with asyncio.timeout(10):
            await serving
    writer.close()
    assert world.refused("name") == 1
    stream = GateStream("out", "93.184.216.98", 7000, asyncio.StreamReader(), writer)
    with pytest.raises(Forbidden):
        await world.egress.serve(live, stream)
    assert world.refused("list") == 1
