"""Preview: a port of a sandbox that is registered, to be reached from outside; records and services share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

REGISTERED_BY = "registered_by"  # in the metadata of one that nobody asked for: what did


@dataclass(frozen=True, slots=True)
class Preview:
    """The record of one. `grant` is what its tokens name: they end when it is drawn anew, and with the preview."""

    sandbox_id: str
    port: int
    owner: str  # whose the sandbox is
    grant: str
    created_at: datetime
    public: bool = False  # whether anybody may look
    fallback_sandbox_id: str | None = None  # what takes over when the sandbox fails
    use_fallback: bool = False  # whether it has
    health_path: str | None = None  # what is asked with GET for its health; None: OPTIONS /
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    version: int = 1

    @property
    def id(self) -> str:
        return preview_id(self.sandbox_id, self.port)

    @property
    def unasked(self) -> bool:
        """Whether Atoll registered it by itself, and may take it away again."""
        return REGISTERED_BY in self.metadata

    @property
    def target(self) -> str:
        """The sandbox that answers now."""
        return self.fallback_sandbox_id if self.use_fallback and self.fallback_sandbox_id else self.sandbox_id


def preview_id(sandbox_id: str, port: int) -> str:
    """The name of the preview of a port: there is at most one."""
    return f"{sandbox_id}:{port}"
