"""Host mounts: folders of the host, which the operator names, in live sandboxes; reached as `sandboxes.host_mounts`.

Only what lies below a root of the settings can be mounted, and nothing of the server's own, whatever the roots say.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable

from atoll.domain.errors import Forbidden, InvalidInput, NotFound, Unsupported
from atoll.domain.host_mount import MountRoot
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.workspace import MOUNT_POINT
from atoll.runtimes.base import Capability
from atoll.services.access import Access
from atoll.services.paths import PATH_BYTES_MAX

ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
OUTSIDE = "mount target must be under the allowed base directory"
NO_ROOTS = f"{OUTSIDE}: sandboxes.mount_roots names none"
MISSING = "mount target missing"


class HostMounts:
    """Mounts them."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def mount(self, principal: Principal, sandbox_id: str, alias: str, target: str) -> None:
        """The host's folder `target` at `/workspace/<alias>`, read-only unless its root is writable; a second call for
        the same does nothing. It is gone when the sandbox ends or rests. Needs `execute`.

        InvalidInput (`alias`). Forbidden where the settings name no root, and, always the same, for a target that is
        not below one, wherever links on the way lead, or is the server's own; NotFound when there is no such folder.
        Conflict when the alias is taken.
        """
        access = self._access
        live = await access.running(principal, sandbox_id, Scope.EXECUTE)
        if not ALIAS.fullmatch(alias):
            raise InvalidInput(
                "alias must be 1 to 64 letters, digits, or _ . - and not begin with . or -", field="alias"
            )
        if not access.limits.mount_roots:
            raise Forbidden(NO_ROOTS)
        root, below = await asyncio.to_thread(found, target, access.limits.mount_roots, access.limits.mounts_never)
        if Capability.HOST_MOUNTS not in access.runtime.capabilities:
            raise Unsupported(f"the {access.runtime.name} runtime cannot mount folders of this host")
        path = f"{MOUNT_POINT}/{alias}"
        async with access.inside(live, "mounting", within_s=access.limits.call_s):
            await access.runtime.mount_host(sandbox_id, root.path, below, path, read_only=not root.writable)


def found(target: str, roots: Iterable[MountRoot], never: Iterable[str]) -> tuple[MountRoot, str]:
    """The root, as it is with all links followed, and where the target lies below it. Touches the disk.

    Who mounts it must follow no link from there on: somebody may put one in the way meanwhile.
    """
    if not target.startswith("/") or "\0" in target or len(target.encode(errors="replace")) > PATH_BYTES_MAX:
        raise Forbidden(OUTSIDE)
    try:
        real = os.path.realpath(target)
    except (OSError, ValueError):  # a link that cannot be read, as some of /proc; a name that no file has
        raise Forbidden(OUTSIDE) from None
    known = [MountRoot(os.path.realpath(root.path), root.writable) for root in roots]
    holding = [root for root in known if is_below(real, root.path)]
    if not holding:
        raise Forbidden(OUTSIDE)
    root = max(holding, key=lambda root: (len(root.path), not root.writable))
    for own in map(os.path.realpath, never):
        if is_below(real, own) or is_below(own, real):
            raise Forbidden(OUTSIDE)
    if root.writable and any(is_below(other.path, real) for other in known if not other.writable):
        raise Forbidden(OUTSIDE)  # a root to read, which a link put into one to write
    if not os.path.isdir(real):
        raise NotFound(MISSING)
    return root, os.path.relpath(real, root.path)


def is_below(path: str, folder: str) -> bool:
    """Whether it is that folder or lies in it; both without links."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
