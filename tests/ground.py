"""The ground on which attacks run: one local runtime with alice, who beats and keeps files, and sandboxes for mallory.

The security and runtime fault tests use the `ground` fixture of tests/conftest.py, which checks the oracles after each.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import MAIN, ProcessSpec, RunResult
from atoll.domain.sandbox import Resources, SandboxSpec
from atoll.runtimes.base import Ended
from atoll.runtimes.local.runtime import LocalRuntime
from atoll.sidekick.client import SidekickClient
from tests.oracles import HostOracle, LeakOracle, SecretOracle

ROOT_ONLY = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="attacks the full isolation tier, which needs root"),
    pytest.mark.asyncio(loop_scope="session"),
]

GAP_S = 1.0
SETTLE_S = 5.0
PATIENCE_S = 20.0
_BEAT = "import time\nwhile True:\n    print(f'{time.monotonic():.3f}', flush=True)\n    time.sleep(0.05)\n"


class Tenant:
    """One sandbox and words to act in it."""

    def __init__(self, runtime: LocalRuntime, sandbox_id: str) -> None:
        self.runtime = runtime
        self.id = sandbox_id

    @property
    def inside(self) -> SidekickClient:
        return self.runtime.sidekick(self.id)

    async def pid(self) -> int:
        """Its sidekick's, on the host."""
        found = await self.runtime.find(self.id)
        assert found is not None
        return int(found.handle["pid"])

    async def sh(self, script: str, *, within_s: float = PATIENCE_S, **fields: Any) -> RunResult:
        async with asyncio.timeout(within_s):
            return await self.inside.run(ProcessSpec(("sh", "-c", script), **fields))

    async def python(self, program: str, *, within_s: float = PATIENCE_S, **fields: Any) -> RunResult:
        """Run a Python program that comes by stdin."""
        spec = ProcessSpec(("python3", "-I", "-"), stdin=True, **fields)
        async with asyncio.timeout(within_s):
            return await self.inside.run(spec, stdin=program.encode())

    async def told(self, program: str, **fields: Any) -> Any:
        """What a Python program printed, as JSON; its failure is the test's."""
        result = await self.python(program, **fields)
        assert result.exit.code == 0, (result.exit, result.stderr.decode(errors="replace"))
        return json.loads(result.stdout)

    async def start(self, *argv: str, **fields: Any) -> str:
        """A process that goes on by itself; its id."""
        stream = await self.inside.start(ProcessSpec(argv, **fields))
        await stream.close()
        return stream.id

    async def answers(self, within_s: float = 5.0) -> bool:
        try:
            result = await self.sh("echo alive", within_s=within_s)
        except Exception:
            return False
        return result.stdout == b"alive\n"


class Witness:
    """O7: alice, whose sandbox beats every 50 ms and keeps a file; both must go on undisturbed."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self._offset = 0
        self._last = 0.0

    @classmethod
    async def move_in(cls, runtime: LocalRuntime, secret: str) -> Witness:
        tenant = Tenant(runtime, new_sandbox_id())
        spec = SandboxSpec(command=("python3", "-u", "-c", _BEAT), env={"ALICES_SECRET": secret})
        await runtime.make(tenant.id, spec)
        witness = cls(tenant)
        await tenant.sh("echo kept > /home/user/mine; chmod 600 /home/user/mine")
        await witness.longest_gap_s()
        return witness

    async def longest_gap_s(self) -> float:
        """Between beats since the last call, the one that may still be open included."""
        until, longest = time.monotonic(), 0.0
        stream = await self.tenant.inside.attach(MAIN, self._offset)
        rest = b""
        try:
            async with asyncio.timeout(PATIENCE_S):
                async for _, data in stream:
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        beat = float(line)
                        longest = max(longest, beat - (self._last or beat))
                        self._last = beat
                    if self._last >= until:
                        break
        finally:
            self._offset = stream.offset - len(rest)
            await stream.close()
        return longest

    async def check(self) -> None:
        gap_s = await self.longest_gap_s()
        assert gap_s < GAP_S, f"O7: alice stood still for {gap_s:.2f} s"
        kept = await self.tenant.sh("cat /home/user/mine; ls /home/user; ls -A /tmp")
        assert kept.stdout == b"kept\nmine\n", f"O7: alice's files changed: {kept.stdout!r}"


class Ground:
    """A runtime under attack. `make` gives sandboxes that are gone again after the test."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.runtime = LocalRuntime(data)
        self.host: HostOracle = HostOracle(data.parent)
        self.leaks = LeakOracle(data)
        self.secrets = SecretOracle(data)
        self.alice: Witness
        self.ended: dict[str, tuple[Ended, float]] = {}  # who ended by itself, and when that was told
        self.told: list[str] = []
        self._listening: asyncio.Task[None] | None = None
        self._tenants: list[Tenant] = []
        self._settled: dict[str, object] = {}

    async def settle(self) -> None:
        """Alice moves in; from here on the machine must come back to this state after each test."""
        await self.runtime.start()
        self._listening = asyncio.create_task(self._listen())
        self.alice = await Witness.move_in(self.runtime, self.secrets.in_environment)
        before: dict[str, object] = {}
        async with asyncio.timeout(PATIENCE_S):
            while (now := self.leaks.look()) != before:
                before = now
                await asyncio.sleep(0.3)
        self._settled = now

    async def make(self, spec: SandboxSpec | None = None, **resources: Any) -> Tenant:
        if spec is None:
            spec = SandboxSpec(resources=Resources(**resources), env={"TOKEN": self.secrets.in_environment})
        tenant = Tenant(self.runtime, new_sandbox_id())
        self._tenants.append(tenant)
        await self.runtime.make(tenant.id, spec)
        return tenant

    async def _listen(self) -> None:
        async for ended in self.runtime.events():
            self.ended[ended.id] = (ended, time.monotonic())
            self.told.append(ended.id)
            await self.runtime.forget(ended.id)

    async def end_of(self, tenant: Tenant, within_s: float = 10.0) -> tuple[Ended, float]:
        """How and when a sandbox ended by itself."""
        await until(lambda: tenant.id in self.ended, f"{tenant.id} ends", within_s)
        assert self.told.count(tenant.id) == 1
        return self.ended[tenant.id]

    async def begin(self) -> None:
        await self.alice.longest_gap_s()

    async def end(self) -> None:
        """Destroy what the test made, then ask every oracle."""
        tenants, self._tenants = self._tenants, []
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(self.runtime.destroy(tenant.id) for tenant in tenants))
        await self.alice.check()
        await self.check_leaks()
        self.host.check()
        self.secrets.check()
        log = self.node_log()
        assert not log, f"the node or a sidekick complained: {log[-2000:]}"

    async def check_leaks(self) -> None:
        deadline = time.monotonic() + SETTLE_S
        while (now := self.leaks.look()) != self._settled and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        changes = {name: (was, now[name]) for name, was in self._settled.items() if was != now[name]}
        assert not changes, f"O2: not as before within {SETTLE_S:g} s: {changes}"

    def node_log(self) -> str:
        return (self.data / "run" / "node.log").read_text(errors="replace")

    async def leave(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self.runtime.shutdown()
        try:
            left = self.leaks.processes(), self.leaks.cgroups(), self.leaks.loops(), self.leaks.node()
            assert left == ([], [], [], 0), f"O2: shutdown left {left}"
        finally:
            self.host.remove()


async def until(condition: Callable[[], Awaitable[bool] | bool], what: str, within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.02)
