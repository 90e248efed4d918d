"""What the tools answer with: structured output, whose schemas clients are told beforehand."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from atoll.sdk.values import SandboxInfo


class PortOut(BaseModel):
    port: int
    url: str = Field(description="where it is reached from the server's machine")


class SandboxOut(BaseModel):
    id: str
    name: str | None
    state: str
    image: str
    network: str
    ports: list[PortOut]


class SandboxesOut(BaseModel):
    sandboxes: list[SandboxOut]
    more: bool = Field(description="whether there are others beyond the limit")


class StoppedOut(BaseModel):
    id: str
    state: str


class CommandOut(BaseModel):
    exit_code: int = Field(description="128 + n when signal n ended it")
    stdout: str
    stderr: str
    timed_out: bool
    truncated: bool = Field(description="whether some of the output was left out")


class FileOut(BaseModel):
    path: str
    size: int = Field(description="of the whole file, in bytes")
    content: str
    encoding: Literal["utf-8", "base64"]
    next_offset: int | None = Field(description="where to read on; null at the end of the file")


class WrittenOut(BaseModel):
    path: str
    size: int


class EntryOut(BaseModel):
    name: str
    kind: Literal["file", "directory", "symlink", "other"]
    size: int


class EntriesOut(BaseModel):
    path: str
    entries: list[EntryOut]
    truncated: bool


class PreviewOut(BaseModel):
    url: str = Field(description="for who has the owner's credential")
    link: str = Field(description="opens it for anybody who has this link, until it expires")
    expires_at: str
    healthy: bool | None = Field(description="whether the port answered when it was last looked at; null: not looked")


class SnapshotOut(BaseModel):
    id: str
    name: str | None
    workspace: str
    revision: str


class RestoredOut(BaseModel):
    workspace: str
    revision: str = Field(description="the revision that the restore made: it can be undone")
    changed: bool


def sandbox_out(info: SandboxInfo) -> SandboxOut:
    """A sandbox as the tools tell it."""
    state = "suspended" if info.suspended else "paused" if info.paused else info.state
    ports = [PortOut(port=port.container_port, url=port.url) for port in info.ports]
    return SandboxOut(id=info.id, name=info.name, state=state, image=info.image, network=info.network, ports=ports)
