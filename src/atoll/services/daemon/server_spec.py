"""ServerSpec: what a client says of a server that is kept running in a sandbox, checked. `servers` keeps it as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from atoll.domain.errors import InvalidInput

SLUG = re.compile(r"[a-z0-9A-Z][a-zA-Z0-9_.-]{0,63}", re.ASCII)
COMMAND_BYTES_MAX = 32_768
VARIABLES_MAX, VARIABLES_BYTES_MAX = 256, 65_536
DEPENDENCIES_MAX = 32
MS_MAX = 3_600_000
STOP_MS_MAX = 60_000
RESTARTS_MAX = 1_000_000


class ServerStatus(StrEnum):
    INSTALLING = "installing"
    STARTING = "starting"  # it waits for what it depends on, or for its program to begin
    RUNNING = "running"
    READY = "ready"  # it listens; with a health check: it is well
    FAILED = "failed"
    STOPPED = "stopped"
    RESTARTING = "restarting"  # it has ended, and begins again after its delay


class RestartPolicy(StrEnum):
    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """GET `path` of its port; 2xx and 3xx are well."""

    path: str = "/"
    interval_ms: int = 2000
    timeout_ms: int = 1500
    delay_ms: int = 5000  # from when it listens to the first look


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """`start` and `install` are lines for a shell. Defaults are ComputeSDK's."""

    slug: str
    start: str
    install: str | None = None
    path: str | None = None  # its working directory; default: the sandbox's
    env_file: str | None = None  # relative to `path`
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    port: int | None = None  # PORT is set to it, or to the next that is free
    strict_port: bool = False  # that port or none
    autostart: bool = True  # with its sandbox
    depends_on: tuple[str, ...] = ()  # slugs of servers, ids of overlays
    overlays: tuple[str, ...] = ()  # ids of its own
    restart_policy: RestartPolicy = RestartPolicy.NEVER
    max_restarts: int = 0  # 0: no limit
    restart_delay_ms: int = 1000
    stop_timeout_ms: int = 10_000
    health_check: HealthCheck | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"environment": dict(self.environment)}


def spec_of(stored: dict[str, Any]) -> ServerSpec:
    """As `as_json` gave it."""
    known: dict[str, Any] = {name: stored[name] for name in ServerSpec.__dataclass_fields__ if name in stored}
    health = known.get("health_check")
    known["depends_on"] = tuple(known.get("depends_on", ()))
    known["overlays"] = tuple(known.get("overlays", ()))
    known["restart_policy"] = RestartPolicy(known.get("restart_policy", "never"))
    known["health_check"] = None if health is None else HealthCheck(**health)
    return ServerSpec(**known)


def check_server(spec: ServerSpec) -> None:
    """InvalidInput, with the field, for what no server can be."""
    if SLUG.fullmatch(spec.slug) is None:
        message = "slug must be 1 to 64 letters, digits, or _ . - and begin with a letter or digit"
        raise InvalidInput(message, field="slug")
    _check_text(spec.start, "start", COMMAND_BYTES_MAX)
    for name in ("install", "path", "env_file"):
        value = getattr(spec, name)
        if value is not None:
            _check_text(value, name, COMMAND_BYTES_MAX if name == "install" else 4096)
    size = sum(len(name) + len(value) + 2 for name, value in spec.environment.items())
    if len(spec.environment) > VARIABLES_MAX or size > VARIABLES_BYTES_MAX:
        message = f"environment: at most {VARIABLES_MAX} variables and {VARIABLES_BYTES_MAX} characters"
        raise InvalidInput(message, field="environment")
    if spec.port is not None:
        _check_number(spec.port, "port", 1, 65_535)
    if spec.strict_port and spec.port is None:
        raise InvalidInput("strict_port needs a port", field="strict_port")
    if len(spec.depends_on) > DEPENDENCIES_MAX:
        raise InvalidInput(f"depends_on: at most {DEPENDENCIES_MAX}", field="depends_on")
    _check_number(spec.max_restarts, "max_restarts", 0, RESTARTS_MAX)
    _check_number(spec.restart_delay_ms, "restart_delay_ms", 0, MS_MAX)
    _check_number(spec.stop_timeout_ms, "stop_timeout_ms", 0, STOP_MS_MAX)
    if spec.health_check is not None:
        _check_health(spec.health_check)


def in_order(specs: Iterable[ServerSpec], known: Mapping[str, Iterable[str]], overlays: Iterable[str]) -> list[str]:
    """Slugs such that each comes after those it depends on, of what there will be when `specs` join what is `known`
    (slug -> what it depends on). InvalidInput `depends_on` for a cycle, or for what is neither server nor overlay."""
    graph = {slug: list(others) for slug, others in known.items()}
    graph |= {spec.slug: list(spec.depends_on) for spec in specs}
    copied = set(overlays)
    order: dict[str, bool] = {}
    open_: list[str] = []

    def visit(slug: str) -> None:
        if slug in order:
            return
        if slug in open_:
            cycle = " -> ".join([*open_[open_.index(slug) :], slug])
            raise InvalidInput(f"depends_on goes round: {cycle}", field="depends_on")
        open_.append(slug)
        for other in graph[slug]:
            if other in graph:
                visit(other)
            elif other not in copied and slug not in known:
                message = f"depends_on: {other!r} is neither a server nor an overlay of this sandbox"
                raise InvalidInput(message, field="depends_on")
        open_.pop()
        order[slug] = True

    for spec in specs:
        visit(spec.slug)
    return list(order)


def _check_health(check: HealthCheck) -> None:
    if not check.path.startswith("/") or len(check.path) > 1024 or not _plain(check.path):
        raise InvalidInput("health_check.path must be a path such as /health", field="health_check.path")
    _check_number(check.interval_ms, "health_check.interval_ms", 100, MS_MAX)
    _check_number(check.timeout_ms, "health_check.timeout_ms", 1, 60_000)
    _check_number(check.delay_ms, "health_check.delay_ms", 0, MS_MAX)


def _check_text(value: str, name: str, bytes_max: int) -> None:
    if not value or "\0" in value or len(value.encode(errors="replace")) > bytes_max:
        raise InvalidInput(f"{name} must be text of 1 to {bytes_max} bytes without NUL", field=name)


def _check_number(value: int, name: str, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidInput(f"{name} must be within {least}..{most}", field=name)


def _plain(path: str) -> bool:
    return all("!" <= letter <= "~" for letter in path)
