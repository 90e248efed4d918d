"""What the sidekick API says of watchers, signals, environment files, servers and overlays."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from atoll.domain.fixture import Fixture
from atoll.services.daemon.servers import Server
from atoll.services.daemon.watchers import channel_of
from atoll.surfaces.models import AnswerModel

Json = dict[str, Any]
Status = Literal["installing", "starting", "running", "ready", "failed", "stopped", "restarting"]
CopyStatus = Literal["pending", "in_progress", "complete", "failed"]


class Watcher(AnswerModel):
    id: str
    path: str
    includeContent: bool
    ignored: list[str]
    status: Literal["active"]
    channel: str
    encoding: Literal["raw", "base64"]
    ws_url: str


class WatcherAnswer(AnswerModel):
    message: str
    data: Watcher


class Watchers(AnswerModel):
    watchers: list[Watcher]


class WatchersAnswer(AnswerModel):
    message: str
    data: Watchers


class SignalsState(AnswerModel):
    status: Literal["active", "stopped"]
    channel: str
    ws_url: str


class SignalsAnswer(AnswerModel):
    message: str
    data: SignalsState


class PortSignal(AnswerModel):
    port: int
    type: Literal["open", "close"]
    url: str


class PortSignalAnswer(AnswerModel):
    message: str
    data: PortSignal


class ServerReady(AnswerModel):
    port: int
    url: str


class ServerReadyAnswer(AnswerModel):
    message: str
    data: ServerReady


class ErrorSignal(AnswerModel):
    message: str


class ErrorSignalAnswer(AnswerModel):
    message: str
    data: ErrorSignal


class EnvVariables(AnswerModel):
    file: str
    variables: dict[str, str]


class EnvVariablesAnswer(AnswerModel):
    status: Literal["success"]
    message: str
    data: EnvVariables


class EnvKeys(AnswerModel):
    file: str
    keys: list[str]


class EnvKeysAnswer(AnswerModel):
    status: Literal["success"]
    message: str
    data: EnvKeys


class HealthCheckShown(AnswerModel):
    path: str
    interval_ms: int
    timeout_ms: int
    delay_ms: int


class HealthStatus(AnswerModel):
    last_check: datetime | None = None
    last_status: int | None = None
    consecutive_failures: int


class ServerShown(AnswerModel):
    slug: str
    install: str | None = None
    start: str
    path: str
    original_path: str | None = None
    env_file: str | None = None
    environment: dict[str, str] | None = None
    autostart: bool
    strict_port: bool
    depends_on: list[str]
    overlays: list[str] = Field(description="ids of those that it was given")
    port: int | None = None
    url: str | None = Field(None, description="a private preview of its port")
    status: Status
    pid: int | None = None
    restart_policy: Literal["never", "on-failure", "always"]
    max_restarts: int
    restart_delay: int = Field(description="in milliseconds, as the next three")
    restart_delay_ms: int
    stop_timeout: int
    stop_timeout_ms: int
    restart_count: int
    exit_code: int | None = None
    error: str | None = Field(None, description="why it failed")
    health_check: HealthCheckShown | None = None
    healthy: bool | None = None
    health_status: HealthStatus | None = None
    created_at: datetime
    updated_at: datetime


class ServerOne(ServerShown):
    """Both where clients look for it."""

    server: ServerShown


class ServerAnswer(AnswerModel):
    status: Literal["success"]
    message: str
    data: ServerOne


class ServersShown(AnswerModel):
    servers: list[ServerShown]


class ServersAnswer(AnswerModel):
    status: Literal["success"]
    message: str
    data: ServersShown


class Stopped(AnswerModel):
    slug: str


class StoppedAnswer(AnswerModel):
    status: Literal["success"]
    message: str
    data: Stopped


class Logs(AnswerModel):
    slug: str
    stream: Literal["stdout", "stderr", "combined"]
    logs: str


class LogsAnswer(AnswerModel):
    status: Literal["success"]
    message: str
    data: Logs


class StatusSet(AnswerModel):
    slug: str
    status: Status


class StatusAnswer(AnswerModel):
    status: Literal["success"]
    message: str
    data: StatusSet


class OverlayStats(AnswerModel):
    copied_files: int
    copied_dirs: int
    skipped: list[str]


class OverlayAnswer(AnswerModel):
    id: str
    source: str
    target: str
    strategy: Literal["copy", "smart"]
    created_at: datetime
    stats: OverlayStats
    copy_status: CopyStatus
    copy_error: str | None = None


class OverlaysAnswer(AnswerModel):
    overlays: list[OverlayAnswer]


def watcher(one: Fixture, ws_url: str) -> Json:
    return {
        "id": one.name,
        "path": one.spec["path"],
        "includeContent": one.spec["include_content"],
        "ignored": one.spec["ignored"],
        "status": "active",
        "channel": channel_of(one),
        "encoding": one.spec["encoding"],
        "ws_url": ws_url,
    }


def server(one: Server, url: str | None) -> Json:
    spec, state = one.spec, one.fixture.state
    health = None if spec.health_check is None else {f: getattr(spec.health_check, f) for f in _HEALTH}
    shown: Json = {
        "slug": spec.slug,
        "start": spec.start,
        "path": spec.path or one.work_dir,
        "environment": dict(spec.environment),
        "autostart": spec.autostart,
        "strict_port": spec.strict_port,
        "depends_on": list(spec.depends_on),
        "overlays": list(spec.overlays),
        "status": one.status,
        "restart_policy": spec.restart_policy,
        "max_restarts": spec.max_restarts,
        "restart_delay": spec.restart_delay_ms,
        "restart_delay_ms": spec.restart_delay_ms,
        "stop_timeout": spec.stop_timeout_ms,
        "stop_timeout_ms": spec.stop_timeout_ms,
        "restart_count": state.get("restarts", 0),
        "created_at": one.fixture.created_at,
        "updated_at": one.fixture.updated_at,
    }
    some: Json = {
        "install": spec.install,
        "original_path": spec.path,
        "env_file": spec.env_file,
        "port": state.get("port") or spec.port,
        "url": url,
        "pid": None if one.rests else state.get("pid"),
        "exit_code": state.get("exit_code"),
        "error": state.get("error"),
        "health_check": health,
        "healthy": None if one.rests else state.get("healthy"),
    }
    if health is not None and one.health is not None:
        some["health_status"] = {
            "consecutive_failures": one.health.consecutive_failures,
            **({"last_check": one.health.last_check} if one.health.last_check else {}),
            **({"last_status": one.health.last_status} if one.health.last_status else {}),
        }
    return shown | {name: value for name, value in some.items() if value is not None}


def overlay(one: Fixture) -> Json:
    spec, state = one.spec, one.state
    shown: Json = {
        "id": one.name,
        "source": spec["source"],
        "target": spec["asked_target"],
        "strategy": spec["strategy"],
        "created_at": one.created_at,
        "stats": {"copied_files": state["files"], "copied_dirs": state["folders"], "skipped": state["skipped"]},
        "copy_status": state["copy_status"],
    }
    return shown | ({"copy_error": state["copy_error"]} if state.get("copy_error") else {})


_HEALTH = ("path", "interval_ms", "timeout_ms", "delay_ms")
