"""Tree mounts: put working trees into a sandbox from outside, by a process that enters its mount namespace for that.

Nothing inside can mount, so what is mounted is ours; but names inside are the tenant's: paths are walked a name at a
time without following links, as the tenant, and a mount is known by its number, wherever it may have been moved to.
"""

from __future__ import annotations

import errno
import os
import re

from atoll.runtimes.local import syscalls as sys
from atoll.runtimes.local.host_template import GID, UID
from atoll.runtimes.local.slots import uid_base
from atoll.sidekick.identity import Identity
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ESCAPE = re.compile(rb"\\([0-7]{3})")
BENEATH = True  # whether the kernel is asked for MOVE_MOUNT_BENEATH
SWAP_TRIES = 10  # a tenant may rename what is above the mount while we look for it


class Place:
    """A sandbox's mount namespace, from the errand that has entered it. `pidfd` is its sidekick's."""

    def __init__(self, pidfd: int, slot: int) -> None:
        descriptors = os.open("/proc/self/fdinfo", _FOLDER & ~os.O_NOFOLLOW)
        sys.setns(pidfd, sys.CLONE_NEWNS)
        os.chdir("/")
        self._descriptors = descriptors
        self._tenant = Identity(uid_base(slot) + UID, uid_base(slot) + GID, separate=True)

    def touch_files_as_tenant(self) -> None:
        self._tenant.touch_files_as_tenant()

    def mount_id(self, fd: int) -> int:
        """The number of the mount that an open file is on."""
        info = os.open(str(fd), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._descriptors)
        try:
            lines = os.read(info, 4096).splitlines()
        finally:
            os.close(info)
        return next(int(line.split()[1]) for line in lines if line.startswith(b"mnt_id:"))


def clone(mount_point: str, userns: int, *, read_only: bool) -> int:
    """A detached mount of the tree, with the owners that a sandbox of this user namespace gives them."""
    attributes = sys.ATTR_NOSUID | sys.ATTR_NODEV | (sys.ATTR_RDONLY if read_only else 0)
    return sys.clone_tree(mount_point, attributes, userns=userns)


def attach(pidfd: int, slot: int, userns: int, wanted: list[dict[str, Any]]) -> list[int]:
    """Mount each tree of `wanted` (mount_point, path, read_only), outer ones first; the mounts' numbers in that order.

    An errand's work: this process ends in the sandbox's mount namespace. Refused for a path that cannot be had.
    """
    trees = [clone(one["mount_point"], userns, read_only=one["read_only"]) for one in wanted]
    place = Place(pidfd, slot)
    place.touch_files_as_tenant()
    numbers = [0] * len(wanted)
    for at in sorted(range(len(wanted)), key=lambda at: wanted[at]["path"].count("/")):
        folder = open_folder(wanted[at]["path"])
        sys.attach_tree_at(trees[at], folder)
        os.close(folder)
        numbers[at] = place.mount_id(trees[at])
    return numbers


def swap(
    pidfd: int, pid: int, slot: int, userns: int, number: int, mount_point: str, *, read_only: bool, home: str | None
) -> tuple[dict[str, int], bool]:
    """Mount the tree at `mount_point` in place of the sandbox's mount `number`; what is mounted below that stays there.
    `home`: a folder in it that is to be there.

    (old number -> new number of the mount and of those below it, whether the old one is only hidden). An errand's work.
    """
    tree = clone(mount_point, userns, read_only=read_only)
    table = os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    place = Place(pidfd, slot)
    old, mounts = _find(place, table, number)
    below = sorted(_below(mounts, number), key=lambda mount: len(mounts[mount][1].split(b"/")))
    base = mounts[number][1]
    copies: list[tuple[int, int, str]] = []
    for mount in below:
        copied = _open_mount(place, mounts[mount][1], mount)
        relative = os.fsdecode(mounts[mount][1].removeprefix(base))
        copies.append((mount, sys.clone_mount(copied), relative))
    place.touch_files_as_tenant()
    if home is not None:
        try:
            os.close(open_folder(home, tree))
        except Refused:  # full, or something else has that name: as when a sandbox is made with it
            pass
    # what may fail fails before anything changes
    for _, _, relative in copies:
        os.close(open_folder(relative, tree))
    numbers = {str(number): place.mount_id(tree)}
    hidden = False
    try:
        sys.attach_tree_at(tree, old, beneath=BENEATH)
    except OSError as error:
        if error.errno != errno.EINVAL or not BENEATH:
            raise
        sys.attach_tree_at(tree, old)
        hidden = True
    for mount, copy, relative in copies:
        folder = open_folder(relative, tree)
        sys.attach_tree_at(copy, folder)
        os.close(folder)
        numbers[str(mount)] = place.mount_id(copy)
    if BENEATH and not hidden:
        os.fchdir(old)
        sys.unmount(".")
    return numbers, hidden or not BENEATH


def mounts_of(pid: int) -> dict[int, tuple[int, bytes, str]]:
    """What is mounted in a process's namespace: number -> (number of the parent, path, device as major:minor)."""
    table = os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_mounts(table)
    finally:
        os.close(table)


def _read_mounts(table: int) -> dict[int, tuple[int, bytes, str]]:
    os.lseek(table, 0, os.SEEK_SET)
    text = b""
    while piece := os.read(table, 65_536):
        text += piece
    lines = [line.split() for line in text.splitlines()]
    return {
        int(fields[0]): (int(fields[1]), _ESCAPE.sub(lambda m: bytes((int(m[1], 8),)), fields[4]), fields[2].decode())
        for fields in lines
    }


def _find(place: Place, table: int, number: int) -> tuple[int, dict[int, tuple[int, bytes, str]]]:
    """The root of that mount, open, and the table in which it was found. Refused when it is gone."""
    for _ in range(SWAP_TRIES):
        mounts = _read_mounts(table)
        if number not in mounts:
            raise Refused("not_found", "the sandbox has no such mount any more")
        try:
            return _open_mount(place, mounts[number][1], number), mounts
        except (OSError, Refused):
            continue
    raise Refused("unavailable", "the sandbox's programs keep moving the mount")


def _open_mount(place: Place, path: bytes, number: int) -> int:
    """The root of the mount `number`, which is to be on top at `path`; OSError when it is not."""
    at = os.open("/", _FOLDER)
    for name in path.strip(b"/").split(b"/"):
        into = os.open(name, _FOLDER, dir_fd=at)
        os.close(at)
        at = into
    if place.mount_id(at) != number:
        os.close(at)
        raise OSError(errno.ESTALE, "another mount is there")
    return at


def _below(mounts: dict[int, tuple[int, bytes, str]], number: int) -> list[int]:
    children = [mount for mount, (parent, _, _) in mounts.items() if parent == number]
    return children + [deeper for child in children for deeper in _below(mounts, child)]


def open_folder(path: str, below: int | None = None) -> int:
    """The folder at an absolute path (or below an open one), made as the tenant where it is missing."""
    at = os.open("/", _FOLDER) if below is None else os.dup(below)
    for name in path.strip("/").split("/"):
        try:
            try:
                into = os.open(name, _FOLDER, dir_fd=at)
            except FileNotFoundError:
                os.mkdir(name, 0o755, dir_fd=at)
                into = os.open(name, _FOLDER, dir_fd=at)
        except OSError as error:
            links = " (links are not followed)" if error.errno in (errno.ENOTDIR, errno.ELOOP) else ""
            text = f"workspaces.path: {path!r}: {name!r}: {(error.strerror or '').lower()}{links}"
            raise Refused("bad_request", text) from None
        finally:
            os.close(at)
        at = into
    return at
