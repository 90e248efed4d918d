"""What clients of the execbox dialect send: bodies checked field by field, unknown fields refused by name.

Limits of amounts are the services'; here is only what the shape of a request demands.
"""

from __future__ import annotations

import base64
import binascii
import re
import signal as signals
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, StringConstraints

from atoll.domain.errors import InvalidInput
from atoll.domain.key import Scope
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import BakedFile, Grant, NetworkMode, Port, Resources, SandboxSpec
from atoll.domain.secret import GivenAs, SecretUse
from atoll.domain.workspace import MOUNT_POINT, WorkspaceMount
from atoll.surfaces.models import BodyModel
from atoll.surfaces.words import words

MIB = 2**20
SECRETS_MAX = 64
MAX_INT = 2**53  # above it JSON readers disagree about a number
Word = Annotated[str, StringConstraints(max_length=131_072)]
Amount = Annotated[int, Field(ge=1, le=MAX_INT)]
TerminalSize = Annotated[int, Field(ge=1, le=65_535)]
Encoding = Literal["utf8", "base64"]

_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_GO_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class FileBody(BodyModel):
    """A file baked into the session's image."""

    path: str = Field(min_length=1, max_length=4096)
    content: str
    encoding: Encoding | None = None

    def baked(self) -> BakedFile:
        return BakedFile(self.path, encoded(self.content, self.encoding, "files"))


class PortBody(BodyModel):
    """A port to expose."""

    container: int = Field(ge=1, le=65_535)
    protocol: Literal["tcp", "udp"] | None = None


class MountBody(BodyModel):
    """A workspace mounted into the session."""

    workspace: str = Field(min_length=1, max_length=128, description="its id, or the name of one's own")
    path: str | None = Field(None, min_length=1, max_length=4096, description="where; default: /workspace")
    readOnly: bool = False

    def mount(self) -> WorkspaceMount:
        return WorkspaceMount(self.workspace, self.path or MOUNT_POINT, self.readOnly)


class SecretUseBody(BodyModel):
    """A secret for a process."""

    name: str = Field(min_length=1, max_length=256, description="its name or id; a group's as GROUP/NAME")
    as_: Literal["env", "file", "broker"] | None = Field(
        None,
        alias="as",
        description="a variable, a file, or a variable with a placeholder that only requests to its hosts turn into it",
    )
    env: str | None = Field(None, min_length=1, max_length=128, description="the variable; default: the secret's name")
    path: str | None = Field(
        None, min_length=1, max_length=256, description="the file, in /run/secrets; default: one of the secret's name"
    )

    def use(self) -> SecretUse:
        as_file = self.as_ == "file"
        wrong, value = ("env", self.env) if as_file else ("path", self.path)
        if value is not None:
            raise InvalidInput(f"secrets: {wrong} does not go with as: {self.as_ or 'env'}", field="secrets")
        return SecretUse(self.name, GivenAs(self.as_ or "env"), (self.path if as_file else self.env) or "")


SecretUses = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)] | SecretUseBody], Field(max_length=SECRETS_MAX)
]


def secret_uses(asked: list[str | SecretUseBody] | None) -> tuple[SecretUse, ...]:
    """A name alone is a variable of that name."""
    return tuple(SecretUse(one) if isinstance(one, str) else one.use() for one in asked or ())


class CapabilityBody(BodyModel):
    """What a session may do with this API: no more than who creates it."""

    scopes: list[Literal["execute", "read", "write"]] = Field(min_length=1, max_length=3)
    resources: list[Annotated[str, Field(min_length=1, max_length=128)]] | None = Field(
        None, max_length=1000, description="the only ids that it reaches, besides its own; absent: all that you reach"
    )

    expiresInMs: Amount | None = Field(
        None, description="it ends so long after the session was created; absent: with the session"
    )
    budgetMicroUsd: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        None, description="what it may spend in all, within your own budget; absent: what you may"
    )

    def grant(self) -> Grant:
        return Grant(
            frozenset(map(Scope, self.scopes)),
            None if self.resources is None else frozenset(self.resources),
            lasts_s=None if self.expiresInMs is None else self.expiresInMs / 1000,
            budget_micro_usd=self.budgetMicroUsd,
        )


