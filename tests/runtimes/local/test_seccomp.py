"""The seccomp program, run as the kernel runs it: what it answers to each system call is the reviewed list.

`seccomp.golden` is that list; who changes what a sandbox may call changes it in the same commit and says why.
"""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path

import pytest

from atoll.runtimes.local import seccomp
from tests.ground import ROOT_ONLY, Ground

GOLDEN = Path(__file__).parent / "seccomp.golden"
MACHINES = {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1)}
CALLS = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "ioctl": (16, 29),
    "ptrace": (101, 117),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "unshare": (272, 97),
    "read": (0, 63),
    "mount": (165, 40),
}
NUMBERS = range(600)


def answer(machine: str, number: int, *arguments: int, arch: int | None = None) -> str:
    """Interpret the program (classic BPF over struct seccomp_data): allow, kill, or the name of the error."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, MACHINES[machine][0] if arch is None else arch, 0, *padded)
    lines = list(struct.iter_unpack("HBBI", seccomp.program(machine)))
    at = value = 0
    for _ in range(len(lines)):
        code, jump_true, jump_false, constant = lines[at]
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, constant)
        elif code == 0x54:
            value &= constant
        elif code == 0x05:
            at += constant
        elif code == 0x06:
            return _verdict(constant)
        else:
            holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[code]
            at += jump_true if holds else jump_false
    raise AssertionError("the program does not end")


def _verdict(returned: int) -> str:
    if returned & 0xFFFF_0000 == 0x0005_0000:
        return errno.errorcode[returned & 0xFFFF]
    return {0x7FFF_0000: "allow", 0x8000_0000: "kill"}[returned]


def listed(machine: str) -> list[str]:
    """A line for each call that is not simply allowed, with arguments of zero; a range once."""
    column = MACHINES[machine][1]
    names = {numbers[column]: name for name, numbers in (seccomp.DENIED | CALLS).items()}
    lines = [f"{number} {names[number]} {answer(machine, number)}" for number in NUMBERS if number in names]
    unnamed = [number for number in NUMBERS if answer(machine, number) != "allow" and number not in names]
    assert unnamed == list(range(unnamed[0], NUMBERS[-1] + 1))
    return [f"[{machine}]", *lines, f"{unnamed[0]} and above {answer(machine, unnamed[0])}"]


def test_the_program_answers_as_the_reviewed_list_says() -> None:
    text = "\n".join(line for machine in MACHINES for line in listed(machine)) + "\n"
    assert text == GOLDEN.read_text()


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architectures_calls_end_the_process(machine: str) -> None:
    for arch in (0x4000_0003, 0x4000_0028, *(arch for arch, _ in MACHINES.values())):  # i386, arm
        expected = "allow" if arch == MACHINES[machine][0] else "kill"
        assert answer(machine, CALLS["read"][MACHINES[machine][1]], arch=arch) == expected


def test_the_x32_numbers_are_unknown_calls() -> None:
    for number in (0, 101, 165, 512, 545):
        assert answer("x86_64", 0x4000_0000 + number) == "ENOSYS"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
def test_no_new_namespace(machine: str, flag: int) -> None:
    column = MACHINES[machine][1]
    for name in ("clone", "unshare"):
        assert answer(machine, CALLS[name][column], flag | 0x100) == "EPERM"
    assert answer(machine, CALLS["unshare"][column], 0x80) == "EPERM"  # a time namespace
    assert answer(machine, CALLS["clone"][column], 0x3D0F00) == "allow"  # a thread
    assert answer(machine, CALLS["clone"][column], 17) == "allow"  # a fork: SIGCHLD


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["socket", "socketpair"])
def test_only_sockets_whose_packets_a_rule_sees(machine: str, name: str) -> None:
    number = CALLS[name][MACHINES[machine][1]]
    stream, datagram, raw, cloexec = 1, 2, 3, 0o2000000
    for family in range(50):
        for kind in (stream, datagram, raw, stream | cloexec, raw | cloexec):
            allowed = (family in (1, 2, 10) and kind & 0xF != raw) or family == 16
            assert answer(machine, number, family, kind) == ("allow" if allowed else "EPERM"), (family, kind)


@pytest.mark.parametrize("machine", MACHINES)
def test_no_protocol_makes_the_kernel_load_its_module(machine: str) -> None:
    number = CALLS["socket"][MACHINES[machine][1]]
    stream, datagram, raw = 1, 2, 3
    for protocol in range(300):
        for family in (2, 10):
            allowed = protocol in (0, 1, 6, 17, 58, 262)
            assert answer(machine, number, family, datagram, protocol) == ("allow" if allowed else "EPERM"), protocol
        assert answer(machine, number, 16, raw, protocol) == ("allow" if protocol in (0, 4, 15) else "EPERM"), protocol
    assert answer(machine, number, 1, stream, 0) == "allow"


@pytest.mark.parametrize("machine", MACHINES)
def test_a_debugger_traces_its_own_children_only(machine: str) -> None:
    number = CALLS["ptrace"][MACHINES[machine][1]]
    answers = {request: answer(machine, number, request) for request in (0, 1, 7, 16, 0x4200, 0x4206)}
    assert answers == {0: "allow", 1: "allow", 7: "allow", 16: "EPERM", 0x4200: "allow", 0x4206: "EPERM"}


@pytest.mark.parametrize("machine", MACHINES)
def test_nobody_types_for_a_terminals_user_or_loads_its_drivers(machine: str) -> None:
    number = CALLS["ioctl"][MACHINES[machine][1]]
    for request in (0x5412, 0x541C, 0x5423):
        for high in (0, 1 << 32):  # the kernel looks at the lower half only
            assert answer(machine, number, 0, request | high) == "EPERM"
    for request in (0x5401, 0x5402, 0x5413, 0x5414, 0x540E, 0x541B, 0x8912):
        assert answer(machine, number, 0, request) == "allow"


class TestInside:
    pytestmark = ROOT_ONLY

    async def test_every_denied_call_really_answers_eperm(self, ground: Ground) -> None:
        mallory = await ground.make()
        numbers = {name: pair[0] for name, pair in seccomp.DENIED.items() if pair[0] is not None}
        told = await mallory.told(_CALLS.replace("NUMBERS", json.dumps(numbers)))
        assert told == dict.fromkeys(numbers, errno.EPERM)

    async def test_rules_on_arguments_hold_in_the_kernel(self, ground: Ground) -> None:
        mallory = await ground.make()
        namespaces = [
            [CALLS[name][0], 1 << bit] for name in ("clone", "unshare") for bit in (17, 25, 26, 27, 28, 29, 30)
        ]
        families = [family for family in range(46) if family not in (1, 2, 10, 16)]
        sockets = [[CALLS[name][0], family, 1, 0] for name in ("socket", "socketpair") for family in families]
        old = [[CALLS["socket"][0], family, 1, protocol] for family in (2, 10) for protocol in (33, 115, 132, 136)]
        netlink = [[CALLS["socket"][0], 16, 3, protocol] for protocol in (6, 9, 12, 16, 18, 20, 21, 22)]
        raw = [[CALLS[name][0], family, 3, 1] for name in ("socket", "socketpair") for family in (2, 10)]
        traced = [[CALLS["ptrace"][0], request, 1, 0, 0] for request in (16, 0x4206)]
        terminal = [[CALLS["ioctl"][0], 0, request, 0] for request in seccomp.TERMINAL_REQUESTS.values()]
        high = [[call, first | 1 << 40, *rest] for call, first, *rest in [*namespaces, *sockets, *raw, *old, *netlink]]
        denied = [*namespaces, *sockets, *raw, *old, *netlink, *traced, *terminal, *high]
        assert await mallory.told(_CALLS_WITH.replace("CALLS", json.dumps(denied))) == [errno.EPERM] * len(denied)

    async def test_newer_calls_and_those_of_x32_answer_enosys(self, ground: Ground) -> None:
        mallory = await ground.make()
        newer = [[435, 0, 0], [463], [468], [511], [0x4000_0000 + 39], [0x4000_0000 + 520]]
        assert await mallory.told(_CALLS_WITH.replace("CALLS", json.dumps(newer))) == [errno.ENOSYS] * len(newer)

    async def test_a_32_bit_call_is_fatal(self, ground: Ground) -> None:
        mallory = await ground.make()
        program = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
print(ctypes.CFUNCTYPE(ctypes.c_int)(address)(), flush=True)
"""
        result = await mallory.python(program)
        assert result.stdout == b""
        assert result.exit.signal in (31, 11)  # SIGSYS; where the kernel knows no 32-bit calls at all, SIGSEGV


_CALLS = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
found = {}
for name, number in NUMBERS.items():
    ctypes.set_errno(0)
    result = libc.syscall(number, -1, -1, -1, -1, -1, -1)
    found[name] = ctypes.get_errno() if result == -1 else 0
print(json.dumps(found))
"""
_CALLS_WITH = """
import ctypes, json
libc = ctypes.CDLL(None, use_errno=True)
found = []
for call in CALLS:
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_long(word) for word in call], *[ctypes.c_long(0)] * (7 - len(call)))
    found.append(ctypes.get_errno() if result == -1 else 0)
print(json.dumps(found))
"""
