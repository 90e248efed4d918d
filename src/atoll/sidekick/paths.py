"""Paths: how the sidekick opens what a caller names. It lives inside the sandbox's root, so every path does too.

Magic links (/proc/self/fd/..., /proc/1/root) would lead to the sidekick's own descriptors: openat2 refuses them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from atoll.sidekick.fields import text
from atoll.sidekick.protocol import Refused

_libc = ctypes.CDLL(None, use_errno=True)
_OPENAT2 = 437
_AT_FDCWD = -100
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
MAX_PATH_BYTES = 4096

_REFUSALS = {
    errno.ENOENT: ("not_found", "no such file or directory"),
    errno.ENOTDIR: ("not_found", "a parent of it is not a directory"),
    errno.EACCES: ("forbidden", "permission denied"),
    errno.EPERM: ("forbidden", "permission denied"),
    errno.EROFS: ("forbidden", "read-only file system"),
    errno.ENOSPC: ("too_large", "no space left: the sandbox's disk or inode limit is reached"),
    errno.EDQUOT: ("too_large", "no space left: the sandbox's disk or inode limit is reached"),
    errno.ENOMEM: ("too_large", "no memory left in the sandbox"),
    errno.ENAMETOOLONG: ("bad_request", "the path or one of its names is too long"),
    errno.ELOOP: ("bad_request", "too many symbolic links, or a link that must not be followed"),
    errno.EISDIR: ("bad_request", "is a directory"),
    errno.EEXIST: ("conflict", "exists already"),
    errno.ENOTEMPTY: ("conflict", "the directory is not empty"),
    errno.ETXTBSY: ("conflict", "the file is being executed"),
    errno.EBUSY: ("conflict", "is in use (a mount point)"),
    errno.EXDEV: ("bad_request", "cannot move between file systems"),
    errno.EINVAL: ("bad_request", "invalid argument"),
    errno.EAGAIN: ("conflict", "somebody holds a lease on it"),
    errno.EMFILE: ("unavailable", "too many open files in the sidekick"),
    errno.EFBIG: ("too_large", "larger than a file can be"),
}


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def refusal(error: OSError, path: str, field: str = "path") -> Refused:
    """The Refused that tells what the system said about `path`."""
    code, text = _REFUSALS.get(error.errno or 0, ("internal", error.strerror or "input/output error"))
    return Refused(code, f"{field} {path!r}: {text}", field)


def clean(path: object, field: str = "path") -> str:
    """An absolute path with `.` and `..` resolved by name; Refused (bad_request) when it cannot be one."""
    path = text(path, field)
    if not path:
        raise Refused("bad_request", f"{field}: expected a non-empty path", field)
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise Refused("bad_request", f"{field}: at most {MAX_PATH_BYTES} bytes", field)
    return "/" + os.path.normpath("/" + path).lstrip("/")


def open_path(path: str, flags: int, mode: int = 0) -> int:
    """open(2) without magic links; OSError as open(2) gives it."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE_NO_MAGICLINKS)
    fd: int = _libc.syscall(_OPENAT2, _AT_FDCWD, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


def open_below(directory: int, path: str, flags: int) -> int:
    """The same below a folder that is open, through no symbolic link and not out of it."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH)
    fd: int = _libc.syscall(_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


def open_directory(path: str, field: str = "path") -> int:
    """An O_PATH descriptor of a directory; Refused when it is none."""
    try:
        return open_path(clean(path, field), os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise Refused("bad_request", f"{field} {path!r}: no such directory", field) from None
        raise refusal(error, path, field) from None


def is_kernel_file(info: os.stat_result) -> bool:
    """On procfs or a device file system, whose files may block for ever or never end."""
    return info.st_dev in kernel_devices()


def kernel_devices() -> set[int]:
    found: set[int] = set()
    for folder in ("/proc", "/sys", "/dev/pts", "/dev/mqueue"):
        try:
            found.add(os.stat(folder).st_dev)
        except OSError:
            pass
    # where one of them is not mounted it is a plain folder of the root, and that is for files
    found.discard(os.stat("/").st_dev)
    return found


def kind_of(mode: int) -> str:
    """file, directory, symlink or other."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"