class NetworkBody(BodyModel):
    """The names and addresses that a session may reach, by whatever port over TCP."""

    allow: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        max_length=1000,
        description="names (pypi.org), all names below one (*.pypi.org), public IPv4 addresses and networks, or *",
    )


class ResourcesBody(BodyModel):
    """Bounds of a session; what is absent has the server's default."""

    cpuMillis: Amount | None = Field(None, description="thousandths of a CPU")
    memoryMB: Amount | None = Field(None, description="MiB")
    timeoutMs: Amount | None = Field(None, description="the session ends this long after its start")
    pids: Amount | None = Field(None, description="processes and threads")
    diskMB: Amount | None = Field(
        None, validation_alias=AliasChoices("diskMB", "storageMB"), description="writable layer, MiB"
    )
    inodes: Amount | None = Field(None, description="files and directories in the writable layer")
    idleMs: Amount | None = Field(None, description="the session ends after this long without use")
    maxAgeMs: Amount | None = Field(None, description="the session ends at this age, whatever happens")
    computePower: Amount | None = Field(None, description="legacy: whole CPUs; cpuMillis wins")
    timeout: str | None = Field(None, description="legacy: a duration such as 1m30s; timeoutMs wins")

    def over(self, defaults: Resources, session_timeout_s: float | None) -> Resources:
        """The resources asked for, completed."""
        cpu_millis = self.cpuMillis or (self.computePower and self.computePower * 1000)
        timeout_s = _seconds(self.timeoutMs)
        if timeout_s is None and self.timeout:
            timeout_s = _go_duration_s(self.timeout)
        return Resources(
            cpu_millis=cpu_millis or defaults.cpu_millis,
            memory_bytes=self.memoryMB * MIB if self.memoryMB else defaults.memory_bytes,
            pids=self.pids or defaults.pids,
            disk_bytes=self.diskMB * MIB if self.diskMB else defaults.disk_bytes,
            inodes=self.inodes or defaults.inodes,
            timeout_s=timeout_s or session_timeout_s or defaults.timeout_s,
            idle_s=_seconds(self.idleMs) or defaults.idle_s,
            max_age_s=_seconds(self.maxAgeMs) or defaults.max_age_s,
        )


_NO_RESOURCES = ResourcesBody.model_validate({})


class CreateBody(BodyModel):
    """POST /v1/sessions."""

    schema_: Any = Field(None, validation_alias="$schema", exclude=True)
    image: str = Field(min_length=1, max_length=255, description="a template; `host` is built in")
    setup: list[str] | None = Field(None, description="command lines run once and cached with the image")
    files: list[FileBody] | None = None
    command: list[Word] | None = Field(None, description="the main process; without one the session idles")
    env: dict[str, Word] | None = None
    secrets: SecretUses | None = Field(
        None, description="for the main process; without one, for each command that runs in the session"
    )
    workDir: str | None = Field(None, max_length=4096)
    resources: ResourcesBody | None = None
    network: Literal["none", "outgoing", "exposed"] | NetworkBody | None = Field(
        None, description="default: outgoing; with a list, nothing but what it allows is reached"
    )
    ports: list[PortBody] | None = None
    name: str | None = Field(None, max_length=128)
    workspace: str | None = Field(
        None, min_length=1, max_length=128, description="mounted at /workspace; HOME lies in it"
    )
    workspaces: list[MountBody] | None = Field(None, description="several; HOME lies in the first writable one")
    capability: CapabilityBody | None = Field(
        None, description="lets the session use this API, at the address in its ATOLL_URL, without any key"
    )
    group: str | None = Field(None, max_length=128, description="a group of yours whose it is: its id or name")
    tty: bool | None = Field(None, description="give the main process a terminal")
    cols: TerminalSize | None = None
    rows: TerminalSize | None = None

    def spec(self, defaults: Resources, session_timeout_s: float | None) -> SandboxSpec:
        """What a runtime is asked for."""
        return SandboxSpec(
            image=self.image,
            command=tuple(self.command or ()),
            env=dict(self.env or {}),
            work_dir=self.workDir or "/",
            tty=bool(self.tty),
            cols=self.cols or 80,
            rows=self.rows or 24,
            resources=(self.resources or _NO_RESOURCES).over(defaults, session_timeout_s),
            network=self._mode(),
            allow=tuple(self.network.allow) if isinstance(self.network, NetworkBody) else (),
            capability=None if self.capability is None else self.capability.grant(),
            ports=tuple(Port(port.container, port.protocol or "tcp") for port in self.ports or ()),
            setup=tuple(self.setup or ()),
            files=tuple(file.baked() for file in self.files or ()),
            workspaces=self._mounts(),
            secrets=secret_uses(self.secrets),
        )

    def _mode(self) -> NetworkMode:
        return NetworkMode.LISTED if isinstance(self.network, NetworkBody) else NetworkMode(self.network or "outgoing")

    def _mounts(self) -> tuple[WorkspaceMount, ...]:
        if self.workspace is not None and self.workspaces is not None:
            raise InvalidInput("workspace and workspaces exclude each other", field="workspace")
        if self.workspace is not None:
            return (WorkspaceMount(self.workspace),)
        return tuple(one.mount() for one in self.workspaces or ())


