"""What `sandbox_config` of the Agent Workspace API may say of the sandbox that a workspace's commands run in."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from atoll.domain.sandbox import NetworkMode, Resources, SandboxSpec
from atoll.domain.workspace import MOUNT_POINT

MIB = 2**20
IDLE_S = 900.0  # that a sandbox lives on without a command, where nothing else is asked for
Amount = Annotated[int, Field(ge=1, le=2**53)]
Seconds = Annotated[float, Field(gt=0, le=2**31)]


class SandboxConfig(BaseModel):
    """Known names; others are kept with the workspace and have no effect."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: Annotated[str, Field(min_length=1, max_length=255)] = "host"
    env: dict[str, str] = {}
    network: Literal["none", "outgoing"] = "outgoing"
    work_dir: Annotated[str, Field(max_length=4096)] = Field(
        MOUNT_POINT, validation_alias=AliasChoices("work_dir", "workDir", "workdir")
    )
    cpu_millis: Amount | None = Field(None, validation_alias=AliasChoices("cpu_millis", "cpuMillis"))
    memory_mb: Amount | None = Field(None, validation_alias=AliasChoices("memory_mb", "memoryMB"))
    disk_mb: Amount | None = Field(None, validation_alias=AliasChoices("disk_mb", "diskMB"))
    pids: Amount | None = None
    timeout_s: Seconds | None = Field(None, validation_alias=AliasChoices("timeout_s", "timeout"))
    idle_s: Seconds = IDLE_S

    def spec(self, defaults: Resources) -> SandboxSpec:
        """What a runtime is asked for."""
        return SandboxSpec(
            image=self.image,
            env=dict(self.env),
            work_dir=self.work_dir,
            network=NetworkMode(self.network),
            resources=replace(
                defaults,
                cpu_millis=self.cpu_millis or defaults.cpu_millis,
                memory_bytes=self.memory_mb * MIB if self.memory_mb else defaults.memory_bytes,
                disk_bytes=self.disk_mb * MIB if self.disk_mb else defaults.disk_bytes,
                pids=self.pids or defaults.pids,
                timeout_s=self.timeout_s or defaults.timeout_s,
                idle_s=self.idle_s,
            ),
        )


def _known(value: dict[str, Any] | None) -> dict[str, Any] | None:
    SandboxConfig.model_validate(value or {})
    return value


# As it came, and good: it is kept so.
AskedConfig = Annotated[
    dict[str, Any] | None,
    AfterValidator(_known),
    Field(description="image, env, network, work_dir, cpu_millis, memory_mb, disk_mb, pids, timeout_s, idle_s"),
]


def spec_of(config: dict[str, Any], defaults: Resources) -> SandboxSpec:
    """The sandbox of a stored configuration; one that this version cannot read any more counts as none."""
    try:
        return SandboxConfig.model_validate(config).spec(defaults)
    except ValidationError:
        return SandboxConfig.model_validate({}).spec(defaults)
