"""Doctor: make a probe sandbox, run the probe in it, look at it from outside, and say what holds and what to mend."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.domain import errors
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import NetworkMode, Resources, SandboxSpec
from atoll.domain.workspace import Quota
from atoll.runtimes.base import Capability, Check, Report
from atoll.runtimes.local.probe import PROGRAM
from atoll.runtimes.local.slots import FIRST_UID
from atoll.sidekick.gates import OUT

if TYPE_CHECKING:
    from atoll.runtimes.local.runtime import LocalRuntime

PROBE_S = 30.0
LIMITS = Resources(cpu_millis=500, memory_bytes=64 * 2**20, pids=32, disk_bytes=8 * 2**20, inodes=512, timeout_s=60.0)

LIST_S = 10.0
AWAY, AWAY_PORT = "192.0.2.1", 443  # of no host (RFC 5737): nothing goes there
LEAVE = f"import socket; s = socket.create_connection(({AWAY!r}, {AWAY_PORT}), 5); print(s.recv(9).decode(), end='')"

_USERNS_SYSCTL = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_USERNS_CLONE = Path("/proc/sys/kernel/unprivileged_userns_clone")
_USERNS_MAX = Path("/proc/sys/user/max_user_namespaces")

_CGROUP_RULES = {"cpu_bounded", "memory_bounded", "pids_bounded"}
_ABILITIES = {
    "outgoing_network",
    "listed_network",
    "workspaces_bounded",
}  # where they are missing, what needs them is refused
_ROOT_ONLY = {*_CGROUP_RULES, *_ABILITIES, "identity"}  # what the rootless tier does not enforce

_IN_A_CONTAINER = "in a container add --cgroupns=host"

# what a rule that did not hold usually lacks
_FIXES = {
    "cpu_bounded": f"mount the cpu cgroup controller: systemd hosts have it; {_IN_A_CONTAINER}",
    "memory_bounded": f"mount the memory cgroup controller (cgroup_enable=memory at boot where off); {_IN_A_CONTAINER}",
    "pids_bounded": f"mount the pids cgroup controller: systemd hosts have it; {_IN_A_CONTAINER}",
    "identity": "run as root: an ordinary user's sandboxes all carry that user's own id",
    "outgoing_network": "run as root on a kernel with packet filter and veth: modprobe -a nft_fib_inet nft_masq nft_ct "
    "nft_limit nft_connlimit veth",
    "listed_network": "run as root on a kernel whose packet filter redirects: modprobe -a nft_chain_nat nft_redir",
    "workspaces_bounded": "run as root with loop devices (/dev/loop-control) and mkfs.ext4: apt-get install e2fsprogs",
    "python3": "install python3 for the sandboxes: apt-get install python3",
}


async def examine(runtime: LocalRuntime) -> Report:
    """A report of this host; tier `unavailable` with the reason when no sandbox can be made."""
    name = "probe_" + secrets.token_hex(6)
    try:
        await runtime.make(name, SandboxSpec(resources=LIMITS))
    except errors.AtollError as error:
        return Report("unavailable", (Check("sandbox", False, error.message, _namespace_fix()),))
    checks = [Check("sandbox", True, "made")]
    try:
        async with asyncio.timeout(PROBE_S):
            checks += await _inside(runtime, name)
            checks += await _outside(runtime, name)
    except TimeoutError:
        checks.append(
            Check("probe", False, f"it did not end within {PROBE_S:g} s", "try again when this machine rests")
        )
    finally:
        await runtime.destroy(name)
    checks.append(await _network(runtime))
    checks.append(await _list(runtime))
    checks.append(await _workspaces(runtime))
    is_root = os.geteuid() == 0
    checks = [
        replace(check, isolates=check.name not in _ABILITIES, enforced=is_root or check.name not in _ROOT_ONLY)
        for check in checks
    ]
    return Report("root" if is_root else "rootless", tuple(checks))


async def prove(runtime: LocalRuntime) -> Report:
    """What of `examine` keeps sandboxes apart, seen from inside: a tenth of a second, at each start of a server."""
    name = "probe_" + secrets.token_hex(6)
    try:
        await runtime.make(name, SandboxSpec(resources=LIMITS))
    except errors.AtollError as error:
        return Report("unavailable", (Check("sandbox", False, error.message, _namespace_fix()),))
    try:
        async with asyncio.timeout(PROBE_S):
            checks = await _inside(runtime, name)
    except TimeoutError:
        checks = [Check("probe", False, f"it did not end within {PROBE_S:g} s", "try again when this machine rests")]
    finally:
        await runtime.destroy(name)
    return Report("root" if os.geteuid() == 0 else "rootless", tuple(checks))


def unavailable(error: errors.AtollError) -> Report:
    """The report of a host on which the node itself cannot start."""
    return Report("unavailable", (Check("node", False, error.message, _namespace_fix()),))


async def _inside(runtime: LocalRuntime, name: str) -> list[Check]:
    limits = {"disk_bytes": LIMITS.disk_bytes, "inodes": LIMITS.inodes}
    program = f"LIMITS = {json.dumps(limits)}\n{PROGRAM}"
    result = await runtime.sidekick(name).run(ProcessSpec(("python3", "-I", "-"), stdin=True), stdin=program.encode())
    if result.exit.code != 0:
        said = result.stderr.decode(errors="replace").strip()
        return [Check("python3", False, said or f"exit {result.exit.code}", _FIXES["python3"])]
    found = json.loads(result.stdout)
    return [Check(rule, ok, detail, "" if ok else _fix(rule)) for rule, (ok, detail) in found.items()]


async def _outside(runtime: LocalRuntime, name: str) -> list[Check]:
    """What only the host can see: whose files they are, and that the limits are set."""
    sidekick = runtime.sidekick(name)
    found = await runtime.find(name)
    assert found is not None
    owner = await asyncio.to_thread(_uid_of, found.handle["pid"])
    checks = [
        Check(
            "identity",
            owner >= FIRST_UID,
            f"its root is host user {owner}",
            "" if owner >= FIRST_UID else _fix("identity"),
        )
    ]
    forks = "i=0; while [ $i -lt 64 ]; do sleep 5 & i=$((i+1)); done"
    bomb = await sidekick.run(ProcessSpec(("sh", "-c", forks), timeout_s=5))
    bounded = bomb.exit.code != 0 or b"fork" in bomb.stderr.lower()
    told = f"{'fork fails' if bounded else 'nothing happens'} at the limit of {LIMITS.pids} processes"
    checks.append(Check("pids_bounded", bounded, told, "" if bounded else _fix("pids_bounded")))
    await runtime.destroy(name)
    await runtime.make(name, SandboxSpec(resources=LIMITS))
    hog = await runtime.sidekick(name).run(ProcessSpec(("python3", "-c", "x = bytearray(256 << 20)"), timeout_s=10))
    killed = hog.exit.oom_killed
    checks.append(Check("memory_bounded", killed, f"exit {hog.exit.code}", "" if killed else _fix("memory_bounded")))
    before = await runtime.stats(name)
    spin = await runtime.sidekick(name).run(ProcessSpec(("sh", "-c", "while :; do :; done"), timeout_s=1))
    share = ((await runtime.stats(name)).cpu_s - before.cpu_s) / max(spin.exit.duration_s, 0.1)
    limited = Capability.LIMITS in runtime.capabilities
    fits = limited and share < 0.75
    told = f"{share:.2f} of a core at 0.5" if limited else "nothing limits it"
    checks.append(Check("cpu_bounded", fits, told, "" if fits else _fix("cpu_bounded")))
    return checks


async def _network(runtime: LocalRuntime) -> Check:
    name = "probe_" + secrets.token_hex(6)
    if Capability.OUTGOING not in runtime.capabilities:
        return Check("outgoing_network", False, "loopback only", _fix("outgoing_network"))
    try:
        await runtime.make(name, SandboxSpec(resources=LIMITS, network=NetworkMode.OUTGOING))
        await runtime.destroy(name)
    except errors.AtollError as error:
        return Check("outgoing_network", False, error.message, _fix("outgoing_network"))
    return Check("outgoing_network", True, "veth and packet filter work")


async def _list(runtime: LocalRuntime) -> Check:
    """Whether what leaves a sandbox with a list comes to the server, and nowhere else: so that it can be decided on."""
    name, rule = "probe_" + secrets.token_hex(6), "listed_network"
    if Capability.LISTED not in runtime.capabilities:
        return Check(rule, False, "loopback only", _fix(rule))
    try:
        await runtime.make(name, SandboxSpec(resources=LIMITS, network=NetworkMode.LISTED))
        try:
            leave = ProcessSpec(("python3", "-I", "-c", LEAVE), timeout_s=LIST_S)
            running = asyncio.create_task(runtime.sidekick(name).run(leave))
            try:
                async with asyncio.timeout(LIST_S):
                    stream = await runtime.accept(name)
                    stream.writer.write(b"server")
                    stream.writer.close()
                    heard = (await running).stdout
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
        finally:
            await runtime.destroy(name)
    except TimeoutError:
        return Check(rule, False, "what left the sandbox did not come to the server", _fix(rule))
    except errors.AtollError as error:
        return Check(rule, False, error.message, _fix(rule))
    if (stream.gate, stream.address, stream.port, heard) != (OUT, AWAY, AWAY_PORT, b"server"):
        return Check(rule, False, "what left the sandbox came to the server as something else", _fix(rule))
    return Check(rule, True, "what leaves the sandbox comes to the server")


async def _workspaces(runtime: LocalRuntime) -> Check:
    name = "probe_" + secrets.token_hex(6)
    if os.geteuid() != 0:
        return Check("workspaces_bounded", False, "they are plain folders", _fix("workspaces_bounded"))
    try:
        await runtime.make_tree(name, Quota(bytes=LIMITS.disk_bytes, inodes=LIMITS.inodes))
        try:
            await (await runtime.keeper(name)).usage()
        finally:
            await runtime.remove_tree(name)
    except errors.AtollError as error:
        return Check("workspaces_bounded", False, error.message, _fix("workspaces_bounded"))
    return Check("workspaces_bounded", True, "images with a file system of their own work")


def _uid_of(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        line = next(line for line in file if line.startswith("Uid:"))
    return int(line.split()[1])


def _fix(rule: str) -> str:
    if rule in _CGROUP_RULES and os.geteuid() != 0:
        return "run as root: an ordinary user's sandboxes have no cgroups"
    return _FIXES.get(rule, "report this: the rule should hold on every host; docs/isolation.md says how it is made")


def _namespace_fix() -> str:
    if os.geteuid() == 0:
        return "give this process CAP_SYS_ADMIN: in a container, run it with --privileged or on the host itself"
    if _flag(_USERNS_SYSCTL) == "1":
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 24.04 restricts user namespaces)"
    if _flag(_USERNS_CLONE) == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if _flag(_USERNS_MAX) == "0":
        return "sudo sysctl -w user.max_user_namespaces=65536"
    if shutil.which("python3") is None:
        return _FIXES["python3"]
    return "run as root, or on a kernel with user namespaces (CONFIG_USER_NS)"


def _flag(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