class ExecBody(BodyModel):
    """POST /v1/sessions/{id}/exec: run a command to its end."""

    command: Annotated[list[Word], Field(min_length=1)] | Word = Field(
        description="the words of the command, or one string split by shell-word rules; no shell runs it"
    )
    env: dict[str, Word] | None = None
    secrets: SecretUses | None = Field(None, description="for this command")
    workDir: str | None = Field(None, max_length=4096)
    timeoutMs: Amount | None = Field(None, description="its whole tree is ended after this time")
    stdin: str | None = None
    encoding: Encoding | None = Field(None, description="how stdin, stdout and stderr are written here")
    maxOutputBytes: Amount | None = Field(None, description="kept of each stream; the rest is dropped")

    def spec(self) -> ProcessSpec:
        """The process to start."""
        return ProcessSpec(
            argv=words(self.command, "command"),
            env=dict(self.env or {}),
            cwd=self.workDir or None,
            stdin=self.stdin is not None,
            timeout_s=_seconds(self.timeoutMs),
            secrets=secret_uses(self.secrets),
        )

    def stdin_bytes(self) -> bytes:
        return encoded(self.stdin or "", self.encoding, "stdin")


class MoveBody(BodyModel):
    """POST /v1/sessions/{id}/files/move."""

    source: str = Field(validation_alias="from", min_length=1, max_length=4096)
    destination: str = Field(validation_alias="to", min_length=1, max_length=4096)


class SignalBody(BodyModel):
    """POST /v1/sessions/{id}/processes/{pid}/signal."""

    signal: Annotated[int, Field(ge=1, le=64)] | Annotated[str, Field(min_length=1, max_length=16)]

    def number(self) -> int:
        if isinstance(self.signal, int):
            return self.signal
        name = self.signal.upper()
        try:
            return signals.Signals["SIG" + name.removeprefix("SIG")].value
        except KeyError:
            raise InvalidInput("signal must be a number or a name such as TERM", field="signal") from None


class KeepaliveBody(BodyModel):
    """POST /v1/sessions/{id}/keepalive."""

    timeoutMs: Amount | None = None

    @property
    def timeout_s(self) -> float | None:
        return _seconds(self.timeoutMs)


def encoded(text: str, encoding: str | None, field: str) -> bytes:
    """The bytes that `text` stands for."""
    try:
        return base64.b64decode(text, validate=True) if encoding == "base64" else text.encode()
    except (binascii.Error, ValueError):
        raise InvalidInput(f"{field} is not valid {encoding or 'utf8'}", field=field) from None


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds is not None else None


def _go_duration_s(text: str) -> float:
    """`1m30s` -> 90.0: the form that older clients send."""
    parts = _GO_DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInput("resources.timeout must be a duration such as 1m30s", field="resources.timeout")
    return sum(float(number) * _GO_UNITS_S[unit] for number, unit in parts)
