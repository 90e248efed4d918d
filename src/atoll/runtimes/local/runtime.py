"""LocalRuntime: sandboxes on this machine's own kernel, through the node. The adapter behind the runtime contract."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import atoll
from atoll.domain import errors
from atoll.domain.host_paths import without_paths
from atoll.domain.mounts import check_mounts, clean_path
from atoll.domain.sandbox import AGENTS_FOLDER, NetworkMode, Resources, SandboxSpec, Usage
from atoll.domain.workspace import Quota, WorkspaceMount
from atoll.runtimes.base import Capability, Ended, Found, Handle, Report, Runtime
from atoll.runtimes.local.box import BOOT_ID
from atoll.runtimes.local.host_template import SECRETS_BYTES
from atoll.runtimes.local.node_client import NodeClient, connect_unix, open_unix
from atoll.sidekick.client import GateStream, SidekickClient
from atoll.sidekick.gates import API, DNS, MODEL, OUT
from atoll.sidekick.keeper_client import KeeperClient
from atoll.sidekick.passing import take_port

MAKE_S = 30.0
DESTROY_S = 60.0
BAKE_S = 330.0
TREE_S = 150.0
KEEPER_TRIES = 3
SIDEKICK_LIMIT_BYTES = 2**14  # of a reader, which stops at twice that: hundreds may wait for clients that do not read
KEEPER_LIMIT_BYTES = 2**20
EVENT_BOUND = 10_000
MEMORY_DISK_BYTES = 256 * 2**20  # a larger writable layer lies in an ext4 image instead
SHM_BYTES = 64 * 2**20
INODE_BYTES = 1024  # what the kernel holds for each file of a tmpfs


class LocalRuntime(Runtime):
    """One node and its sandboxes, all under `data`; working trees in `trees`, or there too.

    `resolvers`: name servers that sandboxes with a network ask; none given: the host's. `network_bytes_per_s`: what
    each of them may send, and receive; 0: no limit. `spares`: how many sandboxes
    with network none and the given disk are made ahead. `keeper_idle_s`: a tree's keeper that nobody asks ends then.
    """

    name: ClassVar[str] = "local"

    def __init__(
        self,
        data: Path,
        *,
        trees: Path | None = None,
        resolvers: tuple[str, ...] = (),
        network_bytes_per_s: int = 0,
        ring_bytes: int = 2**20,
        spares: int = 8,
        spare_disk_bytes: int = 256 * 2**20,
        spare_inodes: int = 65_536,
        keeper_idle_s: float = 60.0,
    ) -> None:
        self._data = data.resolve()
        self._events: asyncio.Queue[Ended] = asyncio.Queue(EVENT_BOUND)
        self._told: set[str] = set()  # ends not forgotten yet: a new node tells them again
        self._boot_id = BOOT_ID
        mark = hashlib.sha256(str(self._data).encode()).hexdigest()[:8]
        shape = Resources(disk_bytes=spare_disk_bytes, inodes=spare_inodes)
        settings: dict[str, Any] = {
            "name": f"atoll-{mark}",
            "interface_prefix": f"at{mark[:6]}x",
            "resolvers": list(resolvers),
            "network_bytes_per_s": network_bytes_per_s,
            "ring_bytes": ring_bytes,
            "boot_id": self._boot_id,
            "trees": str((trees or self._data / "trees").resolve()),
            "keeper_idle_s": keeper_idle_s,
            "version": atoll.__version__,
            "spares": [
                # a host whose sandboxes never go out is left without links and rules
                {**_shape(SandboxSpec(resources=shape, network=network)), "count": spares, "when_asked": asked}
                for network, asked in ((NetworkMode.NONE, False), (NetworkMode.OUTGOING, True))
            ],
        }
        self._node = NodeClient(self._data, settings, self._on_event)

    @property
    def capabilities(self) -> frozenset[Capability]:
        found: set[Capability] = {Capability.TREES, Capability.GATES} if self._node.hello else set()
        if self._node.hello.get("rooted"):
            found |= {Capability.PAUSE, Capability.OUTGOING, Capability.LAYERS, Capability.SWAP_TREES}
            found |= {Capability.LISTED, Capability.HOST_MOUNTS}
            if len(self._node.hello["limits"]) == 3:
                found.add(Capability.LIMITS)
        return frozenset(found)

    async def start(self) -> None:
        await self._node.start()

    async def close(self) -> None:
        await self._node.close()

    async def shutdown(self) -> int:
        if not self._node.started:
            await self._node.start(whichever=True)
        count = len(await self.list())
        await self._node.ask("shutdown", timeout_s=DESTROY_S, destroy=True)
        await self._node.close()
        await self._node.gone()
        return count

    async def make(self, sandbox_id: str, spec: SandboxSpec) -> Handle:
        self.check_network(spec.network)
        if spec.workspaces and Capability.TREES not in self.capabilities:
            raise self.unsupported("keep workspaces")
        spec = replace(spec, workspaces=check_mounts(spec.workspaces))
        answer = await self._node.ask("make", timeout_s=MAKE_S, **_request(sandbox_id, spec))
        return {"version": 1, "pid": answer["pid"], "boot_id": answer["boot_id"]}

    async def find(self, sandbox_id: str) -> Found | None:
        return next((found for found in await self.list() if found.id == sandbox_id), None)

    async def list(self) -> list[Found]:
        answer = await self._node.ask("list")
        return [
            Found(name, {"version": 1, "pid": box["pid"], "boot_id": self._boot_id}, paused=box["frozen"])
            for name, box in answer["sandboxes"].items()
        ]

    async def destroy(self, sandbox_id: str) -> Usage | None:
        answer = await self._node.ask("destroy", timeout_s=DESTROY_S, id=sandbox_id)
        return None if answer["usage"] is None else Usage(**answer["usage"])

    def sidekick(self, sandbox_id: str) -> SidekickClient:
        async def connect() -> tuple[StreamReader, StreamWriter]:
            folder = self._data / "run" / "sandboxes" / sandbox_id
            try:
                return await open_unix(folder, "sidekick", SIDEKICK_LIMIT_BYTES)
            except (FileNotFoundError, ConnectionRefusedError):
                raise errors.NotFound(f"sandbox {sandbox_id} does not exist") from None
            except OSError as error:
                raise errors.Unavailable(f"sandbox {sandbox_id} does not answer: {without_paths(str(error))}") from None

        return SidekickClient(connect)

    async def dial(self, sandbox_id: str, port: int) -> tuple[StreamReader, StreamWriter]:
        return await self.sidekick(sandbox_id).dial(port)

    async def take_port(self, sandbox_id: str, port: int) -> socket.socket | None:
        try:
            to_sidekick = connect_unix(self._data / "run" / "sandboxes" / sandbox_id, "sidekick")
        except BlockingIOError:  # too many wait: the other way waits too
            return None
        except (FileNotFoundError, ConnectionRefusedError):
            raise errors.NotFound(f"sandbox {sandbox_id} does not exist") from None
        except OSError as error:
            raise errors.Unavailable(f"sandbox {sandbox_id} does not answer: {without_paths(str(error))}") from None
        return await take_port(to_sidekick, port)

    async def accept(self, sandbox_id: str) -> GateStream:
        return await self.sidekick(sandbox_id).accept()

    async def set_deadline(self, sandbox_id: str, resources: Resources) -> None:
        await self._node.ask("deadline", id=sandbox_id, limits=_limits(resources))

    async def events(self) -> AsyncIterator[Ended]:
        while True:
            yield await self._events.get()

    async def forget(self, sandbox_id: str) -> None:
        await self._node.ask("forget", id=sandbox_id)
        self._told.discard(sandbox_id)

    async def doctor(self) -> Report:
        from atoll.runtimes.local.doctor import examine

        return await examine(self)

    async def prove(self) -> Report:
        from atoll.runtimes.local.doctor import prove

        return await prove(self)

    async def stats(self, sandbox_id: str) -> Usage:
        return Usage(**(await self._node.ask("stats", id=sandbox_id))["usage"])

    async def pause(self, sandbox_id: str) -> None:
        await self._node.ask("freeze", id=sandbox_id, frozen=True)

    async def resume(self, sandbox_id: str) -> None:
        await self._node.ask("freeze", id=sandbox_id, frozen=False)

    async def bake(self, sandbox_id: str, destination: str) -> None:
        await self._node.ask("bake", timeout_s=BAKE_S, id=sandbox_id, destination=destination)

    async def make_tree(self, tree_id: str, quota: Quota) -> None:
        self._need_trees()
        await self._node.ask("make_tree", timeout_s=TREE_S, tree_id=tree_id, bytes=quota.bytes, inodes=quota.inodes)

    async def list_trees(self) -> list[str]:
        self._need_trees()
        return (await self._node.ask("list_trees"))["trees"]

    async def remove_tree(self, tree_id: str) -> None:
        self._need_trees()
        await self._node.ask("remove_tree", timeout_s=TREE_S, tree_id=tree_id)

    async def tree_in_use(self, tree_id: str) -> bool:
        self._need_trees()
        return (await self._node.ask("tree_in_use", timeout_s=TREE_S, tree_id=tree_id))["in_use"]

    async def keeper(self, tree_id: str) -> KeeperClient:
        self._need_trees()
        await self._node.ask("keeper", timeout_s=TREE_S, tree_id=tree_id)

        async def connect() -> tuple[StreamReader, StreamWriter]:
            folder = self._data / "run" / "keepers" / tree_id
            for _ in range(KEEPER_TRIES):
                try:
                    return await open_unix(folder, "sidekick", KEEPER_LIMIT_BYTES)
                except (FileNotFoundError, ConnectionRefusedError):  # it has been idle: the next one
                    await self._node.ask("keeper", timeout_s=TREE_S, tree_id=tree_id)
                except OSError as error:
                    reason = without_paths(str(error))
                    raise errors.Unavailable(f"the keeper of {tree_id} does not answer: {reason}") from None
            raise errors.Unavailable(f"the keeper of {tree_id} ends again and again")

        return KeeperClient(connect)

    async def swap_tree(self, sandbox_id: str, path: str, tree_id: str, *, read_only: bool) -> None:
        if Capability.SWAP_TREES not in self.capabilities:
            raise self.unsupported("change a mounted workspace")
        fields: dict[str, Any] = {"id": sandbox_id, "path": clean_path(path), "tree_id": tree_id}
        await self._node.ask("swap_tree", timeout_s=TREE_S, **fields, read_only=read_only)

    async def mount_host(self, sandbox_id: str, root: str, below: str, path: str, *, read_only: bool) -> None:
        if Capability.HOST_MOUNTS not in self.capabilities:
            raise self.unsupported("mount a folder of the host")
        fields: dict[str, Any] = {"id": sandbox_id, "root": root, "below": below, "path": clean_path(path)}
        await self._node.ask("mount_host", timeout_s=TREE_S, **fields, read_only=read_only)

    async def tree_mounts(self, sandbox_id: str) -> list[WorkspaceMount]:
        self._need_trees()
        answer = await self._node.ask("tree_mounts", id=sandbox_id)
        return [WorkspaceMount(**mount) for mount in answer["mounts"]]

    def _need_trees(self) -> None:
        if Capability.TREES not in self.capabilities:
            raise self.unsupported("keep workspaces")

    def _on_event(self, message: dict[str, Any]) -> None:
        ended = Ended(message["id"], message["reason"], Usage(**message["usage"]))
        if ended.id in self._told:
            return
        try:
            self._events.put_nowait(ended)
            self._told.add(ended.id)
        except asyncio.QueueFull:
            pass  # the node keeps it and tells it again after a restart


def _limits(resources: Resources) -> dict[str, float | None]:
    return {
        "timeout_s": resources.timeout_s,
        "idle_s": resources.idle_s,
        "max_age_s": resources.max_age_s,
    }


def _request(sandbox_id: str, spec: SandboxSpec) -> dict[str, Any]:
    resources = spec.resources
    main = None
    if spec.command:
        main = {"argv": list(spec.command), "tty": spec.tty, "cols": spec.cols, "rows": spec.rows}
        main["serves"] = bool(spec.ports)
    return {
        **_shape(spec),
        "id": sandbox_id,
        "cpu_millis": resources.cpu_millis,
        "memory_bytes": resources.memory_bytes,
        "pids": resources.pids,
        "limits": _limits(resources),
        "env": spec.env,
        "path": _path(spec.agent),
        "given": {
            "env": spec.given.env,
            "files": {path: base64.b64encode(value).decode() for path, value in spec.given.files.items()},
        },
        "gates": _gates(spec),
        "work_dir": spec.work_dir,
        "main": main,
        "workspaces": [asdict(mount) for mount in spec.workspaces],
    }


def _path(agent: str) -> list[str]:
    """Where the program of its agent lies: looked through after everything else."""
    return [f"{AGENTS_FOLDER}/{agent}/bin", f"{AGENTS_FOLDER}/{agent}"] if agent else []


def _gates(spec: SandboxSpec) -> list[str]:
    """The places inside where the server is reached."""
    own = [API] if spec.capability is not None else []
    if spec.task is not None:
        own.append(MODEL)
    return [*own, OUT, DNS] if spec.network is NetworkMode.LISTED else own


def _shape(spec: SandboxSpec) -> dict[str, Any]:
    """What is built into a sandbox's root and link: a spare one must have the same."""
    resources = spec.resources
    shm_bytes = min(SHM_BYTES, resources.memory_bytes // 8)
    # what lies in memory stays there when its program is killed, and must leave the sidekick room: /dev/shm and
    # System V's segments have `shm_bytes` each
    lasting = resources.disk_bytes + 2 * shm_bytes + SECRETS_BYTES + resources.inodes * INODE_BYTES
    return {
        # what exposed adds, the listeners outside, is not the node's
        "network": "outgoing" if spec.network is NetworkMode.EXPOSED else spec.network.value,
        "disk_bytes": resources.disk_bytes,
        "disk_in_memory": resources.disk_bytes <= MEMORY_DISK_BYTES and lasting <= resources.memory_bytes * 15 // 16,
        "inodes": resources.inodes,
        "shm_bytes": shm_bytes,
        "layers": list(spec.layers),
    }
