"""What clients of the sidekick API send about watchers, signals, environment files, servers and overlays."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from atoll.services.daemon.overlays import OverlaySpec
from atoll.services.daemon.server_spec import HealthCheck, RestartPolicy, ServerSpec
from atoll.surfaces.models import BodyModel

Strategy = Literal["copy", "smart"]
Number = int


class WatcherBody(BodyModel):
    path: str
    includeContent: bool | None = None
    ignored: list[str] | None = Field(None, max_length=64)
    encoding: Literal["raw", "base64"] | None = None


class PortBody(BodyModel):
    port: int
    type: Literal["open", "close"]
    url: str | None = None


class PortUrlBody(BodyModel):
    url: str | None = None


class ReadyBody(BodyModel):
    port: int
    url: str | None = None


class ErrorBody(BodyModel):
    message: str


class EnvSetBody(BodyModel):
    variables: dict[str, str]


class EnvUnsetBody(BodyModel):
    keys: list[str] = Field(max_length=1000)


class OverlayPart(BodyModel):
    """`target` is relative to the sandbox's work directory."""

    source: str
    target: str
    ignore: list[str] | None = Field(None, max_length=64)
    strategy: Strategy | None = None

    def spec(self) -> OverlaySpec:
        return OverlaySpec(self.source, self.target, tuple(self.ignore or ()), self.strategy or "smart")


class OverlayBody(OverlayPart):
    waitForCompletion: bool | dict[str, float] | None = Field(None, description="of the client's: not looked at")


class HealthCheckBody(BodyModel):
    path: str | None = None
    interval_ms: Number | None = None
    timeout_ms: Number | None = None
    delay_ms: Number | None = None

    def spec(self) -> HealthCheck:
        given = self.model_dump(exclude_none=True)
        return HealthCheck(**given)


class ServerBody(BodyModel):
    slug: str
    start: str
    install: str | None = None
    path: str | None = None
    env_file: str | None = None
    environment: dict[str, str] | None = None
    port: Number | None = None
    strict_port: bool | None = None
    autostart: bool | None = None
    overlay: OverlayPart | None = None
    overlays: list[OverlayPart] | None = Field(None, max_length=32)
    depends_on: list[str] | None = Field(None, max_length=32)
    restart_policy: Literal["never", "on-failure", "always"] | None = None
    max_restarts: Number | None = None
    restart_delay_ms: Number | None = None
    stop_timeout_ms: Number | None = None
    health_check: HealthCheckBody | None = None

    def spec(self) -> ServerSpec:
        """Not checked yet."""
        given = self.model_dump(exclude_none=True, exclude={"overlay", "overlays", "health_check"})
        if self.depends_on is not None:
            given["depends_on"] = tuple(self.depends_on)
        if self.restart_policy is not None:
            given["restart_policy"] = RestartPolicy(self.restart_policy)
        return ServerSpec(**given, health_check=None if self.health_check is None else self.health_check.spec())

    def overlay_specs(self) -> list[OverlaySpec]:
        parts = ([] if self.overlay is None else [self.overlay]) + (self.overlays or [])
        return [part.spec() for part in parts]


class StatusBody(BodyModel):
    status: Literal["installing", "starting", "running", "ready", "failed", "stopped", "restarting"]
