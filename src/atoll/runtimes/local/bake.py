"""Bake: copy a sandbox's writable layer into a template layer on disk, done by a throw-away child as the sandbox's user.

The copier stands in the sandbox's own user namespace with no rights beyond it, and writes through an idmapped mount,
so that the layer's owners on disk are the plain ids that the sandbox saw.
"""

from __future__ import annotations

import os
import stat

from atoll.runtimes.local import syscalls
from atoll.runtimes.local.host_template import GID, UID
from atoll.sidekick.loop import READ, Loop
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BAKE_S = 300.0
COPY_BYTES = 1 << 20


def bake(loop: Loop, pid: int, userns: int, destination: str, reply: Callable[[dict[str, Any]], None]) -> None:
    """Copy the layer of the sandbox whose sidekick is `pid` into the new directory `destination`, then `reply`."""
    raise Refused("not_supported", "not yet")
