"""Disks: writable layers beyond what memory should hold: ext4 images of a fixed size and number of inodes.

The node copies a ready-made empty image of the wanted shape (its holes cost nothing); the child that becomes the
sandbox mounts it by a loop device that goes away with the mount. Images of working trees are of the same making, with
a journal besides: see trees.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import struct

MKFS = ("/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4")
IMAGE_NAME = "disk"
TRIES = 50
MASTERS_MAX = 16
MKFS_S = 10.0  # the node waits for it: a shape that is asked for the first time
# the loop device's sectors are 4096 bytes: the smaller blocks that mkfs chooses below 512 MB would not mount
BLOCK_BYTES = 4096
RESERVED_PART, RESERVED_BLOCKS_MAX = 50, 4096  # what ext4 keeps for itself: a part of all blocks, at most so many
LOST_AND_FOUND_BLOCKS = 4  # of the folder that mkfs makes
# nothing kept for root, tables written when they are needed
_ALWAYS = ("-q", "-F", "-b", str(BLOCK_BYTES), "-m", "0")
_LAZY = "lazy_itable_init=1,nodiscard"
# a throw-away file system needs no journal
THROW_AWAY = ("-O", "^has_journal,^resize_inode", "-E", f"{_LAZY},root_owner=0:0")
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_CONFIGURE = 0x4C0A
_AUTOCLEAR = 4
_NOT_BOUND = (errno.ENOENT, errno.ENXIO, errno.ENODEV)  # what a loop device says that is free, or is becoming so
_INFO = struct.Struct("=QQQQQIIII64s64s32sQQ")
_CONFIG = struct.Struct("=II")


class Disks:
    """Empty images, one for each shape that was ever asked for, in `folder`; `options` are mkfs's."""

    def __init__(self, folder: str, options: tuple[str, ...] = THROW_AWAY) -> None:
        self._folder = folder
        self._options = options
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._mkfs = next((path for path in MKFS if os.access(path, os.X_OK)), None)

    @property
    def available(self) -> bool:
        return self._mkfs is not None and os.path.exists("/dev/loop-control")

    def make(self, path: str, size_bytes: int, inodes: int, usable: int | None = None) -> None:
        """A new empty image at `path`; OSError when the host cannot. `usable`: exactly so many of its blocks can be
        filled once it is mounted and without `lost+found`, where None says as many as there are."""
        shape = f"{size_bytes}-{inodes}" if usable is None else f"{size_bytes}-{inodes}-{usable}"
        master = f"{self._folder}/{shape}"
        if not os.path.exists(master):
            self._format(master, size_bytes, inodes, usable)
            self._forget_oldest()
        os.utime(master)
        copy_sparse(master, path)

    def _forget_oldest(self) -> None:
        """Callers choose shapes: only those asked for last are kept ready."""
        masters = sorted(os.scandir(self._folder), key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in masters[MASTERS_MAX:]:
            os.unlink(entry.path)

    def _format(self, master: str, size_bytes: int, inodes: int, usable: int | None) -> None:
        if self._mkfs is None:
            raise OSError(errno.ENOENT, "mkfs.ext4 is missing: install e2fsprogs")
        partial = f"{master}.{os.getpid()}.partial"  # a mkfs of a process that died may still write to its own
        with open(partial, "wb") as file:
            file.truncate(size_bytes)
        words = [self._mkfs, *_ALWAYS, "-N", str(inodes), *self._options, partial]
        try:
            if not _ran(words):
                raise OSError(errno.EIO, f"mkfs.ext4 failed for {size_bytes} bytes and {inodes} inodes")
            if usable is not None:
                kept = _filled(partial) - usable
                # kept for the host's root, whom nobody is in a sandbox
                if kept < 0 or not _ran([f"{os.path.dirname(self._mkfs)}/tune2fs", "-r", str(kept), partial]):
                    raise OSError(errno.EIO, f"an image of {size_bytes} bytes cannot be kept to its quota")
        except OSError:
            os.unlink(partial)
            raise
        os.rename(partial, master)


def _ran(words: list[str]) -> bool:
    """Whether the program ended well, and in time. What it says is for nobody."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    pid = os.posix_spawn(words[0], words, environment, setsigmask=(), file_actions=quiet)
    ended = os.pidfd_open(pid)
    if not select.select([ended], [], [], MKFS_S)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(ended)
    _, status = os.waitpid(pid, 0)
    return status == 0


def _filled(image: str) -> int:
    """How many blocks of an empty file system can be filled, by its superblock (linux/fs/ext4/ext4.h)."""
    with open(image, "rb") as file:
        file.seek(1024)
        told = file.read(1024)
    low, free_low = struct.unpack_from("<4xI4xI", told)
    high, _, free_high = struct.unpack_from("<III", told, 0x150)
    kept = min((low | high << 32) // RESERVED_PART, RESERVED_BLOCKS_MAX)
    return (free_low | free_high << 32) + LOST_AND_FOUND_BLOCKS - kept


def copy_sparse(source: str, target: str) -> None:
    """Copy a file's data and leave its holes."""
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        copy_data(reading, writing, os.fstat(reading).st_size)
    finally:
        os.close(reading)
        os.close(writing)


def copy_data(reading: int, writing: int, bytes_max: int) -> int:
    """Copy what one open file holds into another, empty one, and leave its holes; how many bytes were not holes.

    OSError (EFBIG) before more than `bytes_max` of them are written.
    """
    size = os.fstat(reading).st_size
    os.ftruncate(writing, size)
    at = copied = 0
    while at < size:
        try:
            start = os.lseek(reading, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            raise
        at = os.lseek(reading, start, os.SEEK_HOLE)
        copied += at - start
        if copied > bytes_max:
            raise OSError(errno.EFBIG, f"more than {bytes_max} bytes")
        os.lseek(writing, start, os.SEEK_SET)
        left = at - start
        while left:
            sent = os.sendfile(writing, reading, at - left, left)
            if sent == 0:
                return copied  # it was cut short meanwhile
            left -= sent
    return copied


def find_loop(image: str, mode: int = os.O_RDWR) -> tuple[str, int] | None:
    """The loop device that is over the image already, and its descriptor, which keeps it there. OSError when that
    cannot be told: a second one would destroy what is in it."""
    wanted = os.stat(image)
    for entry in os.scandir("/sys/block"):
        if not entry.name.startswith("loop"):
            continue
        try:
            with open(f"{entry.path}/loop/backing_file") as file:
                if os.path.basename(file.read().rstrip("\n")) != os.path.basename(image):
                    continue
            loop = os.open(f"/dev/{entry.name}", mode | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NOT_BOUND:
                continue
            raise
        try:
            told = fcntl.ioctl(loop, _LOOP_GET_STATUS64, bytes(_INFO.size))
        except OSError as error:
            os.close(loop)
            if error.errno in _NOT_BOUND:
                continue
            raise
        if _INFO.unpack(told)[:2] == (wanted.st_dev, wanted.st_ino):
            return f"/dev/{entry.name}", loop
        os.close(loop)
    return None


def attach_loop(image: str) -> tuple[str, int]:
    """(a loop device over the image, its descriptor): mount it, then close; it frees itself when unmounted."""
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(TRIES):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = f"/dev/loop{number}"
            loop = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, b"atoll", b"", b"", 0, 0)
            try:
                fcntl.ioctl(loop, _LOOP_CONFIGURE, _CONFIG.pack(backing, 4096) + info + bytes(64))
                return device, loop
            except OSError as error:
                os.close(loop)
                if error.errno != errno.EBUSY:  # somebody else took it first
                    raise
    finally:
        os.close(backing)
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device")
