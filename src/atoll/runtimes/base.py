"""The runtime contract: make, find, list, destroy and connect to sandboxes, plus abilities that are declared.

Services call it; `atoll.testing.runtime_conformance` holds every adapter to these docstrings. A *handle* is the
runtime's own JSON about one sandbox: opaque to callers, kept in the records, enough to find the sandbox again after
a restart of everything but the machine.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from atoll.domain.sandbox import NetworkMode, Resources, SandboxSpec, Usage
from atoll.domain.workspace import Quota, WorkspaceMount
from atoll.sidekick.client import GateStream, SidekickClient
from atoll.sidekick.keeper_client import KeeperClient

Handle = dict[str, Any]


class Capability(StrEnum):
    """Optional abilities; calling one that is not declared raises Unsupported."""

    PAUSE = "pause"  # freeze and thaw, memory kept
    OUTGOING = "outgoing"  # network modes outgoing and exposed
    LIMITS = "limits"  # cpu, memory and pids are enforced
    LAYERS = "layers"  # `spec.layers` and `bake`
    TREES = "trees"  # working trees of workspaces: `spec.workspaces`, `make_tree` and what follows it
    SWAP_TREES = "swap_trees"  # `swap_tree` under a live sandbox
    GATES = "gates"  # `spec.capability`, `spec.task`, and `accept`
    LISTED = "listed"  # network mode listed
    HOST_MOUNTS = "host_mounts"  # `mount_host` into a live sandbox


@dataclass(frozen=True, slots=True)
class Check:
    """One isolation rule proved, or not, on a probe sandbox. `fix` is the exact remedy, empty when ok."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    isolates: bool = True  # False for what adds an ability, which sandboxes here do without where it is missing
    enforced: bool = True  # False for what this tier does not do, by design

    @property
    def failed(self) -> bool:
        """Whether a proof failed: what the tier promises does not hold."""
        return self.enforced and not self.ok


@dataclass(frozen=True, slots=True)
class Report:
    """What `atoll doctor` says: the tier that this host gives, and each rule's result."""

    tier: str  # root, rootless or unavailable
    checks: tuple[Check, ...]

    @property
    def isolated(self) -> bool:
        """Whether every rule holds that this tier enforces, abilities left out."""
        return self.tier != "unavailable" and not any(check.failed for check in self.checks if check.isolates)

    @property
    def passed(self) -> bool:
        """Whether no proof failed at all."""
        return self.isolated and not any(check.failed for check in self.checks)


