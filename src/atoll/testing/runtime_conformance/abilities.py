"""Ports, and the abilities that a runtime declares: those it has work, those it lacks say so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from atoll.domain.errors import NotFound, Unavailable, Unsupported
from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import Resources, SandboxSpec
from atoll.runtimes.base import Capability, Runtime
from atoll.sidekick.client import SidekickClient
from atoll.testing.runtime_conformance.suite import (
    PATIENCE_S,
    Suite,
    able,
    chunks,
    content,
    made,
    read_until,
    sh,
)

PORT = 18_734


class AbilityChecks(Suite):
    async def test_a_port_inside_is_reached(self, runtime: Runtime, sandbox_id: str, inside: SidekickClient) -> None:
        server = await inside.start(ProcessSpec(self.echo_server_argv(PORT)))
        await read_until(server, b"listening")
        data = bytes(range(256)) * 512

        async def round_trip() -> bytes:
            reader, writer = await runtime.dial(sandbox_id, PORT)
            writer.write(data)
            await writer.drain()
            writer.write_eof()
            back = await reader.read(-1)
            writer.close()
            return back

        async with asyncio.timeout(PATIENCE_S):
            assert await asyncio.gather(*(round_trip() for _ in range(4))) == [data] * 4
        await inside.stop(server.id, 0)
        await server.close()

    async def test_a_port_where_nothing_listens_is_unavailable(self, runtime: Runtime, sandbox_id: str) -> None:
        with pytest.raises(Unavailable):
            await runtime.dial(sandbox_id, PORT + 1)
        with pytest.raises(NotFound):
            await runtime.dial(new_sandbox_id(), PORT)

    async def test_a_port_of_one_sandbox_is_not_anothers(self, runtime: Runtime, inside: SidekickClient) -> None:
        server = await inside.start(ProcessSpec(self.echo_server_argv(PORT)))
        await read_until(server, b"listening")
        other = await made(runtime)
        with pytest.raises(Unavailable):
            await runtime.dial(other, PORT)
        await server.close()

    async def test_a_paused_sandbox_stands_still_and_goes_on(self, runtime: Runtime, sandbox_id: str) -> None:
        able(runtime, Capability.PAUSE)
        inside = runtime.sidekick(sandbox_id)
        stream = await inside.start(ProcessSpec(("cat",), stdin=True))
        await stream.write_stdin(b"1\n")
        await read_until(stream, b"1\n")
        await runtime.pause(sandbox_id)
        await runtime.pause(sandbox_id)
        await stream.write_stdin(b"2\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await read_until(stream, b"2\n")
        found = await runtime.find(sandbox_id)
        assert found is not None and found.paused
        await runtime.resume(sandbox_id)
        await runtime.resume(sandbox_id)
        again = await inside.attach(stream.id, 2)
        await read_until(again, b"2\n")
        await stream.close()
        await again.close()

    async def test_a_paused_sandbox_can_be_destroyed(self, runtime: Runtime) -> None:
        able(runtime, Capability.PAUSE)
        sandbox_id = await made(runtime, SandboxSpec(command=("sleep", "100")))
        await runtime.pause(sandbox_id)
        async with asyncio.timeout(PATIENCE_S):
            assert await runtime.destroy(sandbox_id) is not None
        assert await runtime.list() == []

    async def test_a_baked_layer_is_there_and_is_nobodys_to_change(self, runtime: Runtime, tmp_path: Path) -> None:
        able(runtime, Capability.LAYERS)
        builder = await made(runtime)
        await runtime.sidekick(builder).write_file("/opt/tool/config", chunks(b"baked"))
        await sh(runtime.sidekick(builder), "mkdir -p /opt/tool/bin; ln -s ../config /opt/tool/bin/link")
        layer = str(tmp_path / "layer")
        await runtime.bake(builder, layer)
        await runtime.destroy(builder)
        spec = SandboxSpec(layers=(layer,))
        one, other = await made(runtime, spec), await made(runtime, spec)
        assert await content(runtime.sidekick(one), "/opt/tool/bin/link") == b"baked"
        await runtime.sidekick(one).write_file("/opt/tool/config", chunks(b"changed"))
        assert await content(runtime.sidekick(other), "/opt/tool/config") == b"baked"
        await runtime.sidekick(one).remove("/opt/tool", recursive=True)
        third = await made(runtime, spec)
        assert await content(runtime.sidekick(third), "/opt/tool/config") == b"baked"

    async def test_what_is_not_declared_is_unsupported(self, runtime: Runtime, sandbox_id: str) -> None:
        if Capability.PAUSE not in runtime.capabilities:
            with pytest.raises(Unsupported):
                await runtime.pause(sandbox_id)
            with pytest.raises(Unsupported):
                await runtime.resume(sandbox_id)
        if Capability.LAYERS not in runtime.capabilities:
            with pytest.raises(Unsupported):
                await runtime.bake(sandbox_id, "/nonexistent")

    async def test_memory_beyond_the_limit_kills_and_says_so(self, runtime: Runtime) -> None:
        able(runtime, Capability.LIMITS)
        self.need("shell")
        spec = SandboxSpec(resources=Resources(memory_bytes=64 * 2**20))
        inside = runtime.sidekick(await made(runtime, spec))
        end = (await sh(inside, "exec python3 -c 'x = bytearray(256 * 2**20)'")).exit
        assert (end.code, end.oom_killed) == (137, True)
        assert (await sh(inside, "echo alive")).stdout == b"alive\n"

    async def test_processes_beyond_the_limit_are_refused(self, runtime: Runtime) -> None:
        able(runtime, Capability.LIMITS)
        self.need("shell")
        inside = runtime.sidekick(await made(runtime, SandboxSpec(resources=Resources(pids=20))))
        script = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; exit 0"
        assert (await sh(inside, script)).exit.code != 0
