"""System calls that Python does not offer, by ctypes: namespaces, mounts, capabilities, seccomp.

The node and the child that becomes a sandbox use them; each raises OSError naming the call.
"""

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
_SIGCHLD = 17

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
MNT_DETACH = 2

ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_IDMAP = 0x10_0000

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7

_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_MOVE_MOUNT_BENEATH = 0x200

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

MACHINE = os.uname().machine
_CLONE, _PIVOT_ROOT = {"x86_64": (56, 155), "aarch64": (220, 41)}.get(MACHINE, (0, 0))
_CLONE3, _CLONE_INTO_CGROUP = 435, 0x2_0000_0000
_OPEN_TREE, _MOVE_MOUNT, _CLOSE_RANGE, _MOUNT_SETATTR = 428, 429, 436, 442

_libc = ctypes.CDLL(None, use_errno=True)
_unlocked = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter lock: needed around a clone
_python = ctypes.pythonapi
_int, _long, _ulong = ctypes.c_int, ctypes.c_long, ctypes.c_ulong
_bytes, _pointer = ctypes.c_char_p, ctypes.c_void_p


def _function(name: str, *types: type) -> Callable[..., int]:
    """A C function with declared types: several times cheaper to call, and a sandbox takes a hundred calls."""
    return ctypes.CFUNCTYPE(_long if name == "syscall" else _int, *types, use_errno=True)((name, _libc))


_c_prctl = _function("prctl", _int, _ulong, _pointer, _ulong, _ulong)
_c_mount = _function("mount", _bytes, _bytes, _bytes, _ulong, _bytes)
_c_umount2 = _function("umount2", _bytes, _int)
_c_unshare = _function("unshare", _int)
_c_setns = _function("setns", _int, _int)
_c_capset = _function("capset", _bytes, _bytes)
_c_sethostname = _function("sethostname", _bytes, _long)
_c_pivot_root = _function("syscall", _long, _bytes, _bytes)
_c_open_tree = _function("syscall", _long, _long, _bytes, _long)
_c_mount_setattr = _function("syscall", _long, _long, _bytes, _long, _bytes, _long)
_c_move_mount = _function("syscall", _long, _long, _bytes, _long, _bytes, _long)
_c_close_range = _function("syscall", _long, _long, _long, _long)


