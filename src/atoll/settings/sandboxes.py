"""Sandboxes: what one gets, what it may ask for, what is kept of it, its network and its images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from atoll.domain.sandbox import Resources
from atoll.settings.section import DAY_S, GIB, KIB, MIB, Bound, Section


class ResourceDefaults(Section):
    """What a sandbox gets when its request does not say."""

    cpu_millis: int = Field(default=Resources().cpu_millis, ge=10, le=1_000_000)
    """Thousandths of a CPU."""
    memory_bytes: int = Field(default=Resources().memory_bytes, ge=16 * MIB, le=4096 * GIB)
    """Memory, the default writable layer included."""
    pids: int = Field(default=Resources().pids, ge=8, le=4_194_304)
    """Processes and threads."""
    disk_bytes: int = Field(default=Resources().disk_bytes, ge=1 * MIB, le=65_536 * GIB)
    """Writable layer."""
    inodes: int = Field(default=Resources().inodes, ge=256, le=1_000_000_000)
    """Files and directories in the writable layer."""
    timeout_s: Bound = None
    """A sandbox ends this long after its start; 0: never."""
    idle_s: Bound = None
    """A sandbox ends after this long without a request, a connection to a port or a process; 0: never."""
    max_age_s: Bound = None
    """A sandbox ends at this age, whatever happens; 0: never."""

    def resources(self) -> Resources:
        return Resources(**self.model_dump())


class ResourceMaxima(Section):
    """The most that a request may ask for; owner and internal keys included, for the host's own sake."""

    cpu_millis: int = Field(default=8_000, ge=10, le=1_000_000)
    """Thousandths of a CPU."""
    memory_bytes: int = Field(default=8 * GIB, ge=16 * MIB, le=4096 * GIB)
    """Memory."""
    pids: int = Field(default=32_768, ge=8, le=4_194_304)
    """Processes and threads."""
    disk_bytes: int = Field(default=64 * GIB, ge=1 * MIB, le=65_536 * GIB)
    """Writable layer."""
    inodes: int = Field(default=4_000_000, ge=256, le=1_000_000_000)
    """Files and directories in the writable layer."""
    timeout_s: Bound = DAY_S
    """Longest timeout; 0: no bound."""
    idle_s: Bound = None
    """Longest idle limit; 0: no bound."""
    max_age_s: Bound = None
    """Longest age; 0: no bound."""


class Limits(Section):
    defaults: ResourceDefaults = ResourceDefaults()
    maxima: ResourceMaxima = ResourceMaxima()
    session_timeout_s: Bound = 3_600.0
    """An execbox session without `timeoutMs` ends this long after its start; 0: as `limits.defaults`."""
    max_sandboxes_per_key: int = Field(default=100, ge=0, le=1_000_000)
    """Live sandboxes of one standard key. Owner and internal keys have no such limit."""
    max_sandboxes: int = Field(default=5_000, ge=1, le=1_000_000)
    """Live sandboxes in all."""
    ws_per_key: int = Field(default=200, ge=1, le=100_000)
    """Open WebSockets of one key."""
    output_ring_bytes: int = Field(default=1 * MIB, ge=4 * KIB, le=256 * MIB)
    """Output of one process that is kept for those who attach later."""
    run_output_bytes: int = Field(default=8 * MIB, ge=4 * KIB, le=256 * MIB)
    """Output, of each stream, that an answer holds; the rest is dropped and `truncated` says so."""
    list_items: int = Field(default=1_000, ge=1, le=100_000)
    """Items in one answer of a list."""

    @model_validator(mode="after")
    def _defaults_within_maxima(self) -> Limits:
        for name in ResourceDefaults.model_fields:
            default, maximum = getattr(self.defaults, name), getattr(self.maxima, name)
            if default is not None and maximum is not None and default > maximum:
                raise ValueError(f"defaults.{name} ({default}) is above maxima.{name} ({maximum})")
        return self


class SandboxSettings(Section):
    ended_retention_days: float = Field(default=7.0, gt=0, le=3_650)
    """Days that the record of an ended sandbox is kept."""
    reconcile_s: float = Field(default=10.0, ge=0.1, le=3_600)
    """Seconds between comparisons of the records with what the runtime has."""
    orphan_grace_s: float = Field(default=30.0, ge=0, le=3_600)
    """Seconds that a sandbox without a record is left alone before it is destroyed."""
    spares: int = Field(default=16, ge=0, le=200)
    """Sandboxes of the default shape made ahead, and as many with a network once one was asked for; 3 MB each."""
    idle_suspend_s: Bound = None
    """A sandbox is suspended when it has been idle for this long, if it does not say; 0: never."""
    terminals: int = Field(default=32, ge=1, le=1_000)
    """Terminals that may be open in one sandbox."""
    jobs: int = Field(default=16, ge=0, le=1_000)
    """Background jobs that may run in one sandbox."""
    mount_roots: tuple[str, ...] = ()
    """Folders of this host that sandboxes may mount, with all that is below them: to read, or with `:rw` behind its
    path to write. Whoever may run commands in a sandbox may mount them. Empty: nobody mounts anything."""

    @field_validator("mount_roots", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("mount_roots")
    @classmethod
    def _folders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for root in value:
            parts = Path(root.removesuffix(":rw")).parts
            if parts[:1] != ("/",) or ".." in parts or len(parts) < 2 or parts[1] in ("proc", "sys", "dev"):
                raise ValueError(f"{root!r}: a root is an absolute path, and not / or below /proc, /sys or /dev")
        writable = [Path(root.removesuffix(":rw")) for root in value if root.endswith(":rw")]
        for root in value:
            if not root.endswith(":rw") and any(Path(root).is_relative_to(outer) for outer in writable):
                raise ValueError(f"{root!r}: it is to read, but lies in a root that is to write")
        return value


class NetworkSettings(Section):
    resolvers: tuple[str, ...] = ()
    """IPv4 name servers of sandboxes that may go out. Empty: the host's own, else 1.1.1.1 and 8.8.8.8."""
    bytes_per_s: int = Field(default=128 * 2**20, ge=0, le=2**40)
    """What each sandbox may send in a second, and receive; more is dropped, and TCP slows down. 0: no limit."""

    ca_file: Path | None = None
    """PEM of authorities that the egress gateway trusts besides the host's, when it puts brokered secrets in."""

    @field_validator("resolvers", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("resolvers")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(IPv4Address(part)) for part in value)


class Images(Section):
    aliases: Mapping[str, str] = {}
    """Names that stand for a template, such as "python:3.12" = "host". Environment: JSON."""
    layers_bytes: Annotated[int, Field(ge=0)] = 20 * 2**30
    """What baked layers may hold on the disk in all; beyond it the least recently used go, none that is in use."""

    @field_validator("aliases", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value