@dataclass(frozen=True, slots=True)
class Found:
    """A sandbox that exists in the runtime, whoever remembers it."""

    id: str
    handle: Handle
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A sandbox ended without a `destroy` call. reason: timeout, idle, max_age, killed (by a `shutdown`), or lost (its
    sidekick died)."""

    id: str
    reason: str
    usage: Usage = field(default_factory=Usage)


class Runtime(ABC):
    """A way to make sandboxes. All methods may be called concurrently, between `start` and `close`."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """What this runtime can do on this host; known after `start`."""

    @abstractmethod
    async def start(self) -> None:
        """Get ready; sandboxes of an earlier life are found again and go on. Unavailable when the host cannot."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything but the sandboxes: they keep running. A second call does nothing."""

    @abstractmethod
    async def shutdown(self) -> int:
        """Destroy every sandbox, remove whatever this runtime left on the machine, then close; how many there were.

        May be called without `start`. The next life tells their ends by `events`, reason `killed`.
        """

    @abstractmethod
    async def make(self, sandbox_id: str, spec: SandboxSpec) -> Handle:
        """Make the sandbox and start its main process, if any; returns when its sidekick answers.

        What `spec.given` has is there before that process starts: variables that it alone has, and files that only the
        sandbox's user can read, in memory: no layer that is baked, and nothing on a disk, has one.
        Conflict when the id exists. InvalidInput for a spec that no host could run (a missing program is not that:
        the main process then ends with 127). Unsupported for a network mode or layer that this host lacks.
        Unavailable when the host is out of resources. On any error nothing of the sandbox remains.
        """

    @abstractmethod
    async def find(self, sandbox_id: str) -> Found | None:
        """The sandbox, or None when it does not exist (never made, destroyed, ended, or gone with a reboot)."""

    @abstractmethod
    async def list(self) -> list[Found]:
        """Every sandbox that exists, those that no record knows included."""

    @abstractmethod
    async def destroy(self, sandbox_id: str) -> Usage | None:
        """Kill everything in it and free all it had; returns once that is done, with its final usage.

        None when it does not exist: a second call is no error. Works on paused, stopped and half-made ones.
        """

    @abstractmethod
    def sidekick(self, sandbox_id: str) -> SidekickClient:
        """A client of the sandbox's sidekick. Connecting is lazy: its calls raise NotFound when it is gone."""

    @abstractmethod
    async def dial(self, sandbox_id: str, port: int) -> tuple[StreamReader, StreamWriter]:
        """A byte stream to 127.0.0.1:port inside. NotFound for the sandbox, Unavailable when nothing listens."""

    async def take_port(self, sandbox_id: str, port: int) -> socket.socket | None:
        """As `dial`, the connected socket itself: bytes take one step less. None where this runtime hands none over.

        The sandbox holds the same open file and may change its flags: never use it in a way that could block. What
        goes through is no activity of the sandbox's: `sidekick(...).touch` says that it is in use.
        """
        return None

    async def accept(self, sandbox_id: str) -> GateStream:
        """Wait for the next stream out of the sandbox, for ever: a program's connection to the API (`spec.capability`),
        and in network mode listed also every other connection and question for a name. While nobody waits they wait;
        any number of calls may, up to 64. Needs Capability.GATES. NotFound for the sandbox, also when it ends
        meanwhile; Conflict when it has neither.
        """
        raise self.unsupported("take streams out of a sandbox")

    @abstractmethod
    async def set_deadline(self, sandbox_id: str, resources: Resources) -> None:
        """Take new timeout, idle and age limits (measured as before); other fields are ignored."""

    @abstractmethod
    def events(self) -> AsyncIterator[Ended]:
        """Sandboxes that ended by themselves, as soon as that is known, each once in the life of this object:
        also those that ended while nobody listened, and that an earlier life was told and did not `forget`."""

    @abstractmethod
    async def forget(self, sandbox_id: str) -> None:
        """The end that `events` told of it is recorded; no error when there is none."""

    @abstractmethod
    async def doctor(self) -> Report:
        """Prove the isolation rules on a probe sandbox of this runtime."""

    async def prove(self) -> Report | None:
        """The rules that keep sandboxes apart, quickly, as servers ask at each start. None: it claims none."""
        return None

    @abstractmethod
    async def stats(self, sandbox_id: str) -> Usage:
        """What the sandbox used until now. NotFound when it does not exist."""

    async def pause(self, sandbox_id: str) -> None:
        """Freeze every process of it. Needs Capability.PAUSE; freezing twice is no error."""
        raise self.unsupported("pause")

    async def resume(self, sandbox_id: str) -> None:
        """Let it go on. Needs Capability.PAUSE; no error when it is not frozen."""
        raise self.unsupported("resume")

    async def bake(self, sandbox_id: str, destination: str) -> None:
        """Copy the sandbox's writable layer to a new directory, for use in `spec.layers`. Needs Capability.LAYERS."""
        raise self.unsupported("bake")

    # working trees: file trees that outlive sandboxes. All need Capability.TREES.

    async def make_tree(self, tree_id: str, quota: Quota) -> None:
        """Make an empty working tree, bounded where this host can: in bytes exactly, counted in blocks, in inodes to a
        few more at most. Conflict when it exists; Unavailable when the host is out of room; on any error nothing of it
        remains.
        """
        raise self.unsupported("keep workspaces")

    async def list_trees(self) -> list[str]:
        """The ids of all working trees, those that no record knows included."""
        raise self.unsupported("keep workspaces")

    async def tree_in_use(self, tree_id: str) -> bool:
        """Whether anybody but its keeper, which is ended first, may write in it: a sandbox that has it mounted, or
        programs that were at work in it when it was swapped for another. It may be True for a moment after the last of
        them; once False it stays so until the tree is mounted again. False for one that does not exist.
        """
        raise self.unsupported("keep workspaces")

    async def remove_tree(self, tree_id: str) -> None:
        """Remove a tree with all that is in it. Conflict while a sandbox has it mounted; none, when it does not exist,
        nor for programs that a swap has left in it: what they go on writing is lost. Its keeper is ended first."""
        raise self.unsupported("keep workspaces")

    async def keeper(self, tree_id: str) -> KeeperClient:
        """A client of the tree's keeper, the process that reads and writes the tree on our behalf, isolated as a
        sandbox is and with nothing but the tree in it; started when it does not run. It ends itself when nobody asks
        anything of it for a while. NotFound when the tree does not exist.
        """
        raise self.unsupported("keep workspaces")

    async def swap_tree(self, sandbox_id: str, path: str, tree_id: str, *, read_only: bool) -> None:
        """Mount another tree in place of the one that the sandbox has at `path`, in one step: nobody inside sees it
        without. Files that a process holds open, and its current folder, stay those of the old tree (`tree_in_use`).
        Needs Capability.SWAP_TREES. NotFound for the sandbox, its mount or the tree; a second call does nothing.
        """
        raise self.unsupported("change a mounted workspace")

    async def tree_mounts(self, sandbox_id: str) -> list[WorkspaceMount]:
        """What is mounted in the sandbox now. NotFound."""
        raise self.unsupported("keep workspaces")

    async def mount_host(self, sandbox_id: str, root: str, below: str, path: str, *, read_only: bool) -> None:
        """Mount the folder `below` the host's absolute path `root` (`.`: that itself) at `path` in the sandbox, made as
        its user where it is missing: nosuid, nodev, owners as the sandbox has them, without what the host has mounted
        below it. No link is followed on either side. It goes with the sandbox.

        Needs Capability.HOST_MOUNTS. NotFound for the sandbox or the folder; Conflict when `path` cannot be had or has
        another such mount; Unsupported when the folder's file system cannot be given to write in. A second call for the
        same does nothing.
        """
        raise self.unsupported("mount a folder of the host")

    def unsupported(self, what: str) -> Exception:
        from atoll.domain.errors import Unsupported

        return Unsupported(f"the {self.name} runtime cannot {what} on this host: `atoll doctor` says what it lacks")

    def check_network(self, mode: NetworkMode) -> None:
        """Unsupported when this host cannot give that network mode."""
        needed = Capability.LISTED if mode is NetworkMode.LISTED else Capability.OUTGOING
        if mode is not NetworkMode.NONE and needed not in self.capabilities:
            raise self.unsupported(f"give network mode {mode}")
