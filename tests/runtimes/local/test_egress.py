"""Egress: what a sandbox of the local runtime sends is in its figures, also when it has ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import NetworkMode, SandboxSpec
from atoll.runtimes.local.runtime import LocalRuntime

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a sandbox's network needs root")]
# To the other end of its own link, where the host drops it: nothing leaves the machine.
SEND = """
import socket, struct
routes = [line.split() for line in open("/proc/net/route").readlines()[1:]]
gateway = next(socket.inet_ntoa(struct.pack("=I", int(way[2], 16))) for way in routes if way[1] == "00000000")
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(10):
    out.sendto(bytes(1000), (gateway, 9))
"""


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[LocalRuntime]:
    runtime = LocalRuntime(tmp_path / "data", spares=0)
    await runtime.start()
    yield runtime
    await runtime.shutdown()


async def sent_by(runtime: LocalRuntime, sandbox_id: str) -> int:
    stream = await runtime.sidekick(sandbox_id).start(ProcessSpec(("python3", "-c", SEND)))
    output = [data async for _, data in stream]
    await stream.close()
    assert stream.exit is not None
    assert stream.exit.code == 0, output
    return (await runtime.stats(sandbox_id)).sent_bytes


async def test_what_a_sandbox_sends_is_in_its_figures(runtime: LocalRuntime) -> None:
    sandbox_id = new_sandbox_id()
    await runtime.make(sandbox_id, SandboxSpec(network=NetworkMode.OUTGOING))
    sent = await sent_by(runtime, sandbox_id)
    assert 10_000 <= sent < 20_000
    final = await runtime.destroy(sandbox_id)
    assert final is not None
    assert final.sent_bytes >= sent


async def test_one_that_its_deadline_ends_is_measured_to_its_end(runtime: LocalRuntime) -> None:
    sandbox_id = new_sandbox_id()
    await runtime.make(sandbox_id, SandboxSpec(network=NetworkMode.OUTGOING))
    sent = await sent_by(runtime, sandbox_id)
    resources = SandboxSpec().resources
    await runtime.set_deadline(sandbox_id, replace(resources, timeout_s=0.1))
    async with asyncio.timeout(10):
        ended = await anext(runtime.events())
    assert (ended.id, ended.reason) == (sandbox_id, "timeout")
    assert ended.usage.sent_bytes >= sent


async def test_one_without_a_network_sends_nothing(runtime: LocalRuntime) -> None:
    sandbox_id = new_sandbox_id()
    await runtime.make(sandbox_id, SandboxSpec())
    assert (await runtime.stats(sandbox_id)).sent_bytes == 0
    final = await runtime.destroy(sandbox_id)
    assert final is not None
    assert final.sent_bytes == 0
