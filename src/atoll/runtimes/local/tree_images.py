"""Tree images: a working tree as an ext4 image with a journal, mounted by a loop device: bounded in bytes and inodes.

All of it may block: an errand of the node calls it (see trees.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from atoll.runtimes.local import syscalls as sys
from atoll.runtimes.local.disks import BLOCK_BYTES, RESERVED_BLOCKS_MAX, RESERVED_PART, Disks, attach_loop, find_loop
from atoll.runtimes.local.host_template import GID, UID
from atoll.runtimes.local.repair import has_errors, repair
from atoll.sidekick.protocol import Refused

HOST_FREE_MIN_BYTES = 256 * 2**20
JOURNAL_BYTES = 8 * 2**20
QUOTA_MIN_BYTES = 2**20
QUOTA_MAX_BYTES = 2**44
INODES_MIN = 16
INODES_MAX = 2**31
_OPTIONS = (
    "-O", "^resize_inode", "-I", "256", "-J", f"size={JOURNAL_BYTES // 2**20}",
    "-E", f"lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner={UID}:{GID}",
)  # fmt: skip
_FLAGS = sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOATIME
# inode tables are holes, which read as zeros: written they would cost 256 bytes for each file that may ever be.
# What is deleted is given back to the host. A write that fails ends writing, not the machine.
_DATA = "noinit_itable,discard,errors=remount-ro"
_GROUP_BLOCKS = 32_768
_INODE_BYTES = 256
_OWN_INODES = 9  # of ext4, besides the root
_LETTING_GO_S = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05)  # the kernel finishes an unmount a moment later
_DAMAGED = (errno.EUCLEAN, errno.EINVAL, errno.EIO, errno.EBADMSG)


class TreeImages:
    """The images in `folder`, each mounted at its name below `mounts`."""

    def __init__(self, folder: str, mounts: str) -> None:
        self._folder = folder
        self._mounts = mounts
        os.makedirs(mounts, mode=0o700, exist_ok=True)
        self._disks = Disks(f"{folder}/.masters", _OPTIONS)

    def clean(self) -> None:
        """The mounts of an earlier node went with its mount namespace; their folders are still there."""
        for name in os.listdir(self._mounts):
            try:
                os.rmdir(f"{self._mounts}/{name}")
            except OSError:  # somebody put something there: a mount will cover it
                pass
        for name in os.listdir(self._folder):
            if name.endswith(".partial"):
                os.unlink(f"{self._folder}/{name}")

    def mount_point(self, tree_id: str) -> str:
        return f"{self._mounts}/{tree_id}"

    def make(self, tree_id: str, quota_bytes: int, inodes: int) -> None:
        """Whole and on the disk, or not at all. It has no more inodes than blocks: a file with contents needs both."""
        if not QUOTA_MIN_BYTES <= quota_bytes <= QUOTA_MAX_BYTES or not INODES_MIN <= inodes <= INODES_MAX:
            raise Refused("bad_request", f"quota: {quota_bytes} bytes and {inodes} inodes are not possible")
        inodes = min(inodes, max(quota_bytes // BLOCK_BYTES, INODES_MIN))
        free = os.statvfs(self._folder)
        if free.f_bavail * free.f_frsize < HOST_FREE_MIN_BYTES:
            raise Refused("unavailable", "the disk of this host is full: no room for another workspace")
        partial = f"{self._folder}/.{tree_id}.partial"
        try:
            self._copy_master(partial, quota_bytes, inodes)
            _sync(partial)
            os.rename(partial, f"{self._folder}/{tree_id}")
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise
        _sync(self._folder)

    def _copy_master(self, path: str, quota_bytes: int, inodes: int) -> None:
        """One errand at a time: several may need the same master."""
        lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            usable = -(-quota_bytes // BLOCK_BYTES)
            self._disks.make(path, image_bytes(quota_bytes, inodes), inodes + _OWN_INODES, usable)
        finally:
            os.close(lock)

    def mount(self, tree_id: str) -> None:
        mount_image(f"{self._folder}/{tree_id}", self.mount_point(tree_id))

    def unmount(self, tree_id: str) -> None:
        """What is mounted there, if anything is, and the folder."""
        target = self.mount_point(tree_id)
        try:
            sys.unmount(target)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        try:
            os.rmdir(target)
        except FileNotFoundError:
            pass

    def remove(self, tree_id: str) -> None:
        """It is not mounted; a second call does nothing."""
        try:
            os.unlink(f"{self._folder}/{tree_id}")
        except FileNotFoundError:
            pass

    def held(self, tree_id: str, *, wait: bool) -> bool:
        """Whether programs have files of it open or work in its folders, though it is mounted nowhere any more: then
        its loop device is bound. `wait`: it has just been unmounted."""
        for pause_s in _LETTING_GO_S if wait else _LETTING_GO_S[:1]:
            time.sleep(pause_s)
            try:
                found = find_loop(f"{self._folder}/{tree_id}", os.O_RDONLY)
            except FileNotFoundError:
                return False
            if found is None:
                return False
            os.close(found[1])
        return True

    def device(self, tree_id: str) -> str | None:
        """major:minor of the loop device that it has now."""
        found = find_loop(f"{self._folder}/{tree_id}")
        if found is None:
            return None
        number = os.fstat(found[1]).st_rdev
        os.close(found[1])
        return f"{os.major(number)}:{os.minor(number)}"


def image_bytes(quota_bytes: int, inodes: int) -> int:
    """The size of an image in which `quota_bytes` are left, or a little more: inode tables, journal, bitmaps and what
    ext4 keeps for itself come on top."""
    journal = JOURNAL_BYTES // BLOCK_BYTES
    blocks = max(-(-quota_bytes // BLOCK_BYTES), journal) + journal  # mkfs gives a journal no more than half
    per_block = BLOCK_BYTES // _INODE_BYTES
    blocks += -(-(inodes + _OWN_INODES) // per_block)
    groups = -(-blocks // _GROUP_BLOCKS) + 1
    # two bitmaps, a rounded-up inode table, and copies of the group descriptors (64 bytes each) in some groups
    blocks += groups * 4 + 16 * (-(-groups * 64 // BLOCK_BYTES) + 1) + 64
    blocks += min(-(-blocks // (RESERVED_PART - 1)), RESERVED_BLOCKS_MAX)
    return blocks * BLOCK_BYTES


def mount_image(image: str, target: str) -> None:
    """Mount it on the folder `target`, which is made; by the loop device that it has, when an earlier mount lives on
    in a sandbox. OSError, also when it is damaged beyond what e2fsck mends by itself.
    """
    os.makedirs(target, mode=0o700, exist_ok=True)
    try:
        found = find_loop(image)
        if found is None and has_errors(image):
            repair(image)
        device, loop = found or attach_loop(image)
        try:
            sys.mount(device, target, "ext4", _FLAGS, _DATA)
        except OSError as error:
            os.close(loop)
            if found is not None or error.errno not in _DAMAGED:
                raise
            repair(image)
            device, loop = attach_loop(image)
            sys.mount(device, target, "ext4", _FLAGS, _DATA)
        os.close(loop)
    except BaseException:
        os.rmdir(target)
        raise
    try:
        spare = f"{target}/lost+found"  # mkfs makes it; e2fsck does when it needs one
        if os.lstat(spare).st_uid == 0:
            os.rmdir(spare)
    except OSError:
        pass


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
