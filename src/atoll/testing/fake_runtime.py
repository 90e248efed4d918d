"""FakeRuntime: the runtime contract in memory: scripted programs, files in a tree, real rings, deadlines and events.

It isolates nothing and says so; tests of everything above the runtimes use it. A FakeHost is the machine: a second
FakeRuntime on the same host finds what the first one made, as after a restart of the server.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from atoll.domain.errors import Conflict, InvalidInput, NotFound
from atoll.domain.mounts import check_mounts
from atoll.domain.process import MAIN, ProcessSpec
from atoll.domain.sandbox import Resources, SandboxSpec, Usage
from atoll.domain.workspace import Quota, WorkspaceMount
from atoll.runtimes.base import Capability, Check, Ended, Found, Handle, Report, Runtime
from atoll.sidekick.client import GateStream, SidekickClient
from atoll.sidekick.keeper_client import KeeperClient
from atoll.testing.fake_host import FakeHost
from atoll.testing.fake_layers import save_layer
from atoll.testing.fake_sidekick import FakeSidekick

__all__ = ["FakeHost", "FakeRuntime"]


class FakeRuntime(Runtime):
    """The contract on a FakeHost; `make_s` slows `make` down as a real one is slow."""

    name = "fake"

    def __init__(self, host: FakeHost | None = None, *, make_s: float = 0.0) -> None:
        self.host = host or FakeHost()
        self.make_s = make_s
        self._told: set[str] = set()  # ends that are not forgotten yet

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability) - {Capability.LIMITS}

    async def start(self) -> None:
        """Nothing to get ready."""

    async def close(self) -> None:
        """Sandboxes go on, on the host."""

    async def shutdown(self) -> int:
        sandboxes = list(self.host.sandboxes.values())
        for sandbox in sandboxes:
            self.host.events.append(Ended(sandbox.id, "killed", sandbox.usage()))
            self.host.event_added.set()
            await self.destroy(sandbox.id)
        for tree_id in self.host.trees.list():
            self.host.trees.remove(tree_id)
        await self.close()
        return len(sandboxes)

    async def make(self, sandbox_id: str, spec: SandboxSpec) -> Handle:
        if sandbox_id in self.host.sandboxes:
            raise Conflict(f"sandbox {sandbox_id} exists")
        if not spec.work_dir.startswith("/"):
            raise InvalidInput("workDir must be absolute", field="workDir")
        self.check_network(spec.network)
        spec = replace(spec, workspaces=check_mounts(spec.workspaces))
        sandbox = self.host.make(sandbox_id, spec)
        try:
            if spec.work_dir != "/":
                sandbox.files.make_dir(spec.work_dir)
            for path, value in spec.given.files.items():
                sandbox.files.write(path, value, 0o400)
            if spec.command:
                sandbox.start(_main(spec), MAIN)
            if self.make_s:
                await asyncio.sleep(self.make_s)
            sandbox.watch_deadline()
        except BaseException:
            await self.destroy(sandbox_id)
            raise
        if sandbox_id not in self.host.sandboxes:
            raise NotFound(f"sandbox {sandbox_id} was destroyed while it was made")
        return {"boot_id": self.host.boot_id}

    async def find(self, sandbox_id: str) -> Found | None:
        return self._found(sandbox_id) if sandbox_id in self.host.sandboxes else None

    async def list(self) -> list[Found]:
        return [self._found(sandbox_id) for sandbox_id in self.host.sandboxes]

    async def destroy(self, sandbox_id: str) -> Usage | None:
        sandbox = self.host.sandboxes.pop(sandbox_id, None)
        if sandbox is None:
            return None
        await sandbox.vanish()
        return sandbox.usage()

    def sidekick(self, sandbox_id: str) -> SidekickClient:
        return FakeSidekick(self.host, sandbox_id)

    async def dial(self, sandbox_id: str, port: int) -> tuple[StreamReader, StreamWriter]:
        return await self.sidekick(sandbox_id).dial(port)

    async def accept(self, sandbox_id: str) -> GateStream:
        return await self.host.sandbox(sandbox_id).accept()

    async def set_deadline(self, sandbox_id: str, resources: Resources) -> None:
        sandbox = self.host.sandbox(sandbox_id)
        sandbox.resources = replace(
            sandbox.resources,
            timeout_s=resources.timeout_s,
            idle_s=resources.idle_s,
            max_age_s=resources.max_age_s,
        )
        sandbox.watch_deadline()

    async def events(self) -> AsyncIterator[Ended]:
        host = self.host
        while True:
            host.event_added.clear()
            for ended in [ended for ended in host.events if ended.id not in self._told]:
                self._told.add(ended.id)
                yield ended
            await host.event_added.wait()

    async def forget(self, sandbox_id: str) -> None:
        for ended in [ended for ended in self.host.events if ended.id == sandbox_id]:
            self.host.events.remove(ended)
        self._told.discard(sandbox_id)

    async def doctor(self) -> Report:
        check = Check("isolation", False, "the fake isolates nothing", "use the local runtime")
        return Report("unavailable", (check,))

    async def stats(self, sandbox_id: str) -> Usage:
        return self.host.sandbox(sandbox_id).usage()

    async def pause(self, sandbox_id: str) -> None:
        self.host.sandbox(sandbox_id).freeze(True)

    async def resume(self, sandbox_id: str) -> None:
        self.host.sandbox(sandbox_id).freeze(False)

    async def bake(self, sandbox_id: str, destination: str) -> None:
        save_layer(self.host.sandbox(sandbox_id).files, Path(destination))

    async def make_tree(self, tree_id: str, quota: Quota) -> None:
        self.host.trees.make(tree_id, quota)

    async def list_trees(self) -> list[str]:
        return self.host.trees.list()

    async def tree_in_use(self, tree_id: str) -> bool:
        trees = self.host.trees
        users = (sandbox.trees_in_use() for sandbox in self.host.sandboxes.values())
        return tree_id in trees.list() and (trees.linger or any(tree_id in used for used in users))

    async def remove_tree(self, tree_id: str) -> None:
        for sandbox in self.host.sandboxes.values():
            if any(mount.tree_id == tree_id for mount in sandbox.files.mounts):
                raise Conflict(f"tree {tree_id} is mounted in sandbox {sandbox.id}")
        self.host.trees.remove(tree_id)

    async def keeper(self, tree_id: str) -> KeeperClient:
        return self.host.trees.keeper(tree_id)

    async def swap_tree(self, sandbox_id: str, path: str, tree_id: str, *, read_only: bool) -> None:
        sandbox = self.host.sandbox(sandbox_id)
        for process in sandbox.processes.values():
            if process.exit is None:
                sandbox.files.keep(process.id, process.cwd, path)
        sandbox.files.swap(path, tree_id, read_only=read_only)

    async def mount_host(self, sandbox_id: str, root: str, below: str, path: str, *, read_only: bool) -> None:
        self.host.sandbox(sandbox_id).files.mount_host(Path(root, below), path, read_only=read_only)

    async def tree_mounts(self, sandbox_id: str) -> list[WorkspaceMount]:
        return list(self.host.sandbox(sandbox_id).files.mounts)

    def _found(self, sandbox_id: str) -> Found:
        return Found(sandbox_id, {"boot_id": self.host.boot_id}, paused=self.host.sandbox(sandbox_id).frozen)


def _main(spec: SandboxSpec) -> ProcessSpec:
    return ProcessSpec(spec.command, tty=spec.tty, cols=spec.cols, rows=spec.rows, stdin=True)
