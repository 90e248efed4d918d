"""FakeRuntime: the runtime contract in memory: scripted programs, files in a tree, real rings, deadlines and events.

It isolates nothing and says so; tests of everything above the runtimes use it. A FakeHost is the machine: a second
FakeRuntime on the same host finds what the first one made, as after a restart of the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from asyncio import StreamReader, StreamWriter
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from atoll.domain.copied import CopiedEntry, CopyEnd
from atoll.domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from atoll.domain.mounts import check_mounts
from atoll.domain.process import MAIN, Exit, FileEntry, ProcessInfo, ProcessSpec, RunResult
from atoll.domain.sandbox import NetworkMode, Resources, SandboxSpec, Usage
from atoll.domain.secret import FILES_FOLDER
from atoll.domain.workspace import Quota, WorkspaceMount
from atoll.runtimes.base import Capability, Check, Ended, Found, Handle, Report, Runtime
from atoll.sidekick.client import GateStream, ProcessStream, SidekickClient, WatchStream
from atoll.sidekick.keeper_client import KeeperClient
from atoll.sidekick.protocol import CHUNK_BYTES, STDERR, STDOUT
from atoll.testing.fake_copying import copied
from atoll.testing.fake_files import FakeFiles
from atoll.testing.fake_processes import FakeProcess, FakeStream
from atoll.testing.fake_programs import Context, run
from atoll.testing.fake_trees import FakeTrees, TreeFiles
from atoll.testing.fake_watch import FakeWatch, listening

ENDED_KEPT = 32
EVENTS_MAX = 10_000


class FakeSandbox:
    """One sandbox of a FakeHost."""

    def __init__(self, host: FakeHost, sandbox_id: str, spec: SandboxSpec) -> None:
        self.id = sandbox_id
        self.spec = spec
        self.resources = spec.resources
        self.files = TreeFiles(host.trees, spec.workspaces)
        self.listening: set[int] = set()
        self.processes: dict[str, FakeProcess] = {}
        self.started = self.last_active = time.monotonic()
        self.cpu_s, self.sent_bytes = 0.001, 0  # what tests say that it used
        self.frozen = False
        self._host = host
        self._count = 0
        self._streams: asyncio.Queue[GateStream] = asyncio.Queue(64)
        self._gone = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        for layer in spec.layers:
            _load_layer(self.files, Path(layer))

    def start(self, spec: ProcessSpec, process_id: str | None = None) -> FakeProcess:
        cwd = spec.cwd or self.spec.work_dir
        if not self.files.is_dir(cwd):
            raise InvalidInput(f"cwd {cwd!r}: no such directory", field="cwd")
        if process_id is None:
            self._count += 1
            process_id = f"p{self._count}"
        own = self.spec.given.env if process_id == MAIN else {}
        process = FakeProcess(process_id, 100 + self._count, spec, cwd, {**self.spec.env, **own, **spec.env})
        if self.frozen:
            process.running.clear()
        self.processes[process_id] = process
        ended = [p for p in self.processes.values() if p.exit is not None and p.id != MAIN]
        for old in ended[: max(0, len(ended) - ENDED_KEPT)]:
            del self.processes[old.id]
        context = Context(process, self.files, self.listening)
        process.start(lambda _process: run(context))
        return process

    async def connect(self, gate: str, address: str = "", port: int = 0) -> tuple[StreamReader, StreamWriter]:
        """As a program inside does: the stream that `accept` gives to the server."""
        ours, theirs = socket.socketpair()
        self._streams.put_nowait(GateStream(gate, address, port, *await asyncio.open_connection(sock=theirs)))
        return await asyncio.open_connection(sock=ours)

    async def accept(self) -> GateStream:
        spec = self.spec
        if spec.capability is None and spec.task is None and spec.network is not NetworkMode.LISTED:
            raise Conflict("this sandbox has no gate")
        taken, gone = asyncio.create_task(self._streams.get()), asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait((taken, gone), return_when=asyncio.FIRST_COMPLETED)
            if taken.done():
                return taken.result()
            raise NotFound(f"sandbox {self.id} has ended")
        finally:
            for task in (taken, gone):
                task.cancel()

    def touch(self) -> None:
        """A request came: it is not idle."""
        self.last_active = time.monotonic()

    def watch_deadline(self) -> None:
        """End it when its first limit passes."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        now = time.monotonic()
        limits = self.resources
        due = [
            (after_s - (now - since), reason)
            for after_s, since, reason in (
                (limits.timeout_s, self.started, "timeout"),
                (limits.idle_s, self._idle_since(now), "idle"),
                (limits.max_age_s, self.started, "max_age"),
            )
            if after_s is not None
        ]
        if not due:
            return
        left_s, reason = min(due)
        loop = asyncio.get_running_loop()
        if left_s <= 0:
            self._host.end(self, reason)
        else:
            self._deadline = loop.call_later(min(left_s, 0.05) + 0.001, self.watch_deadline)

    def freeze(self, frozen: bool) -> None:
        self.frozen = frozen
        for process in self.processes.values():
            process.running.clear() if frozen else process.running.set()

    def usage(self) -> Usage:
        elapsed_s = time.monotonic() - self.started
        return Usage(elapsed_s, cpu_s=self.cpu_s, memory_peak_bytes=2**20, sent_bytes=self.sent_bytes)

    def trees_in_use(self) -> set[str]:
        """Those that are mounted in it, and those that its processes have kept since a swap."""
        for process_id in set(self.files.kept) - {p.id for p in self.processes.values() if p.exit is None}:
            del self.files.kept[process_id]
        return {*self.files.kept.values(), *(mount.tree_id for mount in self.files.mounts)}

    async def vanish(self) -> None:
        self._gone.set()
        if self._deadline is not None:
            self._deadline.cancel()
        await asyncio.gather(*(process.vanish() for process in self.processes.values()))

    def _idle_since(self, now: float) -> float:
        serves = bool(self.spec.ports)  # then the main process waits for others
        started = [process for process in self.processes.values() if process.id != MAIN or not serves]
        return now if any(process.exit is None for process in started) else self.last_active


