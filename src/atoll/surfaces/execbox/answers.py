"""What the execbox dialect answers: a plain builder for the hot path and a model for the document, side by side.

The models never run on a request; a test holds what the builders make to them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import Field

from atoll.domain.process import Exit, FileEntry, ProcessInfo, RunResult
from atoll.domain.sandbox import Grant, NetworkMode, Sandbox, SandboxSpec, SandboxState, Usage
from atoll.domain.secret import GivenAs, SecretUse
from atoll.domain.workspace import WorkspaceMount
from atoll.services.ports import PortUrl
from atoll.services.templates import Template
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.moments import moment

Status = Literal["pending", "building", "running", "stopped", "failed", "killed"]
STATUSES: tuple[str, ...] = ("pending", "building", "running", "stopped", "failed", "killed")


class ErrorDetail(AnswerModel):
    message: str
    location: str


class Error(AnswerModel):
    """Every error of this API."""

    error: str
    code: str
    title: str
    status: int
    detail: str
    field: str | None = Field(None, description="of a 400: the first field that is wrong")
    errors: list[ErrorDetail] | None = Field(None, description="of a 400: everything that is wrong")


class PortAnswer(AnswerModel):
    hostPort: int
    url: str


class NetworkAnswer(AnswerModel):
    mode: Literal["none", "outgoing", "exposed", "listed"]
    allow: list[str] | None = Field(None, description="what is reached, where there is a list")
    host: str
    ports: dict[str, PortAnswer]


class UsageAnswer(AnswerModel):
    durationMs: float
    cpuMs: float
    memoryPeakBytes: int
    bytesIn: int
    bytesOut: int
    execCount: int


class ResourcesAnswer(AnswerModel):
    cpuMillis: int
    memoryMB: int
    diskMB: int
    pids: int
    inodes: int
    timeoutMs: int | None = None
    idleMs: int | None = None
    maxAgeMs: int | None = None


class MountAnswer(AnswerModel):
    workspace: str
    path: str
    readOnly: bool


class SecretUseAnswer(AnswerModel):
    """As it was asked for, by its id."""

    name: str
    as_: Literal["env", "file", "broker"] = Field(alias="as")
    env: str | None = None
    path: str | None = None


class CapabilityAnswer(AnswerModel):
    scopes: list[str]
    resources: list[str] | None = None
    expiresAt: datetime | None = None
    budgetMicroUsd: int | None = None


class SessionAnswer(AnswerModel):
    """A session."""

    id: str = Field(pattern=r"^sess_[0-9a-f]{12}$")
    status: Status
    paused: bool | None = Field(None, description="true while it is frozen, else absent")
    suspended: bool | None = Field(None, description="true while it rests until its next use, else absent")
    image: str
    createdAt: datetime
    startedAt: datetime | None = None
    endedAt: datetime | None = None
    exitCode: int | None = None
    signal: int | None = None
    reason: str | None = Field(None, description="why it ended or failed")
    name: str | None = None
    owner: str = Field(description="whose it is: a user's, a group's or a key's id")
    command: list[str]
    workDir: str
    tty: bool
    workspaces: list[MountAnswer] | None = Field(None, description="what is mounted, where something is")
    secrets: list[SecretUseAnswer] | None = Field(None, description="what its processes are given")
    capability: CapabilityAnswer | None = Field(None, description="what it may do with this API, where it may")
    network: NetworkAnswer
    resources: ResourcesAnswer
    usage: UsageAnswer


class SessionsAnswer(AnswerModel):
    sessions: list[SessionAnswer]


class StatusAnswer(AnswerModel):
    status: Status
    removed: bool | None = None


class SuspendedAnswer(AnswerModel):
    id: str
    suspended: bool


class PausedAnswer(AnswerModel):
    id: str
    paused: bool


class ExitAnswer(AnswerModel):
    processId: str
    exitCode: int
    signal: int | None
    timedOut: bool
    oomKilled: bool
    durationMs: float


class ExecAnswer(ExitAnswer):
    stdout: str
    stderr: str
    truncated: bool


class ProcessAnswer(AnswerModel):
    id: str
    command: list[str]
    pid: int
    tty: bool
    running: bool
    startedAt: datetime
    outputStart: int
    outputEnd: int
    exitCode: int | None = None
    signal: int | None = None


class ProcessesAnswer(AnswerModel):
    processes: list[ProcessAnswer]


class SignalAnswer(AnswerModel):
    processId: str
    signal: int


class FileAnswer(AnswerModel):
    path: str
    size: int


class EntryAnswer(AnswerModel):
    name: str
    size: int
    isDir: bool
    mode: int
    kind: Literal["file", "directory", "symlink", "other"]
    modifiedAt: datetime


class StatAnswer(EntryAnswer):
    path: str


class EntriesAnswer(AnswerModel):
    path: str
    entries: list[EntryAnswer]


class RemovedAnswer(AnswerModel):
    path: str
    removed: bool


class MovedAnswer(AnswerModel):
    from_: str = Field(alias="from")
    to: str


class UrlAnswer(AnswerModel):
    containerPort: int
    hostPort: int
    url: str
    protocol: Literal["tcp", "udp"]


class TemplateAnswer(AnswerModel):
    name: str
    kind: Literal["builtin", "alias", "layer"]
    base: str | None = None
    sizeBytes: int
    createdAt: datetime | None = None
    lastUsedAt: datetime | None = None


class TemplatesAnswer(AnswerModel):
    templates: list[TemplateAnswer]


Json = dict[str, Any]
_RUNNING = {
    SandboxState.RUNNING,
    SandboxState.SUSPENDING,
    SandboxState.SUSPENDED,
    SandboxState.RESUMING,
    SandboxState.STOPPING,
}


def status(state: SandboxState) -> str:
    """The protocol has no word for stopping, nor for suspended: until it has stopped, a session runs."""
    return "running" if state in _RUNNING else str(state)


def states(wanted: str) -> frozenset[SandboxState]:
    """The states that a status covers."""
    return frozenset(state for state in SandboxState if status(state) == wanted)


def session(
    sandbox: Sandbox, host: str, urls: Sequence[PortUrl], used: Usage | None = None, *, paused: bool = False
) -> Json:
    spec = sandbox.spec
    answer: Json = {
        "id": sandbox.id,
        "status": status(sandbox.state),
        "paused": True if paused else None,
        "suspended": True if sandbox.state is SandboxState.SUSPENDED else None,
        "image": spec.image,
        "createdAt": sandbox.created_at,
        "startedAt": sandbox.started_at,
        "endedAt": sandbox.ended_at,
        "exitCode": sandbox.exit_code,
        "signal": sandbox.exit_signal,
        "reason": sandbox.reason,
        "name": sandbox.name,
        "owner": sandbox.owner,
    }
    answer = {field: value for field, value in answer.items() if value is not None}
    answer["command"] = list(spec.command)
    answer["workDir"] = spec.work_dir
    answer["tty"] = spec.tty
    if spec.workspaces:
        answer["workspaces"] = [mount(one) for one in spec.workspaces]
    if spec.secrets:
        answer["secrets"] = [secret_use(one) for one in spec.secrets]
    if spec.capability is not None:
        answer["capability"] = capability(spec.capability, sandbox.created_at)
    answer["network"] = network(spec, host, urls)
    answer["resources"] = resources(sandbox)
    answer["usage"] = usage(used or sandbox.usage)
    return answer


def mount(one: WorkspaceMount) -> Json:
    return {"workspace": one.workspace, "path": one.path, "readOnly": one.read_only}


def secret_use(one: SecretUse) -> Json:
    where = "path" if one.given_as is GivenAs.FILE else "env"
    return {"name": one.secret, "as": str(one.given_as), where: one.target}


def capability(grant: Grant, since: datetime) -> Json:
    answer: Json = {"scopes": sorted(grant.scopes)}
    if grant.resources is not None:
        answer["resources"] = sorted(grant.resources)
    if grant.lasts_s is not None:
        answer["expiresAt"] = since + timedelta(seconds=grant.lasts_s)
    if grant.budget_micro_usd is not None:
        answer["budgetMicroUsd"] = grant.budget_micro_usd
    return answer


def network(spec: SandboxSpec, host: str, urls: Sequence[PortUrl]) -> Json:
    ports = {str(url.container_port): {"hostPort": url.host_port, "url": url.url} for url in urls}
    listed = {"allow": list(spec.allow)} if spec.network is NetworkMode.LISTED else {}
    return {"mode": str(spec.network), **listed, "host": host, "ports": ports}


def resources(sandbox: Sandbox) -> Json:
    bounds = sandbox.spec.resources
    times = {"timeoutMs": bounds.timeout_s, "idleMs": bounds.idle_s, "maxAgeMs": bounds.max_age_s}
    return {
        "cpuMillis": bounds.cpu_millis,
        "memoryMB": bounds.memory_bytes // 2**20,
        "diskMB": bounds.disk_bytes // 2**20,
        "pids": bounds.pids,
        "inodes": bounds.inodes,
    } | {name: round(seconds * 1000) for name, seconds in times.items() if seconds is not None}


def usage(used: Usage) -> Json:
    return {
        "durationMs": round(used.duration_s * 1000, 3),
        "cpuMs": round(used.cpu_s * 1000, 3),
        "memoryPeakBytes": used.memory_peak_bytes,
        "bytesIn": used.bytes_in,
        "bytesOut": used.bytes_out,
        "execCount": used.exec_count,
    }


def exit_(process_id: str, end: Exit) -> Json:
    return {
        "processId": process_id,
        "exitCode": end.code,
        "signal": end.signal,
        "timedOut": end.timed_out,
        "oomKilled": end.oom_killed,
        "durationMs": round(end.duration_s * 1000, 3),
    }


def exec_(result: RunResult, encoding: str | None) -> Json:
    answer = exit_(result.process_id, result.exit)
    answer["stdout"] = written(result.stdout, encoding)
    answer["stderr"] = written(result.stderr, encoding)
    answer["truncated"] = result.truncated
    return answer


def written(data: bytes, encoding: str | None) -> str:
    """Bytes as JSON can carry them: base64 exactly; as text, what is no UTF-8 becomes U+FFFD."""
    return base64.b64encode(data).decode() if encoding == "base64" else data.decode(errors="replace")


def process(info: ProcessInfo) -> Json:
    answer: Json = {
        "id": info.id,
        "command": [legible(word) for word in info.argv],
        "pid": info.pid,
        "tty": info.tty,
        "running": info.exit is None,
        "startedAt": moment(info.started_at),
        "outputStart": info.output_start,
        "outputEnd": info.output_end,
    }
    if info.exit is not None:
        answer["exitCode"] = info.exit.code
        if info.exit.signal is not None:
            answer["signal"] = info.exit.signal
    return answer


def entry(found: FileEntry) -> Json:
    return {
        "name": legible(found.name),
        "size": found.size,
        "isDir": found.kind == "directory",
        "mode": found.mode,
        "kind": found.kind,
        "modifiedAt": moment(found.modified_at),
    }


def url(found: PortUrl) -> Json:
    return {
        "containerPort": found.container_port,
        "hostPort": found.host_port,
        "url": found.url,
        "protocol": found.protocol,
    }


def template(found: Template) -> Json:
    answer: Json = {
        "name": found.name,
        "kind": found.kind,
        "base": found.base or None,
        "sizeBytes": found.size_bytes,
        "createdAt": found.created_at,
        "lastUsedAt": found.last_used_at,
    }
    return {field: value for field, value in answer.items() if value is not None}


def legible(text: str) -> str:
    """A name that may stand for bytes that are no UTF-8, as JSON can carry it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
