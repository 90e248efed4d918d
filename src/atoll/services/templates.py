"""Templates: names that `image` may have, and layers baked from setup lines and files; Sandboxes and surfaces call it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Template:
    """What `atoll template ls` shows. kind: builtin, alias (of `base`) or layer (baked on `base`)."""

    name: str  # host, python:3.12, execbox-0123456789abcdef
    kind: str
    base: str = ""
    size_bytes: int = 0
    created_at: datetime | None = None
    last_used_at: datetime | None = None


class Templates:
    """The registry of templates."""

    def list(self) -> list[Template]:
        """Built in, aliases, then layers by name."""
        raise NotImplementedError
