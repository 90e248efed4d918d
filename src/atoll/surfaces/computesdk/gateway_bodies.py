"""What ComputeSDK's clients send to the gateway, and what it answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from atoll.domain.sandbox import NetworkMode, Resources, SandboxSpec
from atoll.services.daemon.own_sandboxes import Asked
from atoll.surfaces.models import AnswerModel

NAMESPACE = "default"
PROVIDER = "atoll"
EXTEND_MS = 900_000
MS_MAX = 2**53
Name = Annotated[str, Field(min_length=1, max_length=128)]
Milliseconds = Annotated[int, Field(ge=1, le=MS_MAX)]


class GatewayBody(BaseModel):
    """Clients send options of other providers too: what is not known here is left alone."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, defer_build=True)


class SandboxOptions(GatewayBody):
    """What a sandbox is to be like, but for its name."""

    timeout: Milliseconds | None = Field(None, description="it ends this long after its start")
    templateId: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="a template; `host` is built in"
    )
    image: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(None, description="the same")
    snapshotId: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="a snapshot with whose files its workspace begins"
    )
    envs: dict[str, Annotated[str, Field(max_length=131_072)]] | None = None
    namespace: Name | None = Field(None, description="of the name; default: `default`")
    directory: Annotated[str, Field(max_length=1_024)] | None = Field(
        None, description="where its workspace is, and where commands run; default: /workspace"
    )
    metadata: dict[str, Any] | None = None
    overlays: Annotated[list[dict[str, Any]], Field(max_length=64)] | None = None
    servers: Annotated[list[dict[str, Any]], Field(max_length=64)] | None = None

    def asked(self, defaults: Resources, session_timeout_s: float | None, name: str | None) -> Asked:
        timeout_s = session_timeout_s if self.timeout is None else self.timeout / 1000
        return Asked(
            SandboxSpec(
                image=self.image or self.templateId or "host",
                env=dict(self.envs or {}),
                resources=replace(defaults, timeout_s=timeout_s),
                network=NetworkMode.OUTGOING,
            ),
            directory=self.directory,
            name=name,
            namespace=None if name is None else self.namespace or NAMESPACE,
            metadata=self.metadata or {},
            snapshot=self.snapshotId,
        )


class CreateSandboxBody(SandboxOptions):
    """POST /v1/sandboxes."""

    name: Name | None = Field(None, description="one of a kind in its namespace, while the sandbox has not ended")


class FindOrCreateBody(SandboxOptions):
    """POST /v1/sandboxes/find-or-create."""

    name: Name


class FindBody(GatewayBody):
    """POST /v1/sandboxes/find."""

    name: Name
    namespace: Name = NAMESPACE


class ExtendBody(GatewayBody):
    """POST /v1/sandboxes/{id}/extend."""

    duration: Milliseconds = Field(EXTEND_MS, description="milliseconds from now, after which it ends")


class SnapshotBody(GatewayBody):
    """POST /v1/snapshots."""

    sandboxId: Annotated[str, Field(min_length=1, max_length=128)]
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    metadata: dict[str, Any] | None = None


class GatewayOverlay(AnswerModel):
    id: str
    source: str
    target: str
    copy_status: str


class GatewayServer(AnswerModel):
    slug: str
    port: int | None = None
    url: str | None = None
    status: str


class GatewaySandbox(AnswerModel):
    """A sandbox: `url` is the base of its sidekick API, which `token` opens."""

    sandboxId: str
    url: str
    token: str
    provider: Literal["atoll"]
    status: str
    metadata: dict[str, Any]
    name: str | None = None
    namespace: str | None = None
    overlays: list[GatewayOverlay] | None = None
    servers: list[GatewayServer] | None = None


class GatewaySandboxAnswer(AnswerModel):
    success: Literal[True]
    data: GatewaySandbox


class GatewayFoundAnswer(AnswerModel):
    """`data` is null where there is none of that name."""

    success: Literal[True]
    data: GatewaySandbox | None


class GatewayDoneAnswer(AnswerModel):
    success: Literal[True]


class GatewayToken(AnswerModel):
    """An access token; its text is told with the sandbox alone."""

    id: str
    maker: str
    createdAt: datetime
    expiresAt: datetime


class GatewayTokensAnswer(AnswerModel):
    success: Literal[True]
    data: list[GatewayToken]


class GatewaySnapshot(AnswerModel):
    id: str
    provider: Literal["atoll"]
    createdAt: datetime
    name: str | None = None
    metadata: dict[str, Any]


class GatewaySnapshotAnswer(AnswerModel):
    success: Literal[True]
    data: GatewaySnapshot


class GatewaySnapshotsAnswer(AnswerModel):
    success: Literal[True]
    data: list[GatewaySnapshot]