def _read(path: str, default: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return default


LAST_CAP = int(_read("/proc/sys/kernel/cap_last_cap", "40"))


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def clone(flags: int, cgroup: int | None = None) -> int:
    """fork(2) into new namespaces, and into the v2 cgroup that the descriptor `cgroup` is of.

    Only for a single-threaded process; returns 0 in the child.
    """
    zero = ctypes.c_long(0)
    if cgroup is None:
        arguments = (ctypes.c_long(_CLONE), ctypes.c_long(flags | _SIGCHLD), zero, zero, zero, zero)
    else:
        packed = struct.pack("=11Q", flags | _CLONE_INTO_CGROUP, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, cgroup)
        arguments = (ctypes.c_long(_CLONE3), packed, ctypes.c_long(len(packed)))
    _python.PyOS_BeforeFork()
    pid: int = _unlocked.syscall(*arguments)
    number = ctypes.get_errno()
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone: {os.strerror(number)}")
    return pid


def unshare(flags: int) -> None:
    _checked(_c_unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    _checked(_c_setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _checked(
        _c_mount(source.encode(), os.fsencode(target), kind.encode(), flags, os.fsencode(data)),
        f"mount {kind} on {target}",
    )


def unmount(target: str) -> None:
    _checked(_c_umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def pivot_root_here() -> None:
    """Make the current directory, a mount, the root; the old root is let go of at once."""
    _checked(_c_pivot_root(_PIVOT_ROOT, b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


def clone_tree(path: str, attributes: int, *, clear: int = 0, userns: int | None = None) -> int:
    """A detached copy of the mounts at `path` with these attributes; `userns` maps ownership (an idmapped mount)."""
    tree = _checked(
        _c_open_tree(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE),
        f"open_tree {path}",
    )
    if userns is not None:
        attributes |= ATTR_IDMAP
    packed = struct.pack("QQQQ", attributes, clear, 0, userns or 0)
    try:
        _checked(
            _c_mount_setattr(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, packed, len(packed)),
            f"mount_setattr {path}",
        )
    except OSError:
        os.close(tree)
        raise
    return tree


def attach_tree(tree: int, target: str) -> None:
    """Mount a detached tree on `target` and close its descriptor."""
    try:
        _checked(
            _c_move_mount(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH),
            f"move_mount on {target}",
        )
    finally:
        os.close(tree)


def clone_mount(root: int) -> int:
    """A detached copy of the mount whose root is open, as it is, without what is mounted below it."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH
    return _checked(_c_open_tree(_OPEN_TREE, root, b"", flags), "open_tree")


def set_attributes(tree: int, attributes: int, *, userns: int | None = None) -> None:
    """Give a detached mount these attributes, and make it private; `userns` maps ownership."""
    if userns is not None:
        attributes |= ATTR_IDMAP
    packed = struct.pack("QQQQ", attributes, 0, MS_PRIVATE, userns or 0)
    _checked(_c_mount_setattr(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, packed, len(packed)), "mount_setattr")


def attach_tree_at(tree: int, folder: int, *, beneath: bool = False) -> None:
    """Mount a detached tree on the open folder, or beneath the mount whose root that is (Linux 6.5); it stays open."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH | (_MOVE_MOUNT_BENEATH if beneath else 0)
    _checked(_c_move_mount(_MOVE_MOUNT, tree, b"", folder, b"", flags), "move_mount")


def bind(source: str, target: str, attributes: int) -> None:
    """Mount `source`, with what is mounted below it, on `target`."""
    attach_tree(clone_tree(source, attributes), target)


def close_descriptors(keep: set[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    low = 0
    for fd in [*sorted(keep), 1 << 31]:
        if fd > low:
            _checked(_c_close_range(_CLOSE_RANGE, low, min(fd - 1, (1 << 31) - 1), 0), "close_range")
        low = fd + 1


def keep_capabilities(kept: tuple[int, ...]) -> None:
    """Leave `kept` permitted and effective, nothing inheritable, ambient or in the bounding set."""
    for number in range(LAST_CAP + 1):
        _prctl(_PR_CAPBSET_DROP, number)
    mask = sum(1 << number for number in kept)
    header = struct.pack("Ii", 0x20080522, 0)
    data = struct.pack("IIIIII", mask, mask, 0, 0, 0, 0)
    _checked(_c_capset(header, data), "capset")


def regain_capabilities() -> None:
    """Make effective what is permitted: a change of the effective user id away from root's takes that away."""
    header = struct.pack("Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    _checked(_libc.capget(header, data), "capget")
    low, high = struct.unpack("IIIIII", data.raw)[1::3]
    _checked(_c_capset(header, struct.pack("IIIIII", low, low, 0, high, high, 0)), "capset")


def die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, 9)


def no_new_privs() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def not_dumpable() -> None:
    _prctl(_PR_SET_DUMPABLE, 0)


def become_subreaper() -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def install_filter(program: bytes) -> None:
    """Load a seccomp program (struct sock_filter[]); needs no_new_privs. It holds for all children too."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = _SockFprog(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    _checked(_c_prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(fprog), 0, 0), "seccomp")


def set_host_name(name: str) -> None:
    text = name.encode()
    _checked(_c_sethostname(text, len(text)), "sethostname")


def blank_command_line() -> None:
    """Overwrite this process's argument area: what `ps` shows of it, inside sandboxes too."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
    except (OSError, IndexError, ValueError):
        return
    if end > start:
        title = b"atoll-node"[: end - start - 1]
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, title, len(title))


def _prctl(option: int, value: int) -> None:
    _checked(_c_prctl(option, value, None, 0, 0), f"prctl {option}")
