"""The targets and bodies that the SDK sends, made from its calls' arguments; both kinds of sandboxes use them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from atoll.domain.errors import InvalidInput
from atoll.sdk.values import Mount, Named

Command = str | Sequence[str]


def argv_of(command: Command) -> list[str]:
    """A string is for the shell, a sequence is the words themselves."""
    if isinstance(command, str):
        return ["sh", "-c", command]
    words = [str(word) for word in command]
    if not words:
        raise InvalidInput("command must not be empty", field="command")
    return words


def target_of(path: str, /, *segments: str, **query: str | int | bool | None) -> str:
    """A request target: `path`, quoted segments, then the query values that are not None (true for True)."""
    target = path + "".join("/" + quote(segment, safe="") for segment in segments)
    pairs = [(name, "true" if value is True else str(value)) for name, value in query.items() if value is not None]
    return f"{target}?{urlencode(pairs, quote_via=quote, errors='surrogateescape')}" if pairs else target


def create_body(
    *,
    image: str,
    command: Command | None,
    name: str | None,
    env: Mapping[str, str] | None,
    cwd: str | None,
    cpus: float | None,
    memory_mb: int | None,
    disk_mb: int | None,
    pids: int | None,
    inodes: int | None,
    timeout: float | None,
    idle_timeout: float | None,
    max_age: float | None,
    network: str,
    ports: Sequence[int] | None,
    setup: Sequence[str] | None,
    files: Mapping[str, str | bytes] | None,
    tty: tuple[int, int] | None,
    workspace: Named | str | None,
    workspaces: Sequence[Mount | Named | str] | None,
) -> dict[str, Any]:
    """What `POST /v1/sessions` takes; arguments that are None are left to the server. Times are seconds."""
    resources = {
        "cpuMillis": None if cpus is None else round(cpus * 1000),
        "memoryMB": memory_mb,
        "diskMB": disk_mb,
        "pids": pids,
        "inodes": inodes,
        "timeoutMs": _millis(timeout),
        "idleMs": _millis(idle_timeout),
        "maxAgeMs": _millis(max_age),
    }
    mounts = [_mounted(one) for one in (*([] if workspace is None else [workspace]), *(workspaces or ()))]
    work_dir = cwd or (mounts[0]["path"] if mounts else None)
    body: dict[str, Any] = {
        "image": image,
        "network": network,
        "command": None if command is None else argv_of(command),
        "name": name,
        "env": dict(env) if env else None,
        "workDir": work_dir,
        "resources": {key: value for key, value in resources.items() if value is not None} or None,
        "ports": [{"container": port} for port in ports] if ports else None,
        "setup": list(setup) if setup else None,
        "files": [_baked(path, content) for path, content in files.items()] if files else None,
    }
    if workspace is not None and not workspaces:
        body["workspace"] = _reference(workspace)
    elif mounts:
        body["workspaces"] = mounts
    if tty is not None:
        body |= {"tty": True, "cols": tty[0], "rows": tty[1]}
    return {key: value for key, value in body.items() if value is not None}


def run_body(
    command: Command,
    *,
    cwd: str | None,
    env: Mapping[str, str] | None,
    timeout: float | None,
    stdin: str | bytes | None,
    max_output_bytes: int | None,
) -> dict[str, Any]:
    """What `POST /v1/sessions/{id}/exec` takes; bytes travel as base64, so that output comes back exact."""
    body: dict[str, Any] = {"command": argv_of(command), "encoding": "base64"}
    if cwd is not None:
        body["workDir"] = cwd
    if env:
        body["env"] = dict(env)
    if timeout is not None:
        body["timeoutMs"] = _millis(timeout)
    if stdin is not None:
        body["stdin"] = b64encode(stdin.encode() if isinstance(stdin, str) else stdin).decode()
    if max_output_bytes is not None:
        body["maxOutputBytes"] = max_output_bytes
    return body


def _mounted(mount: Mount | Named | str) -> dict[str, Any]:
    if not isinstance(mount, Mount):
        mount = Mount(mount)
    return {"workspace": _reference(mount.workspace), "path": mount.path, "readOnly": mount.read_only}


def _reference(workspace: Named | str) -> str:
    return workspace if isinstance(workspace, str) else workspace.id


def _baked(path: str, content: str | bytes) -> dict[str, str]:
    if isinstance(content, str):
        return {"path": path, "content": content}
    return {"path": path, "content": b64encode(content).decode(), "encoding": "base64"}


def _millis(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * 1000))
