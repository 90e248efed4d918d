"""The targets and bodies that the SDK sends, made from its calls' arguments; both kinds of sandboxes use them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from atoll.domain.errors import InvalidInput
from atoll.sdk.arguments import mapping, millis, several, text, texts, thousandths, whole
from atoll.sdk.secret_values import SecretUse, secret_items
from atoll.sdk.values import Mount, Named

Command = str | Sequence[str]
_PORTS = "a list of port numbers, such as [8000]"
_ALLOWED = "none, outgoing, exposed, or a list of names such as pypi.org and *.example.org"
_SCOPES = "a list of scopes, such as ['read'], or a dict of scopes and resources"
_BOUNDS = ("expires_in", "budget_micro_usd")
_FOLDER = "a path in the sandbox as a string"


def argv_of(command: Command) -> list[str]:
    """A string is for the shell, a sequence is the words themselves."""
    if isinstance(command, str):
        return ["sh", "-c", command]
    words = [str(word) for word in several(command, "command", "a string for the shell or a list of words") or ()]
    if not words:
        raise InvalidInput("command must not be empty", field="command")
    return words


def environment(env: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of it; empty for None."""
    return mapping(env, "env", 'a dict such as {"NAME": "value"}') or {}


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
    network: str | Sequence[str] | None,
    ports: Sequence[int] | None,
    setup: Sequence[str] | None,
    files: Mapping[str, str | bytes] | None,
    tty: tuple[int, int] | None,
    workspace: Named | str | None,
    workspaces: Sequence[Mount | Named | str] | None,
    secrets: Sequence[SecretUse | str] | None = None,
    group: str | None = None,
    capability: Sequence[str] | Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `POST /v1/sessions` takes; arguments that are None are left to the server. Times are seconds."""
    resources = {
        "cpuMillis": thousandths(cpus, "cpus", "a number such as 0.5"),
        "memoryMB": whole(memory_mb, "memory_mb", "a whole number of MiB, such as 512"),
        "diskMB": whole(disk_mb, "disk_mb", "a whole number of MiB, such as 256"),
        "pids": whole(pids, "pids", "a whole number"),
        "inodes": whole(inodes, "inodes", "a whole number"),
        "timeoutMs": millis(timeout, "timeout"),
        "idleMs": millis(idle_timeout, "idle_timeout"),
        "maxAgeMs": millis(max_age, "max_age"),
    }
    published = several(ports, "ports", _PORTS)
    more = several(workspaces, "workspaces", "a list of workspaces, their names or Mounts")
    mounts = [_mounted(one) for one in (*([] if workspace is None else [workspace]), *(more or ()))]
    work_dir = text(cwd, "cwd", _FOLDER) or (mounts[0]["path"] if mounts else None)
    baked = mapping(files, "files", "a dict of paths and their contents")
    body: dict[str, Any] = {
        "image": text(image, "image", "a template's name"),
        "network": _network(network) or ("exposed" if published else "none"),
        "command": None if command is None else argv_of(command),
        "name": text(name, "name", "a string"),
        "env": environment(env) or None,
        "workDir": work_dir,
        "resources": {key: value for key, value in resources.items() if value is not None} or None,
        "ports": [{"container": whole(port, "ports", _PORTS)} for port in published] if published else None,
        "setup": texts(setup, "setup", "a list of lines for the shell") or None,
        "files": [_baked(path, content) for path, content in baked.items()] if baked else None,
        "secrets": secret_items(secrets) or None,
        "group": text(group, "group", "a group's id"),
        "capability": _capability(capability),
    }
    if workspace is not None and not more:
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
    secrets: Sequence[SecretUse | str] | None = None,
) -> dict[str, Any]:
    """What `POST /v1/sessions/{id}/exec` takes; bytes travel as base64, so that output comes back exact."""
    body: dict[str, Any] = {"command": argv_of(command), "encoding": "base64"}
    if cwd is not None:
        body["workDir"] = text(cwd, "cwd", _FOLDER)
    if env:
        body["env"] = environment(env)
    if timeout is not None:
        body["timeoutMs"] = millis(timeout, "timeout")
    if stdin is not None:
        body["stdin"] = b64encode(stdin.encode() if isinstance(stdin, str) else stdin).decode()
    if secrets:
        body["secrets"] = secret_items(secrets)
    if max_output_bytes is not None:
        body["maxOutputBytes"] = whole(max_output_bytes, "max_output_bytes", "a whole number of bytes")
    return body


def allowed_body(allow: Sequence[str]) -> dict[str, Any]:
    """What `PUT /v1/sessions/{id}/network` takes."""
    return {"allow": texts(allow, "allow", _ALLOWED) or []}


def _network(network: str | Sequence[str] | None) -> str | dict[str, Any] | None:
    """A list is the names that may be reached."""
    if network is None or isinstance(network, str):
        return network
    return {"allow": texts(network, "network", _ALLOWED) or []}


def _capability(capability: Sequence[str] | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if capability is None:
        return None
    asked = capability if isinstance(capability, Mapping) else {"scopes": capability}
    bounds = {
        "expiresInMs": millis(asked.get("expires_in"), "capability.expires_in"),
        "budgetMicroUsd": whole(asked.get("budget_micro_usd"), "capability.budget_micro_usd", "a whole number"),
    }
    told = {name: texts(listed, "capability", _SCOPES) for name, listed in asked.items() if name not in _BOUNDS}
    return {**told, **{name: value for name, value in bounds.items() if value is not None}}


def _mounted(mount: Mount | Named | str) -> dict[str, Any]:
    if not isinstance(mount, Mount):
        mount = Mount(mount)
    return {"workspace": _reference(mount.workspace), "path": mount.path, "readOnly": mount.read_only}


def _reference(workspace: Named | str) -> str:
    return workspace if isinstance(workspace, str) else workspace.id


def _baked(path: str, content: object) -> dict[str, str]:
    if isinstance(content, str):
        return {"path": path, "content": content}
    if not isinstance(content, (bytes, bytearray)):
        raise InvalidInput(f"files must have a string or bytes for {path}, not {content!r}", field="files")
    return {"path": path, "content": b64encode(content).decode(), "encoding": "base64"}
