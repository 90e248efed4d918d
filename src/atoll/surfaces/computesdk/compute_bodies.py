"""What the on-premise API of ComputeSDK takes and tells of computes: sandboxes, with a file system mounted in them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from atoll.domain.ids import compute_id
from atoll.domain.sandbox import NetworkMode, Port, Resources, Sandbox, SandboxSpec
from atoll.domain.workspace import MOUNT_POINT, WorkspaceMount
from atoll.surfaces.models import AnswerModel, BodyModel

MIB = 2**20
Amount = Annotated[int, Field(ge=1, le=2**53)]
Status = Literal["starting", "running", "suspended", "stopping", "stopped", "failed"]
STATUSES: dict[str, Status] = {
    "pending": "starting",
    "building": "starting",
    "resuming": "starting",
    "running": "running",
    "suspending": "stopping",
    "suspended": "suspended",
    "stopping": "stopping",
    "stopped": "stopped",
    "killed": "stopped",
    "failed": "failed",
}


class ComputeResources(BodyModel):
    """Bounds of a compute; what is absent has the server's default."""

    cpu_millis: Amount | None = Field(None, description="thousandths of a CPU")
    memory_mb: Amount | None = None
    disk_mb: Amount | None = Field(None, description="of its own writable layer, beside the file system")
    pids: Amount | None = None
    timeout_s: Annotated[float, Field(gt=0, le=2**31, allow_inf_nan=False)] | None = None

    def over(self, defaults: Resources, session_timeout_s: float | None) -> Resources:
        return replace(
            defaults,
            cpu_millis=self.cpu_millis or defaults.cpu_millis,
            memory_bytes=self.memory_mb * MIB if self.memory_mb else defaults.memory_bytes,
            disk_bytes=self.disk_mb * MIB if self.disk_mb else defaults.disk_bytes,
            pids=self.pids or defaults.pids,
            timeout_s=self.timeout_s or session_timeout_s or defaults.timeout_s,
        )


_NO_RESOURCES = ComputeResources.model_validate({})


class ComputeBody(BodyModel):
    """POST /api/computes."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    group_id: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="a group of yours whose it is: its id or name; default: one's own"
    )
    image_name: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        "host", description="a template, or an alias of one such as python:3.9 where the operator set it"
    )
    filesystem_id: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="mounted at /workspace, writable; HOME lies in it"
    )
    env: dict[str, Annotated[str, Field(max_length=131_072)]] | None = None
    resources: ComputeResources | None = None
    network: Literal["none", "outgoing", "exposed"] | None = Field(None, description="default: outgoing")
    ports: Annotated[list[Annotated[int, Field(ge=1, le=65_535)]], Field(max_length=64)] | None = Field(
        None, description="that the network `exposed` exposes"
    )

    def spec(self, defaults: Resources, session_timeout_s: float | None) -> SandboxSpec:
        """What a runtime is asked for."""
        mounts = () if self.filesystem_id is None else (WorkspaceMount(self.filesystem_id),)
        return SandboxSpec(
            image=self.image_name,
            env=dict(self.env or {}),
            work_dir=MOUNT_POINT if mounts else "/",
            resources=(self.resources or _NO_RESOURCES).over(defaults, session_timeout_s),
            network=NetworkMode(self.network or "outgoing"),
            ports=tuple(Port(number) for number in self.ports or ()),
            workspaces=mounts,
        )


class ComputePort(AnswerModel):
    container: int
    host: int | None


class ComputeUse(AnswerModel):
    cpu_millis: int
    memory_mb: int
    disk_mb: int
    pids: int
    timeout_s: float | None


class ComputeAnswer(AnswerModel):
    """A compute. `sandbox_id` is what the other APIs of this server call it."""

    id: str = Field(pattern=r"^cmp_[0-9a-f]{12}$")
    sandbox_id: str
    name: str | None
    status: Status
    reason: str | None
    image_name: str
    owner_id: str
    group_id: str | None
    filesystem_id: str | None
    network: str
    ports: list[ComputePort]
    resources: ComputeUse
    url: str
    terminal_url: str
    exit_code: int | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class ComputesAnswer(AnswerModel):
    computes: list[ComputeAnswer]


class ComputeDeletedAnswer(AnswerModel):
    deleted: Literal[True]


def told(one: Sandbox, url: str, terminal_url: str) -> dict[str, Any]:
    """A compute as answers have it."""
    spec, resources = one.spec, one.spec.resources
    return {
        "id": compute_id(one.id),
        "sandbox_id": one.id,
        "name": one.name,
        "status": STATUSES[one.state.value],
        "reason": one.reason,
        "image_name": spec.image,
        "owner_id": one.owner,
        "group_id": one.owner if one.owner.startswith("grp_") else None,
        "filesystem_id": "fs_" + spec.workspaces[0].workspace.removeprefix("ws_") if spec.workspaces else None,
        "network": spec.network.value,
        "ports": [{"container": port.container, "host": port.host_port} for port in spec.ports],
        "resources": {
            "cpu_millis": resources.cpu_millis,
            "memory_mb": resources.memory_bytes // MIB,
            "disk_mb": resources.disk_bytes // MIB,
            "pids": resources.pids,
            "timeout_s": resources.timeout_s,
        },
        "url": url,
        "terminal_url": terminal_url,
        "exit_code": one.exit_code,
        "created_at": one.created_at,
        "started_at": one.started_at,
        "ended_at": one.ended_at,
    }
