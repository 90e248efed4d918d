"""The seccomp program that every process of a sandbox runs under: what a tenant needs passes, ways to the kernel's
inner doors do not. `tests/runtimes/local/seccomp.golden` holds the reviewed list; settled in docs/isolation.md.

Unknown (newer) calls answer ENOSYS, so that programs fall back; denied ones answer EPERM.
"""

from __future__ import annotations

import errno
import struct

Line = tuple[int, int, int, int]  # struct sock_filter: code, jump if true, jump if false, constant

_ALLOW = 0x7FFF_0000
_ERRNO = 0x0005_0000
_KILL_PROCESS = 0x8000_0000
_EPERM = _ERRNO | errno.EPERM
_ENOSYS = _ERRNO | errno.ENOSYS

_LD_ABS = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JEQ = 0x15
_JGE = 0x35
_JSET = 0x45
_JA = 0x05
_RET = 0x06
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K

_NR, _ARCH, _ARGS = 0, 4, 16

_ARCHES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_NEWEST = 462  # mseal: calls added after it are unknown to this list

# name -> (x86_64, aarch64); None where the machine has no such call
DENIED: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "get_kernel_syms": (177, None),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "listmount": (458, 458),
    "lookup_dcookie": (212, 18),
    "lsm_set_self_attr": (460, 460),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "set_mempolicy": (238, 237),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "statmount": (457, 457),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}

_CLONE = (56, 220)
_CLONE3 = (435, 435)
_UNSHARE = (272, 97)
_SOCKET = (41, 198)
_SOCKETPAIR = (53, 199)  # makes, and loads the module of, any family that there is before it says that it has no pairs
_PTRACE = (101, 117)
_IOCTL = (16, 29)
_NEW_NAMESPACES = 0x7E02_0080  # CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}
_CLONE_NAMESPACES = 0x7E02_0000  # clone's low byte is the signal, so no time namespace there
_PTRACE_FOREIGN = (16, 0x4206)  # ATTACH and SEIZE; TRACEME, which debuggers use on their children, passes

# typing into a terminal for its user, and line disciplines, each of which is a driver of the kernel
TERMINAL_REQUESTS = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C, "TIOCSETD": 0x5423}

# address families that a program may open, and the raw type that it may not
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
# ... and their protocols: to ask for another makes the kernel load its module, of which some are old and unloved
NETLINK_PROTOCOLS = {"ROUTE": 0, "SOCK_DIAG": 4, "KOBJECT_UEVENT": 15}
INTERNET_PROTOCOLS = {"default": 0, "ICMP": 1, "TCP": 6, "UDP": 17, "ICMPV6": 58, "MPTCP": 262}
_SOCK_TYPE_MASK = 0xF
_SOCK_RAW = 3


def program(machine: str) -> bytes:
    """The filter for this machine as struct sock_filter[]. Raises KeyError for one that it was not written for."""
    column = {"x86_64": 0, "aarch64": 1}[machine]
    code: list[Line] = [(_LD_ABS, 0, 0, _ARCH), (_JEQ, 1, 0, _ARCHES[machine]), (_RET, 0, 0, _KILL_PROCESS)]
    code += [(_LD_ABS, 0, 0, _NR), *_tree(_segments(column))]
    return b"".join(struct.pack("HBBI", *line) for line in code)


def _segments(column: int) -> list[tuple[int, list[Line]]]:
    """(first call number, what to do from it on), in order and without gaps."""
    actions: dict[int, list[Line]] = {_CLONE3[column]: [(_RET, 0, 0, _ENOSYS)]}
    for numbers in DENIED.values():
        number = numbers[column]
        if number is not None:
            actions[number] = [(_RET, 0, 0, _EPERM)]
    actions[_CLONE[column]] = _checking([(_JSET, 0, 1, _CLONE_NAMESPACES), (_RET, 0, 0, _EPERM)])
    actions[_UNSHARE[column]] = _checking([(_JSET, 0, 1, _NEW_NAMESPACES), (_RET, 0, 0, _EPERM)])
    foreign = [line for request in _PTRACE_FOREIGN for line in ((_JEQ, 0, 1, request), (_RET, 0, 0, _EPERM))]
    actions[_PTRACE[column]] = _checking(foreign)
    actions[_SOCKET[column]] = actions[_SOCKETPAIR[column]] = _checking(_socket_rules())
    terminal = [
        line for request in TERMINAL_REQUESTS.values() for line in ((_JEQ, 0, 1, request), (_RET, 0, 0, _EPERM))
    ]
    actions[_IOCTL[column]] = _checking(terminal, argument=1)
    allow: list[Line] = [(_RET, 0, 0, _ALLOW)]
    segments: list[tuple[int, list[Line]]] = [(0, actions.get(0, allow))]
    for number in range(1, _NEWEST + 1):
        action = actions.get(number, allow)
        if action != segments[-1][1]:
            segments.append((number, action))
    segments.append((_NEWEST + 1, [(_RET, 0, 0, _ENOSYS)]))  # the x32 numbers are up there too
    return segments


def _tree(segments: list[tuple[int, list[Line]]]) -> list[Line]:
    """A binary search over the segments: every system call passes seven comparisons instead of sixty."""
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below, above = _tree(segments[:middle]), _tree(segments[middle:])
    first = segments[middle][0]
    if len(below) < 256:
        return [(_JGE, len(below), 0, first), *below, *above]
    return [(_JGE, 0, 1, first), (_JA, 0, 0, len(below)), *below, *above]


def _checking(rules: list[Line], argument: int = 0) -> list[Line]:
    """Load the lower half of an argument, run the rules, allow what passes them."""
    return [(_LD_ABS, 0, 0, _ARGS + 8 * argument), *rules, (_RET, 0, 0, _ALLOW)]


def _socket_rules() -> list[Line]:
    families = list(FAMILIES.values())
    netlink = _only(NETLINK_PROTOCOLS, 2)
    return [
        *[(_JEQ, len(families) - at, 0, family) for at, family in enumerate(families)],
        (_RET, 0, 0, _EPERM),
        (_JEQ, 0, len(netlink), FAMILIES["AF_NETLINK"]),  # which is always "raw"
        *netlink,
        *[(_LD_ABS, 0, 0, _ARGS + 8), (_AND, 0, 0, _SOCK_TYPE_MASK), (_JEQ, 0, 1, _SOCK_RAW), (_RET, 0, 0, _EPERM)],
        *[(_LD_ABS, 0, 0, _ARGS), (_JEQ, 0, 1, FAMILIES["AF_UNIX"]), (_RET, 0, 0, _ALLOW)],
        *_only(INTERNET_PROTOCOLS, 2),
    ]


def _only(values: dict[str, int], argument: int) -> list[Line]:
    """Allow these values of an argument and no others."""
    wanted = list(values.values())
    return [
        (_LD_ABS, 0, 0, _ARGS + 8 * argument),
        *[(_JEQ, len(wanted) - at, 0, value) for at, value in enumerate(wanted)],
        (_RET, 0, 0, _EPERM),
        (_RET, 0, 0, _ALLOW),
    ]
