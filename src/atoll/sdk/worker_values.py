"""Workers as the SDK speaks of them: what the marketplace says about one, and how a run of one went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from atoll.sdk.values import moment_of


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One version of a worker, with what is counted of all its versions."""

    id: str
    name: str
    author: str
    version: str
    description: str = ""
    tags: tuple[str, ...] = ()
    pricing: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)  # per_run: dollars
    command: tuple[str, ...] = ()  # empty: it has an endpoint alone, and is not run here
    template: str | None = None
    endpoint_url: str | None = None
    rating: float = 0.0  # the mean of `ratings`
    ratings: int = 0
    installs: int = 0
    public: bool = True
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WorkerRun:
    """A run that ended. `charged` is in dollars."""

    id: str
    worker: str
    version: str
    sandbox: str
    status: str  # completed, failed, timed_out
    stdout: str
    stderr: str
    exit_code: int
    charged: float
    duration_s: float = 0.0
    truncated: bool = False

    @property
    def ok(self) -> bool:
        return self.status == "completed"


def worker_of(value: Mapping[str, Any]) -> WorkerInfo:
    """From the server's JSON."""
    return WorkerInfo(
        value["worker_id"],
        value["name"],
        value["author"],
        value["version"],
        value["description"],
        tuple(value["tags"]),
        value["pricing"],
        tuple(value.get("command") or ()),
        value.get("template"),
        value["endpoint_url"],
        value["rating"],
        value.get("ratings", 0),
        value["installs"],
        value.get("visibility", "public") == "public",
        moment_of(value.get("created_at")),
        moment_of(value.get("updated_at")),
    )


def run_of(value: Mapping[str, Any]) -> WorkerRun:
    """From the server's JSON."""
    return WorkerRun(
        value["run_id"],
        value["worker_id"],
        value["version"],
        value["sandbox_id"],
        value["status"],
        value["stdout"],
        value["stderr"],
        value["exit_code"],
        value["charged"],
        value["duration_s"],
        value["truncated"],
    )
