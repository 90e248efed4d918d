"""The rules about what may be asked for: sandbox and process specs against the limits; services check here first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NoReturn

from atoll.domain.egress import allow_list
from atoll.domain.errors import InvalidInput
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import NetworkMode, Port, Resources, SandboxSpec
from atoll.services.limits import Limits
from atoll.services.paths import check_path

TERMINAL_MAX = 65_535  # columns and rows are u16 in the protocols
LABEL_BYTES_MAX = 256


def check_sandbox_spec(spec: SandboxSpec, limits: Limits) -> None:
    """InvalidInput naming the field, in the words of the execbox dialect."""
    _text(spec.image, "image", 255)
    _argv(spec.command, "command", limits)
    _env(spec.env, "env", limits)
    check_path(spec.work_dir, field="workDir", bytes_max=limits.path_bytes_max)
    if not spec.work_dir.startswith("/"):
        _bad("workDir", "must be absolute")
    if spec.tty:
        _terminal(spec.cols, spec.rows)
    _resources(spec.resources, limits)
    _ports(spec, limits)
    check_allow(spec.allow, limits)
    _baked(spec, limits)


def check_process_spec(spec: ProcessSpec, limits: Limits) -> None:
    """InvalidInput naming the field: cmd, env, cwd, cols, rows or timeout."""
    if not spec.argv:
        _bad("cmd", "must not be empty")
    _argv(spec.argv, "cmd", limits)
    _env(spec.env, "env", limits)
    if spec.cwd is not None:
        check_path(spec.cwd, field="cwd", bytes_max=limits.path_bytes_max)
    if spec.tty:
        _terminal(spec.cols, spec.rows)
    if spec.timeout_s is not None and not 0 < spec.timeout_s < math.inf:
        _bad("timeout", "must be above 0")
    if len(_encoded(spec.label, "label")) > LABEL_BYTES_MAX:
        _bad("label", f"must be at most {LABEL_BYTES_MAX} bytes")


def check_given_env(env: Mapping[str, str], secrets: Mapping[str, str], limits: Limits) -> None:
    """InvalidInput when secrets do not fit beside the other variables of an environment."""
    for name in secrets:
        if name in env:
            _bad("secrets", f"{name} is in env too")
    _env({**env, **secrets}, "secrets", limits)


def check_name(name: str | None, limits: Limits) -> None:
    if name is not None:
        _text(name, "name", limits.name_chars_max)
        if not name.isprintable():
            _bad("name", "must be printable")


def _resources(asked: Resources, limits: Limits) -> None:
    mebibyte = 2**20
    _within("resources.cpuMillis", asked.cpu_millis, limits.cpu_millis_min, limits.cpu_millis_max)
    _within(
        "resources.memoryMB",
        asked.memory_bytes / mebibyte,
        limits.memory_bytes_min / mebibyte,
        limits.memory_bytes_max / mebibyte,
    )
    _within(
        "resources.diskMB",
        asked.disk_bytes / mebibyte,
        limits.disk_bytes_min / mebibyte,
        limits.disk_bytes_max / mebibyte,
    )
    _within("resources.inodes", asked.inodes, limits.inodes_min, limits.inodes_max)
    _within("resources.pids", asked.pids, limits.pids_min, limits.pids_max)
    for field, seconds, most in (
        ("resources.timeoutMs", asked.timeout_s, limits.timeout_s_max),
        ("resources.idleMs", asked.idle_s, limits.idle_s_max),
        ("resources.maxAgeMs", asked.max_age_s, limits.max_age_s_max),
        ("resources.suspendIdleMs", asked.suspend_idle_s, limits.idle_s_max),
    ):
        if seconds is not None:
            most_ms = math.inf if most is None else most * 1000
            _within(field, seconds * 1000, limits.timeout_s_min * 1000, most_ms)
            if math.isinf(seconds):
                _bad(field, "must be finite")


def _ports(spec: SandboxSpec, limits: Limits) -> None:
    if not spec.ports:
        return
    if spec.network not in (NetworkMode.EXPOSED, NetworkMode.LISTED):
        _bad("ports", f"need network exposed, not {spec.network}")
    if len(spec.ports) > limits.ports_max:
        _bad("ports", f"must be at most {limits.ports_max}")
    for port in spec.ports:
        _port(port)
    if len({port.container for port in spec.ports}) != len(spec.ports):
        _bad("ports", "must not repeat a container port")


def check_allow(allow: tuple[str, ...], limits: Limits) -> None:
    """InvalidInput, field `network.allow`."""
    if len(allow) > limits.allow_max:
        _bad("network.allow", f"must be at most {limits.allow_max} names and addresses")
    allow_list(allow)


def _port(port: Port) -> None:
    check_port(port.container, field="ports")
    if port.protocol == "udp":
        _bad("ports", "udp is not supported by this runtime")
    if port.protocol != "tcp":
        _bad("ports", "protocol must be tcp or udp")


def check_port(port: int, *, field: str = "port") -> None:
    if not 1 <= port <= 65_535:
        _bad(field, "must be within 1..65535")


def _baked(spec: SandboxSpec, limits: Limits) -> None:
    if len(spec.setup) > limits.setup_lines_max:
        _bad("setup", f"must be at most {limits.setup_lines_max} lines")
    for line in spec.setup:
        _text(line, "setup", limits.setup_bytes_max)
        # As a build file would read it: a line of it must not begin a new image.
        if any(part.strip().split(maxsplit=1)[:1] in (["FROM"], ["from"]) for part in line.splitlines()):
            _bad("setup", "must not begin a new image with FROM")
    if sum(len(line.encode()) for line in spec.setup) > limits.setup_bytes_max:
        _bad("setup", f"must be at most {limits.setup_bytes_max} bytes")
    if len(spec.files) > limits.files_max:
        _bad("files", f"must be at most {limits.files_max}")
    for file in spec.files:
        check_path(file.path, field="files", bytes_max=limits.path_bytes_max)
        if not file.path.startswith("/"):
            _bad("files", "path must be absolute")
    if sum(len(file.content) for file in spec.files) > limits.files_bytes_max:
        _bad("files", f"must be at most {limits.files_bytes_max} bytes in all")
    if len({file.path for file in spec.files}) != len(spec.files):
        _bad("files", "must not repeat a path")


def _argv(argv: Iterable[str], field: str, limits: Limits) -> None:
    size = count = 0
    for word in argv:
        if count == 0 and not word:
            _bad(field, "must name a program")
        size += len(_encoded(word, field)) + 1
        count += 1
    if count > limits.argv_max or size > limits.argv_bytes_max:
        _bad(field, f"must be at most {limits.argv_max} words and {limits.argv_bytes_max} bytes")


def _env(env: Mapping[str, str], field: str, limits: Limits) -> None:
    size = 0
    for name, value in env.items():
        if not name or "=" in name:
            _bad(field, "names must not be empty or contain =")
        size += len(_encoded(name, field)) + len(_encoded(value, field)) + 2
    if len(env) > limits.env_max or size > limits.env_bytes_max:
        _bad(field, f"must be at most {limits.env_max} variables and {limits.env_bytes_max} bytes")


def _terminal(cols: int, rows: int) -> None:
    _within("cols", cols, 1, TERMINAL_MAX)
    _within("rows", rows, 1, TERMINAL_MAX)


def _text(text: str, field: str, bytes_max: int) -> None:
    if not text.strip():
        _bad(field, "must not be empty")
    if len(_encoded(text, field)) > bytes_max:
        _bad(field, f"must be at most {bytes_max} bytes")


def _encoded(text: str, field: str) -> bytes:
    if "\0" in text:
        _bad(field, "must not contain NUL")
    try:
        return text.encode()
    except UnicodeEncodeError:
        _bad(field, "must be valid UTF-8")


def _within(field: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # false for NaN too
        _bad(field, f"must be within {least:g}..{most:g}")


def _bad(field: str, rule: str) -> NoReturn:
    raise InvalidInput(f"{field} {rule}", field=field)
