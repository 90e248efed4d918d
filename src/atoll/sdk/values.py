"""What the SDK's calls return: plain frozen values, read from the server's JSON here and nowhere else.

Unknown fields are ignored and missing ones have defaults, so that clients and servers of nearby versions get along.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Protocol, cast

from atoll.domain.process import Exit, FileEntry, ProcessInfo
from atoll.domain.sandbox import Usage

Json = Mapping[str, Any]


class Chunk(NamedTuple):
    """A piece of a process's output; a terminal has only stdout."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """A finished command. `exit_code` is 128 + n when signal n ended it; `truncated`: output was cut at its limit."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    signal: int | None = None
    timed_out: bool = False
    oom_killed: bool = False
    truncated: bool = False
    duration_s: float = 0.0
    process_id: str = ""

    @property
    def stdout(self) -> str:
        """As text; bytes that are not UTF-8 become U+FFFD."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """As text; bytes that are not UTF-8 become U+FFFD."""
        return self.stderr_bytes.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True, slots=True)
class PortAddress:
    """Where a port of a sandbox is reached from this side."""

    container_port: int
    host_port: int
    url: str


class Named(Protocol):
    """A workspace, as far as others need it."""

    id: str


@dataclass(frozen=True, slots=True)
class Mount:
    """A workspace in a sandbox: itself, its id or its name, and where it is to be seen."""

    workspace: Named | str
    path: str = "/workspace"
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """What the server says about a sandbox at one moment."""

    id: str
    state: str  # a SandboxState: pending, building, running, stopping, stopped, killed, failed
    name: str | None = None
    image: str = ""
    command: tuple[str, ...] = ()
    network: str = "none"
    ports: tuple[PortAddress, ...] = ()
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    paused: bool = False  # frozen: its state is running
    suspended: bool = False  # resting until its next use: its state is running
    raw: Json = field(default_factory=dict[str, Any], repr=False, compare=False)

    @property
    def live(self) -> bool:
        return self.state in ("pending", "building", "running", "stopping")


@dataclass(frozen=True, slots=True)
class TemplateInfo:
    """A template that `image` can name."""

    name: str
    kind: str = "builtin"  # builtin, alias (a name of another), layer (baked from setup and files)
    base: str = ""  # what it was made from, or stands for
    size_bytes: int = 0
    raw: Json = field(default_factory=dict[str, Any], repr=False, compare=False)


def result_of(value: Json) -> Result:
    """The answer of a finished exec, asked for with encoding base64."""
    return Result(
        exit_code=int(value["exitCode"]),
        stdout_bytes=b64decode(value.get("stdout") or ""),
        stderr_bytes=b64decode(value.get("stderr") or ""),
        signal=value.get("signal"),
        timed_out=bool(value.get("timedOut")),
        oom_killed=bool(value.get("oomKilled")),
        truncated=bool(value.get("truncated")),
        duration_s=float(value.get("durationMs") or 0) / 1000,
        process_id=str(value.get("processId") or ""),
    )


def exit_of(value: Json) -> Exit:
    """The answer of `processes/{id}/wait`."""
    return Exit(
        code=int(value["exitCode"]),
        signal=value.get("signal"),
        timed_out=bool(value.get("timedOut")),
        oom_killed=bool(value.get("oomKilled")),
        duration_s=float(value.get("durationMs") or 0) / 1000,
    )


def sandbox_of(value: Json) -> SandboxInfo:
    """One session object."""
    network = cast(Json, value.get("network") or {})
    return SandboxInfo(
        id=str(value["id"]),
        state=str(value.get("status", "")),
        name=value.get("name"),
        image=str(value.get("image") or ""),
        command=tuple(str(word) for word in value.get("command") or ()),
        network=str(network.get("mode") or "none"),
        ports=_ports(network),
        created_at=moment_of(value.get("createdAt")),
        started_at=moment_of(value.get("startedAt")),
        ended_at=moment_of(value.get("endedAt")),
        exit_code=value.get("exitCode"),
        reason=value.get("reason"),
        usage=_usage(cast(Json, value.get("usage") or {})),
        paused=bool(value.get("paused")),
        suspended=bool(value.get("suspended")),
        raw=value,
    )


def process_of(value: Json) -> ProcessInfo:
    """One object of `processes`."""
    ended = value.get("exitCode") is not None
    started = moment_of(value.get("startedAt"))
    return ProcessInfo(
        id=str(value["id"]),
        argv=tuple(str(word) for word in value.get("command") or ()),
        pid=int(value.get("pid") or 0),
        tty=bool(value.get("tty")),
        started_at=started.timestamp() if started else 0.0,
        output_start=int(value.get("outputStart") or 0),
        output_end=int(value.get("outputEnd") or 0),
        exit=exit_of(value) if ended else None,
    )


def entry_of(value: Json) -> FileEntry:
    """One directory entry, or the answer of `stat`."""
    kind = value.get("kind") or ("directory" if value.get("isDir") else "file")
    modified = value.get("modifiedAt")
    moment = moment_of(modified)
    return FileEntry(
        name=str(value.get("name") or ""),
        kind=str(kind),
        size=int(value.get("size") or 0),
        mode=int(value.get("mode") or 0) & 0o7777,
        modified_at=moment.timestamp() if moment else 0.0,
    )


def template_of(value: Json) -> TemplateInfo:
    """One object of `/v1/templates`."""
    return TemplateInfo(
        name=str(value["name"]),
        kind=str(value.get("kind") or "builtin"),
        base=str(value.get("base") or ""),
        size_bytes=int(value.get("sizeBytes") or 0),
        raw=value,
    )


def _ports(network: Json) -> tuple[PortAddress, ...]:
    ports = cast("dict[str, Json]", network.get("ports") or {})
    return tuple(
        PortAddress(int(port), int(where.get("hostPort") or 0), str(where.get("url") or ""))
        for port, where in ports.items()
    )


def _usage(value: Json) -> Usage:
    return Usage(
        duration_s=float(value.get("durationMs") or 0) / 1000,
        cpu_s=float(value.get("cpuMs") or 0) / 1000,
        memory_peak_bytes=int(value.get("memoryPeakBytes") or 0),
        bytes_in=int(value.get("bytesIn") or 0),
        bytes_out=int(value.get("bytesOut") or 0),
        exec_count=int(value.get("execCount") or 0),
    )


def moment_of(value: object) -> datetime | None:
    """RFC 3339 text, or Unix seconds."""
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None