class FakeHost:
    """The machine: sandboxes outlive the runtimes that made them, and so do ends that nobody has heard of."""

    def __init__(self, boot_id: str = "boot-1") -> None:
        self.boot_id = boot_id
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.trees = FakeTrees()
        self.events: deque[Ended] = deque(maxlen=EVENTS_MAX)
        self.event_added = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def end(self, sandbox: FakeSandbox, reason: str) -> None:
        """It ends by itself; whoever listens hears of it once."""
        if self.sandboxes.pop(sandbox.id, None) is None:
            return
        self.events.append(Ended(sandbox.id, reason, sandbox.usage()))
        self.event_added.set()
        self.keep(sandbox.vanish())

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside; the task is kept from the garbage collector."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reboot(self) -> None:
        """Everything but the disk is gone, and nothing says so."""
        self.trees.end_keepers()
        gone, self.sandboxes = list(self.sandboxes.values()), {}
        self.events.clear()
        self.boot_id += "'"
        await asyncio.gather(*(sandbox.vanish() for sandbox in gone))


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
        sandbox = self.host.sandboxes[sandbox_id] = FakeSandbox(self.host, sandbox_id, spec)
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
        return await _sandbox(self.host, sandbox_id).accept()

    async def set_deadline(self, sandbox_id: str, resources: Resources) -> None:
        sandbox = _sandbox(self.host, sandbox_id)
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
        return _sandbox(self.host, sandbox_id).usage()

    async def pause(self, sandbox_id: str) -> None:
        _sandbox(self.host, sandbox_id).freeze(True)

    async def resume(self, sandbox_id: str) -> None:
        _sandbox(self.host, sandbox_id).freeze(False)

    async def bake(self, sandbox_id: str, destination: str) -> None:
        _save_layer(_sandbox(self.host, sandbox_id).files, Path(destination))

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
        sandbox = _sandbox(self.host, sandbox_id)
        for process in sandbox.processes.values():
            if process.exit is None:
                sandbox.files.keep(process.id, process.cwd, path)
        sandbox.files.swap(path, tree_id, read_only=read_only)

    async def mount_host(self, sandbox_id: str, root: str, below: str, path: str, *, read_only: bool) -> None:
        _sandbox(self.host, sandbox_id).files.mount_host(Path(root, below), path, read_only=read_only)

    async def tree_mounts(self, sandbox_id: str) -> list[WorkspaceMount]:
        return list(_sandbox(self.host, sandbox_id).files.mounts)

    def _found(self, sandbox_id: str) -> Found:
        return Found(sandbox_id, {"boot_id": self.host.boot_id}, paused=_sandbox(self.host, sandbox_id).frozen)


