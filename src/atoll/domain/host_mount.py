"""Host mount: a folder of the host that sandboxes may mount; the operator names them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MountRoot:
    """A folder below which anything may be mounted, to read only unless it is writable."""

    path: str
    writable: bool = False
