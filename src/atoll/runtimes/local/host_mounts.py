"""Host mounts: a folder of the host in a live sandbox, put there from outside; the node's side and the errand's.

No link is followed to it: whoever writes below a root may change names while somebody mounts from it. And below the
root everybody must be allowed to go there: a folder that its owner keeps to himself hides all in it. What is mounted
is a copy of that one mount, with the owners that the sandbox's user namespace gives it, and hears of no later mounts.
"""

from __future__ import annotations

import errno
import os

from atoll.runtimes.local import syscalls as sys
from atoll.runtimes.local.host_template import GID, UID
from atoll.runtimes.local.slots import uid_base
from atoll.runtimes.local.tree_mounts import Place, mounts_of, open_folder
from atoll.sidekick.identity import Identity
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.runtimes.local.box import Box
    from atoll.runtimes.local.mounting import Mounting, Then
    from atoll.runtimes.local.slots import Slots

MOUNTS_MAX = 16  # in one sandbox
MAKING = "making"  # a mount that is under way: a node that dies over it is followed by one that looks for it
FIELDS = ("root", "below", "path", "read_only")
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class HostMounts:
    """A box remembers its mounts as `{root, below, path, read_only}`, before they are there too."""

    def __init__(self, mounting: Mounting, slots: Slots | None) -> None:
        self._mounting = mounting
        self._slots = slots

    def mount(self, box: Box, request: dict[str, Any], then: Then) -> None:
        """Refused: not_found for the folder, conflict for the path, not_supported for the file system."""
        if self._slots is None:
            raise Refused("not_supported", "mounting a folder of the host needs root")
        wanted = {name: request[name] for name in FIELDS}
        self._mounting.in_turn(box, lambda: self._mount(box, wanted, then))

    def settle(self, box: Box) -> None:
        """A box of an earlier node that may have died while it mounted something: see what there is."""
        if not any(MAKING in one for one in box.host_mounts):
            return
        trees = {one.get("number") for one in box.mounts}
        mounted = {path for number, (_, path, _) in mounts_of(box.pid).items() if number not in trees}
        there = [one for one in box.host_mounts if MAKING not in one or os.fsencode(one["path"]) in mounted]
        box.host_mounts = [{name: one[name] for name in FIELDS} for one in there]

    def _mount(self, box: Box, wanted: dict[str, Any], then: Then) -> None:
        def done(refused: Refused | None) -> None:
            self._mounting.next_turn(box)
            then(refused)

        there = next((one for one in box.host_mounts if one["path"] == wanted["path"]), None)
        if box.gone:
            done(Refused("not_found", f"sandbox {box.id} does not exist"))
        elif there == wanted:
            done(None)
        elif there is not None:
            done(Refused("conflict", "another folder is mounted by that name"))
        elif len(box.host_mounts) >= MOUNTS_MAX:
            done(Refused("conflict", f"a sandbox has at most {MOUNTS_MAX} folders of the host"))
        else:
            self._make(box, wanted, done)

    def _make(self, box: Box, wanted: dict[str, Any], then: Then) -> None:
        making = {**wanted, MAKING: True}

        def attached(_result: Any, refused: Refused | None) -> None:
            box.host_mounts.remove(making)
            if refused is None:
                box.host_mounts.append(wanted)
            if not box.gone:
                try:
                    box.save()
                except OSError:
                    pass  # the mark stands there still: another node would look for the mount
            then(refused)

        box.host_mounts.append(making)
        try:
            box.save()
        except OSError as error:
            box.host_mounts.remove(making)
            then(Refused("unavailable", f"the sandbox's state cannot be written: {error.strerror}"))
            return
        slot = box.slot
        self._mounting.inside(box, lambda pidfd, userns: attach(pidfd, slot, userns, wanted), attached)


def attach(pidfd: int, slot: int, userns: int, wanted: dict[str, Any]) -> None:
    """Mount it. An errand's work: this process ends in the sandbox's mount namespace."""
    os.setgroups([])
    source = open_source(wanted["root"], wanted["below"], slot)
    tree = clone(source, userns, read_only=wanted["read_only"])
    place = Place(pidfd, slot)
    place.touch_files_as_tenant()
    try:
        folder = open_folder(wanted["path"])
    except Refused:
        name = wanted["path"].rpartition("/")[2]
        raise Refused("conflict", f"{name!r} cannot be mounted on: something else has that name") from None
    sys.attach_tree_at(tree, folder)


def open_source(root: str, below: str, slot: int) -> int:
    """The folder below the root, open. Refused when one of its names is no folder any more, a link, or lies in a folder
    that the user of the slot's sandbox, who owns nothing on the host, may not search."""
    at = _walk(os.open("/", _FOLDER), root)
    try:
        Identity(uid_base(slot) + UID, uid_base(slot) + GID, separate=True).touch_files_as_tenant()
        return _walk(at, below)
    finally:
        Identity(0, 0, separate=True).touch_files_as_tenant()  # this process itself, which is root


def _walk(at: int, path: str) -> int:
    for name in path.split("/"):
        if name in ("", "."):
            continue
        try:
            into = os.open(name, _FOLDER, dir_fd=at)
        except OSError:
            raise Refused("not_found", "mount target missing") from None
        finally:
            os.close(at)
        at = into
    return at


def clone(source: int, userns: int, *, read_only: bool) -> int:
    """A detached mount of the open folder, without what is mounted below it."""
    tree = sys.clone_mount(source)
    attributes = sys.ATTR_NOSUID | sys.ATTR_NODEV | (sys.ATTR_RDONLY if read_only else 0)
    try:
        sys.set_attributes(tree, attributes, userns=userns)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        if not read_only:  # what is written there would belong to nobody whom the host knows
            raise Refused("not_supported", "this file system maps no owners: it can be mounted to read only") from None
        sys.set_attributes(tree, attributes)
    return tree
