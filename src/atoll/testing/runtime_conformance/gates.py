"""Gates: streams that programs send to the server, which knows of each what sandbox it came out of."""

from __future__ import annotations

import asyncio

import pytest

from atoll.domain.errors import Conflict, NotFound
from atoll.domain.ids import new_sandbox_id
from atoll.domain.key import Scope
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import Grant, NetworkMode, SandboxSpec
from atoll.runtimes.base import Capability, Runtime
from atoll.sidekick.gates import MODEL_PORT
from atoll.testing.runtime_conformance.suite import PATIENCE_S, Suite, able

READ = SandboxSpec(capability=Grant(frozenset({Scope.READ})))
CALL = (
    "import os, socket, urllib.parse as u\n"
    "sock = socket.create_connection(u.urlsplit(os.environ['ATOLL_URL']).netloc.split(':'))\n"
    "sock.sendall(b'in')\n"
    "print(sock.recv(100).decode())\n"
)
ASK_MODEL = (
    "import socket\n"
    "try:\n"
    f"    sock = socket.create_connection(('127.0.0.1', {MODEL_PORT}))\n"
    "except ConnectionRefusedError:\n"
    "    raise SystemExit('refused')\n"
    "sock.sendall(b'in')\n"
    "print(sock.recv(100).decode())\n"
)
GO_OUT = (
    "import socket\n"
    "sock = socket.create_connection(('93.184.216.34', 4321))\n"
    "sock.sendall(b'in')\n"
    "print(sock.recv(100).decode())\n"
)


class GateChecks(Suite):
    async def test_a_sandbox_without_a_gate_has_nothing_to_accept(self, runtime: Runtime, sandbox_id: str) -> None:
        able(runtime, Capability.GATES)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(Conflict):
                await runtime.accept(sandbox_id)
            with pytest.raises(NotFound):
                await runtime.accept(new_sandbox_id())

    async def test_waiting_at_a_gate_ends_with_the_sandbox(self, runtime: Runtime) -> None:
        able(runtime, Capability.GATES)
        sandbox_id = new_sandbox_id()
        await runtime.make(sandbox_id, READ)
        waiting = [asyncio.create_task(runtime.accept(sandbox_id)) for _ in range(3)]
        await asyncio.sleep(0.05)
        await runtime.destroy(sandbox_id)
        async with asyncio.timeout(PATIENCE_S):
            ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [NotFound] * 3

    async def test_a_program_reaches_the_server_at_the_gate(self, runtime: Runtime) -> None:
        self._able_to_connect(runtime, Capability.GATES)
        first, second = new_sandbox_id(), new_sandbox_id()
        for sandbox_id in (first, second):
            await runtime.make(sandbox_id, READ)
            inside = runtime.sidekick(sandbox_id)
            running = asyncio.create_task(inside.run(ProcessSpec(("python3", "-c", CALL))))
            async with asyncio.timeout(PATIENCE_S):
                stream = await runtime.accept(sandbox_id)
                assert (stream.gate, stream.address, await stream.reader.readexactly(2)) == ("api", "", b"in")
                stream.writer.write(sandbox_id.encode())
                stream.writer.close()
                assert (await running).stdout.decode().strip() == sandbox_id

    async def test_the_programs_of_a_task_and_no_others_reach_the_model_gate(self, runtime: Runtime) -> None:
        self._able_to_connect(runtime, Capability.GATES)
        for spec in (SandboxSpec(task="task_1"), SandboxSpec(task="task_1", network=NetworkMode.LISTED), READ):
            if spec.network is NetworkMode.LISTED and Capability.LISTED not in runtime.capabilities:
                continue
            sandbox_id = new_sandbox_id()
            await runtime.make(sandbox_id, spec)
            inside = runtime.sidekick(sandbox_id)
            running = asyncio.create_task(inside.run(ProcessSpec(("python3", "-c", ASK_MODEL))))
            async with asyncio.timeout(PATIENCE_S):
                if spec is READ:
                    assert (await running).stderr == b"refused\n"
                    continue
                stream = await runtime.accept(sandbox_id)
                assert (stream.gate, await stream.reader.readexactly(2)) == ("model", b"in")
                stream.writer.write(b"out")
                stream.writer.close()
                assert (await running).stdout == b"out\n"

    async def test_what_leaves_a_sandbox_with_a_list_says_where_it_meant_to_go(self, runtime: Runtime) -> None:
        self._able_to_connect(runtime, Capability.LISTED)
        sandbox_id = new_sandbox_id()
        await runtime.make(sandbox_id, SandboxSpec(network=NetworkMode.LISTED))
        inside = runtime.sidekick(sandbox_id)
        # nobody waits yet: the connection does
        running = asyncio.create_task(inside.run(ProcessSpec(("python3", "-c", GO_OUT))))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(PATIENCE_S):
            stream = await runtime.accept(sandbox_id)
            assert (stream.gate, stream.address, stream.port) == ("out", "93.184.216.34", 4321)
            assert await stream.reader.readexactly(2) == b"in"
            stream.writer.write(b"out")
            stream.writer.close()
            assert (await running).stdout == b"out\n"

    def _able_to_connect(self, runtime: Runtime, capability: Capability) -> None:
        able(runtime, capability)
        if "shell" not in self.features:
            pytest.skip("its programs connect to nothing")
