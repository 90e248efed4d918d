"""Mounts: where in a sandbox a workspace may be mounted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from atoll.domain.errors import InvalidInput
from atoll.domain.workspace import WorkspaceMount

MOUNTS_MAX = 16
PATH_BYTES_MAX = 1024
HOME = "/home/user"
# names at the top of every sandbox that are the system's
# fmt: off
_SYSTEM = frozenset({
    "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32",
    "media", "proc", "root", "run", "sbin", "sys", "usr", "var",
})
# fmt: on
_FIELD = "workspaces.path"


def check_mounts(mounts: Iterable[WorkspaceMount]) -> tuple[WorkspaceMount, ...]:
    """The mounts as they were asked for, their paths cleaned; InvalidInput for a bad path or one that comes twice."""
    checked = tuple(replace(mount, path=clean_path(mount.path)) for mount in mounts)
    if len(checked) > MOUNTS_MAX:
        raise InvalidInput(f"workspaces: at most {MOUNTS_MAX} in a sandbox", field="workspaces")
    seen: set[str] = set()
    for mount in checked:
        if mount.path in seen:
            raise InvalidInput(f"workspaces.path: {mount.path!r} is there twice", field=_FIELD)
        seen.add(mount.path)
    return checked


def clean_path(path: str) -> str:
    """The path without double and trailing slashes; InvalidInput when no workspace may be mounted there."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"workspaces.path: {path!r} is not UTF-8", field=_FIELD) from None
    if not path.startswith("/") or ".." in parts or size > PATH_BYTES_MAX or any(ord(c) < 32 for c in path):
        message = f"expected an absolute path without '..' and control characters, at most {PATH_BYTES_MAX} bytes"
        raise InvalidInput(f"workspaces.path: {path!r}: {message}", field=_FIELD)
    cleaned = "/" + "/".join(parts)
    in_home = cleaned == HOME or cleaned.startswith(f"{HOME}/")
    if not parts or parts[0] in _SYSTEM or cleaned == "/tmp" or (parts[0] == "home" and not in_home):
        raise InvalidInput(f"workspaces.path: {cleaned!r} is the system's: no workspace there", field=_FIELD)
    if any(len(part.encode()) > 255 for part in parts):
        raise InvalidInput("workspaces.path: one of its names is too long", field=_FIELD)
    return cleaned
