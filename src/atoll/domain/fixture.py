"""Fixture: something that a client of the sidekick API asked to keep in a sandbox, and that outlives its connection.

What a kind's `spec` and `state` hold is that kind's own: `services/daemon` has a file for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class FixtureKind(StrEnum):
    SERVER = "server"  # a program that is kept running
    WATCHER = "watcher"  # changes of files are told
    SIGNALS = "signals"  # ports that open and close are told
    OVERLAY = "overlay"  # files that were copied from a template folder


@dataclass(frozen=True, slots=True)
class Fixture:
    """One of them; `name` is unique among those of its kind in its sandbox."""

    sandbox: str
    kind: FixtureKind
    name: str
    owner: str  # of the sandbox
    created_at: datetime
    updated_at: datetime
    spec: dict[str, Any] = field(default_factory=dict[str, Any])  # what was asked for, as JSON
    state: dict[str, Any] = field(default_factory=dict[str, Any])  # what became of it, as JSON
    version: int = 1

    @property
    def id(self) -> str:
        return fixture_id(self.sandbox, self.kind, self.name)


def fixture_id(sandbox_id: str, kind: FixtureKind, name: str) -> str:
    return f"{sandbox_id}/{kind}/{name}"