class FakeSidekick(SidekickClient):
    """The sidekick's client without a connection."""

    def __init__(self, host: FakeHost, sandbox_id: str) -> None:  # pyright: ignore[reportMissingSuperCall]
        self._host = host
        self._id = sandbox_id

    async def ping(self) -> dict[str, Any]:
        sandbox = self._sandbox()
        running = sum(1 for process in sandbox.processes.values() if process.exit is None)
        return {"version": 1, "processes": running, "usage": {"cpu_s": 0.001, "memory_peak_bytes": 2**20}}

    async def start(self, spec: ProcessSpec) -> ProcessStream:
        return FakeStream(self._sandbox().start(spec), 0)

    async def attach(self, process_id: str, offset: int = 0) -> ProcessStream:
        return FakeStream(self._process(process_id), offset)

    async def run(self, spec: ProcessSpec, *, stdin: bytes = b"", max_output_bytes: int = 8 * 2**20) -> RunResult:
        stream = await self.start(spec)
        outputs = {STDOUT: bytearray(), STDERR: bytearray()}
        truncated = False
        feeder = asyncio.create_task(_feed(stream, stdin)) if spec.stdin else None
        try:
            async for kind, data in stream:
                room = max_output_bytes - len(outputs[kind])
                outputs[kind] += data[:room]
                truncated = truncated or len(data) > room
        finally:
            if feeder is not None:
                feeder.cancel()
        assert stream.exit is not None
        return RunResult(stream.id, stream.exit, bytes(outputs[STDOUT]), bytes(outputs[STDERR]), truncated)

    async def processes(self) -> list[ProcessInfo]:
        return [process.describe() for process in self._sandbox().processes.values()]

    async def wait(self, process_id: str) -> Exit:
        return await self._process(process_id).ended()

    async def signal(self, process_id: str, signal: int) -> None:
        self._process(process_id).signal(signal)

    async def stop(self, process_id: str, grace_s: float) -> Exit:
        process = self._process(process_id)
        process.stop(grace_s)
        return await process.ended()

    async def stop_all(self, grace_s: float) -> Exit | None:
        processes = list(self._sandbox().processes.values())
        for process in processes:
            process.stop(grace_s)
        for process in processes:
            await process.ended()
        main = self._sandbox().processes.get(MAIN)
        return None if main is None else main.exit

    async def read_file(self, path: str) -> tuple[FileEntry, AsyncIterator[bytes]]:
        entry, content = self._sandbox().files.read(path)
        return entry, _pieces(content)

    async def write_file(self, path: str, chunks: AsyncIterator[bytes], *, mode: int | None = None) -> int:
        self._sandbox().files.check_writable(path)
        content = b"".join([chunk async for chunk in chunks])
        return self._sandbox().files.write(path, content, mode)

    async def list_dir(self, path: str) -> list[FileEntry]:
        return self._sandbox().files.list(path)

    async def stat(self, path: str) -> FileEntry:
        return self._sandbox().files.stat(path)

    async def make_dir(self, path: str) -> None:
        self._sandbox().files.make_dir(path)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        self._sandbox().files.remove(path, recursive=recursive)

    async def move(self, source: str, destination: str) -> None:
        self._sandbox().files.move(source, destination)

    async def dial(self, port: int) -> tuple[StreamReader, StreamWriter]:
        if port not in self._sandbox().listening:
            raise Unavailable(f"nothing listens on port {port}")
        ours, theirs = socket.socketpair()
        self._host.keep(_echo(theirs))
        return await asyncio.open_connection(sock=ours)

    async def touch(self) -> None:
        self._sandbox()

    async def probe(self, port: int) -> tuple[StreamReader, StreamWriter]:
        return await self.dial(port)

    async def watch(self, path: str, ignored: Sequence[str] = ()) -> WatchStream:
        return FakeWatch(lambda: _sandbox(self._host, self._id).files, path, ignored)

    async def copy(
        self, source: str, target: str, *, ignored: Sequence[str] = (), links: Sequence[str] = (), again: bool = False
    ) -> AsyncGenerator[list[CopiedEntry] | CopyEnd, None]:
        made = copied(self._sandbox().files, source, target, ignored, links)
        yield made
        folders = sum(one.kind == "d" for one in made)
        yield CopyEnd(len(made) - folders, folders)

    async def uncopy(self, target: str, entries: Sequence[CopiedEntry]) -> None:
        for one in entries:
            with suppress(NotFound, Conflict):
                self._sandbox().files.remove(f"{target}/{one.path}", recursive=False)

    async def ports(self) -> AsyncGenerator[list[int], None]:
        async for ports in listening(lambda: _sandbox(self._host, self._id).listening):
            yield ports

    def _sandbox(self) -> FakeSandbox:
        sandbox = _sandbox(self._host, self._id)
        sandbox.touch()
        return sandbox

    def _process(self, process_id: str) -> FakeProcess:
        process = self._sandbox().processes.get(process_id)
        if process is None:
            raise NotFound(f"process {process_id!r} not found")
        return process


def _sandbox(host: FakeHost, sandbox_id: str) -> FakeSandbox:
    sandbox = host.sandboxes.get(sandbox_id)
    if sandbox is None:
        raise NotFound("the sandbox has ended")
    return sandbox


def _main(spec: SandboxSpec) -> ProcessSpec:
    return ProcessSpec(spec.command, tty=spec.tty, cols=spec.cols, rows=spec.rows, stdin=True)


async def _feed(stream: ProcessStream, data: bytes) -> None:
    await stream.write_stdin(data)
    await stream.close_stdin()


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), CHUNK_BYTES):
        yield content[at : at + CHUNK_BYTES]


async def _echo(sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def _save_layer(files: FakeFiles, destination: Path) -> None:
    os.mkdir(destination)
    nodes = [
        {"path": path, "kind": node.kind, "text": node.content.hex(), "target": node.target, "mode": node.mode}
        for path, node in files.walk()
        if not path.startswith(f"{FILES_FOLDER}/")  # no part of the writable layer
    ]
    (destination / "files.json").write_text(json.dumps(nodes))


def _load_layer(files: FakeFiles, source: Path) -> None:
    try:
        nodes = json.loads((source / "files.json").read_text())
    except OSError:
        raise InvalidInput(f"layer {source} does not exist", field="layers") from None
    for node in nodes:
        if node["kind"] == "directory":
            files.make_dir(node["path"])
        elif node["kind"] == "symlink":
            files.link(node["path"], node["target"])
        else:
            files.write(node["path"], bytes.fromhex(node["text"]), node["mode"])
