"""Sandbox: one isolated computer with a lifecycle, what was asked for it and what it used.

Services change a sandbox only through `Sandbox.to`, which obeys `TRANSITIONS`; records store it by
compare-and-set on `version`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from atoll.domain.errors import Conflict
from atoll.domain.key import KeyKind, Scope
from atoll.domain.secret import Given, SecretUse
from atoll.domain.workspace import WorkspaceMount


class SandboxState(StrEnum):
    """Where a sandbox is in its life; `TRANSITIONS` says what may follow what."""

    PENDING = "pending"  # recorded, nothing made yet
    BUILDING = "building"  # its template layer is being baked
    RUNNING = "running"
    SUSPENDING = "suspending"  # a revision of its workspaces is being taken, then it is destroyed
    SUSPENDED = "suspended"  # nothing of it is left but its record and its workspaces; the next use makes it again
    RESUMING = "resuming"  # it is being made again
    STOPPING = "stopping"  # TERM sent, or the end is being cleaned up
    STOPPED = "stopped"  # its main process ended, or somebody stopped it
    KILLED = "killed"
    FAILED = "failed"  # could not be made, or was lost; `reason` says why


_S = SandboxState
TRANSITIONS: dict[SandboxState, frozenset[SandboxState]] = {
    _S.PENDING: frozenset({_S.BUILDING, _S.RUNNING, _S.FAILED, _S.KILLED}),
    _S.BUILDING: frozenset({_S.RUNNING, _S.FAILED, _S.KILLED}),
    _S.RUNNING: frozenset({_S.SUSPENDING, _S.SUSPENDED, _S.STOPPING, _S.STOPPED, _S.KILLED, _S.FAILED}),
    _S.SUSPENDING: frozenset({_S.SUSPENDED, _S.RUNNING, _S.STOPPED, _S.KILLED, _S.FAILED}),
    _S.SUSPENDED: frozenset({_S.RESUMING, _S.STOPPED, _S.KILLED, _S.FAILED}),
    _S.RESUMING: frozenset({_S.RUNNING, _S.SUSPENDED, _S.STOPPED, _S.KILLED, _S.FAILED}),
    _S.STOPPING: frozenset({_S.STOPPED, _S.KILLED, _S.FAILED}),
    _S.STOPPED: frozenset(),
    _S.KILLED: frozenset(),
    _S.FAILED: frozenset({_S.RESUMING}),  # one that was lost, and its files were not
}
# A suspended one is neither: it holds nothing of the host, and it has not ended.
LIVE = frozenset({_S.PENDING, _S.BUILDING, _S.RUNNING, _S.SUSPENDING, _S.RESUMING, _S.STOPPING})
ENDED = frozenset({_S.STOPPED, _S.KILLED, _S.FAILED})


HOST_RESTARTED = "host_restarted"  # the reason of those that ended with the machine's last life
LOST = "lost"  # ... and of those that were not there any more and nobody said why


class NetworkMode(StrEnum):
    """What a sandbox can reach, and what can reach it."""

    NONE = "none"  # its own loopback only
    OUTGOING = "outgoing"  # the public internet; never private ranges, metadata services or the host
    EXPOSED = "exposed"  # outgoing, and its declared ports are reachable through Atoll
    LISTED = "listed"  # public names and addresses of a list only, by way of the egress gateway; ports as in exposed


AGENTS_FOLDER = "/opt/atoll/agents"  # where a sandbox sees the program of its agent, in a folder of that name


@dataclass(frozen=True, slots=True)
class Resources:
    """Bounds of one sandbox. Bytes are binary; a CPU is 1000 millis."""

    cpu_millis: int = 1000
    memory_bytes: int = 512 * 2**20
    pids: int = 512
    disk_bytes: int = 256 * 2**20
    inodes: int = 65_536
    timeout_s: float | None = None  # the whole sandbox ends this long after its start
    idle_s: float | None = None  # ... or after so long without use; docs/limits.md says what use is
    max_age_s: float | None = None  # ... or at this age, whatever happens; keepalive cannot pass it
    suspend_idle_s: float | None = None  # it is suspended after being idle this long; `idle_s` ends it


@dataclass(frozen=True, slots=True)
class Port:
    """A port inside the sandbox that is reachable from outside at 127.0.0.1:host_port."""

    container: int
    protocol: str = "tcp"
    host_port: int | None = None


@dataclass(frozen=True, slots=True)
class BakedFile:
    """A file that is part of the sandbox's template layer. `path` is absolute."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Grant:
    """What a sandbox may do with Atoll's own API, which knows it by its connection: no more than who gave it."""

    scopes: frozenset[Scope]
    resources: frozenset[str] | None = None  # the only ids that it reaches, besides its own; None: as its giver
    kind: KeyKind = KeyKind.STANDARD  # of its giver, like the next two
    plan: str = ""
    credential: str = ""  # while this is good the grant is
    lasts_s: float | None = None  # since its sandbox was created; None: as long as that
    budget_micro_usd: int | None = None  # what it may spend of its giver's in all; None: no bound of its own

    def over(self, created_at: datetime, now: datetime) -> bool:
        """Whether the grant of a sandbox that was created then has ended."""
        return self.lasts_s is not None and now >= created_at + timedelta(seconds=self.lasts_s)


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Everything a runtime needs to make a sandbox; `command` absent means no main process.

    `layers` are host directories of baked template layers, lowest first, filled in by the template service.
    """

    image: str = "host"
    command: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict[str, str])
    work_dir: str = "/"
    tty: bool = False
    cols: int = 80
    rows: int = 24
    resources: Resources = Resources()
    network: NetworkMode = NetworkMode.NONE
    allow: tuple[str, ...] = ()  # the list of network mode listed: see domain/egress.py
    capability: Grant | None = None
    ports: tuple[Port, ...] = ()
    setup: tuple[str, ...] = ()
    files: tuple[BakedFile, ...] = ()
    layers: tuple[str, ...] = ()
    agent: str = ""  # the agent whose package it sees, read-only: one of the lowest layers
    task: str | None = None  # the task that it does: its programs reach the model gateway, for which this task pays
    maker: str = ""  # the sandbox that made it by its capability, whose budget bounds what it costs too
    sealed_env: str = ""  # `env` as its record keeps it: for who wakes it, unreadable for anybody else
    workspaces: tuple[WorkspaceMount, ...] = ()  # HOME lies in the first, when that is writable
    secrets: tuple[SecretUse, ...] = ()  # for its main process, or for each of its commands when it has none
    given: Given = field(default_factory=Given)  # what they are while it is made; in no record


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sandbox used so far, or in all when it has ended."""

    duration_s: float = 0.0
    cpu_s: float = 0.0
    memory_peak_bytes: int = 0
    bytes_in: int = 0  # stdin and uploads
    bytes_out: int = 0  # output and downloads
    exec_count: int = 0
    # Of these, what it used before it was made again the last time: what the runtime counts begins there.
    earlier_duration_s: float = 0.0
    earlier_cpu_s: float = 0.0
    sent_bytes: int = 0  # into its network, as the runtime counts them
    earlier_sent_bytes: int = 0
    gateway_bytes: int = 0  # that the server sent on for it

    @property
    def egress_bytes(self) -> int:
        """What left it for elsewhere, whichever way."""
        return self.sent_bytes + self.gateway_bytes

    def of_a_new_life(self) -> Usage:
        """The same so far, with all of it before the life that begins now."""
        return replace(
            self,
            earlier_duration_s=self.duration_s,
            earlier_cpu_s=self.cpu_s,
            earlier_sent_bytes=self.sent_bytes,
        )


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The record of one sandbox. `handle` is the runtime's own JSON, opaque to everybody else."""

    id: str
    owner: str  # the id of the API key that made it
    spec: SandboxSpec
    runtime: str
    created_at: datetime
    name: str | None = None
    state: SandboxState = SandboxState.PENDING
    version: int = 1
    handle: dict[str, Any] | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None  # of the main process; 128+n when signal n ended it
    exit_signal: int | None = None
    reason: str | None = None  # why it ended or failed: exited, stopped, killed, timeout, idle, host_restarted, ...
    usage: Usage = Usage()
    removed: bool = False  # no longer listed; pruned later
    credential: str = ""  # the key or token that made it; empty: its owner's own
    namespace: str | None = None  # of `name`, where no other of its owner's has that name while it has not ended
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)  # its maker's own, kept as it came

    @property
    def live(self) -> bool:
        """Whether it holds something of the host, or is about to: what the quota counts."""
        return self.state in LIVE

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def may_rest(self) -> bool:
        """Whether it can be suspended: something of it would be left, in a workspace that it can write to."""
        return any(not mount.read_only for mount in self.spec.workspaces)

    @property
    def may_wake(self) -> bool:
        """Whether it is suspended, or was lost and its files were not."""
        if self.state is SandboxState.FAILED:
            return self.reason in (HOST_RESTARTED, LOST) and self.may_rest
        return self.state in (SandboxState.SUSPENDED, SandboxState.RESUMING)

    def to(self, state: SandboxState, **changes: Any) -> Sandbox:
        """The sandbox in its next state; Conflict when `TRANSITIONS` does not allow that step."""
        if state not in TRANSITIONS[self.state]:
            raise Conflict(f"sandbox {self.id} is {self.state}: it cannot become {state}")
        now = datetime.now(UTC)
        if state is SandboxState.RUNNING and self.started_at is None:
            changes.setdefault("started_at", now)
        if state in ENDED:
            changes.setdefault("ended_at", now)
        return replace(self, state=state, **changes)
