"""What the services' tests share: a house of fakes, principals, and a check that nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from atoll.domain.key import DEFAULT_SCOPES, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxSpec, SandboxState
from atoll.runtimes.base import Runtime
from atoll.services.limits import Limits
from atoll.services.sandbox_parts import make_sandbox_parts
from atoll.services.sandboxes import Sandboxes
from atoll.testing.fake_runtime import FakeHost, FakeRuntime
from atoll.testing.memory_records import MemoryRecords

ALICE = Principal("key_a11ce0000000", KeyKind.STANDARD, DEFAULT_SCOPES, "alice")
BOB = Principal("key_b0b000000000", KeyKind.STANDARD, DEFAULT_SCOPES, "bob")
OWNER = Principal("key_0143e0000000", KeyKind.OWNER, DEFAULT_SCOPES, "owner")
READER = Principal(ALICE.id, KeyKind.STANDARD, frozenset({Scope.READ}), "reader")

QUICK = Limits(
    make_s=0.5,
    destroy_s=0.5,
    call_s=0.5,
    remove_s=0.5,
    attach_drain_s=0.3,
    stop_grace_s=0.2,
    missing_grace_s=0.05,
    unanswered_apart_s=0.02,
    orphan_grace_s=0.0,
    reconcile_every_s=30.0,
    close_s=1.0,
    build_s=2.0,
    setup_line_s=0.5,
    sandboxes_per_key=5,
)


@dataclass
class House:
    """Records, a machine and the service over them; `restart` is what a new server process would see."""

    data: Path
    records: MemoryRecords = field(default_factory=MemoryRecords)
    host: FakeHost = field(default_factory=FakeHost)
    limits: Limits = QUICK
    aliases: dict[str, str] = field(default_factory=dict)
    runtime: Runtime = field(init=False)
    sandboxes: Sandboxes = field(init=False)

    def __post_init__(self) -> None:
        self.build()

    def build(self, runtime: Runtime | None = None) -> None:
        self.runtime = runtime or FakeRuntime(self.host)
        self.sandboxes = Sandboxes(
            make_sandbox_parts(
                self.records,
                self.runtime,
                self.data,
                limits=self.limits,
                aliases=self.aliases,
                boot_id=lambda: self.host.boot_id,
            )
        )

    async def restart(self, runtime: Runtime | None = None) -> None:
        await self.sandboxes.close()
        await self.runtime.close()
        self.build(runtime)
        await self.sandboxes.start()

    async def state(self, sandbox: Sandbox | str) -> SandboxState:
        record = await self.records.get_sandbox(sandbox if isinstance(sandbox, str) else sandbox.id)
        assert record is not None
        return record.state

    async def record(self, sandbox: Sandbox | str) -> Sandbox:
        record = await self.records.get_sandbox(sandbox if isinstance(sandbox, str) else sandbox.id)
        assert record is not None
        return record

    async def actions(self, sandbox: Sandbox) -> list[str]:
        return [event.action for event in await self.records.list_events(target=sandbox.id)]

    async def create(self, *command: str, principal: Principal = ALICE, **fields: object) -> Sandbox:
        spec = SandboxSpec(command=command, **fields)  # type: ignore[arg-type]
        return await self.sandboxes.create(principal, spec)


async def until(condition: Callable[[], object], within_s: float = 3.0) -> None:
    async with asyncio.timeout(within_s):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.005)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    before = asyncio.all_tasks()
    house = House(tmp_path)
    await house.sandboxes.start()
    yield house
    await house.sandboxes.close()
    await FakeRuntime(house.host).shutdown()
    await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    await asyncio.wait(left, timeout=0.5) if left else None
    assert not [task for task in left if not task.done()], "a task is left behind"
