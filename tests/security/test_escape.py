"""Group E: a tenant reaches nothing of the host, of the kernel's inner doors, or of other tenants."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import stat
import struct
from pathlib import Path

import pytest

from atoll.domain.errors import InvalidInput
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import SandboxSpec
from atoll.runtimes.local.slots import FIRST_UID, IDS
from tests.ground import ROOT_ONLY, Ground, Tenant, until
from tests.oracles import children, descriptors, state
from tests.security.attack import attack, control

pytestmark = ROOT_ONLY


async def host_pids(ground: Ground, *tenants: Tenant) -> list[int]:
    """Of the host's: this process, the node, sidekicks of others and what they run."""
    sidekicks = [await tenant.pid() for tenant in (ground.alice.tenant, *tenants)]
    return [os.getpid(), ground.leaks.node(), *sidekicks, *(pid for s in sidekicks for pid in children(s))]


async def test_e01_the_flag_of_the_host_is_read_by_no_name(ground: Ground) -> None:
    mallory = await ground.make()
    given = {"flag": str(ground.host.flag), "folders": [str(ground.data), str(ground.data / "run"), str(Path.cwd())]}
    verdict = await attack(mallory, "e01_host_flag", **given)
    assert verdict.exposed == {}
    assert "mount table /proc" in verdict.refused


async def test_e01_the_mount_table_does_not_tell_where_the_server_keeps_its_data(ground: Ground) -> None:
    mallory = await ground.make()
    told = await mallory.sh("cat /proc/self/mountinfo /proc/self/mounts /proc/self/mountstats /proc/1/mountinfo")
    assert told.stdout
    assert str(ground.data).encode() not in told.stdout


async def test_e02_proc_sys_is_not_writable(ground: Ground) -> None:
    mallory = await ground.make()
    verdict = await attack(mallory, "e02_proc_sys")
    assert verdict.exposed == {}
    assert len(verdict.refused) > 300


async def test_e03_kernel_information_is_masked(ground: Ground) -> None:
    mallory = await ground.make()
    assert (await attack(mallory, "e03_kernel_information")).exposed == {}


async def test_e04_no_way_to_cgroups_and_limits_stay(ground: Ground) -> None:
    mallory = await ground.make(memory_bytes=100 * 2**20, pids=77, cpu_millis=700)
    limits = await asyncio.to_thread(_limits, await mallory.pid())
    assert (await attack(mallory, "e04_cgroups")).exposed == {}
    assert await asyncio.to_thread(_limits, await mallory.pid()) == limits
    assert limits["memory"] == 100 * 2**20
    assert limits["pids"] == 77
    assert limits["cpu"] == 70_000


def _limits(pid: int) -> dict[str, int]:
    """What the kernel enforces on this process's groups, v1 or v2."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for name, v1, v2 in (
            ("memory", "memory.limit_in_bytes", "memory.max"),
            ("pids", "pids.max", "pids.max"),
            ("cpu", "cpu.cfs_quota_us", "cpu.max"),
        ):
            if name in controllers.split(","):
                found[name] = int(Path(f"/sys/fs/cgroup/{name}{path}/{v1}").read_text())
            elif not controllers and name not in found:
                for base in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
                    file = Path(f"{base}{path}/{v2}")
                    if file.exists():
                        found[name] = int(file.read_text().split()[0])
    return found


async def test_e05_the_mount_table_cannot_be_changed(ground: Ground) -> None:
    mallory = await ground.make()
    before = (await mallory.sh("cat /proc/self/mountinfo")).stdout
    assert (await attack(mallory, "e05_mounts")).exposed == {}
    assert (await mallory.sh("cat /proc/self/mountinfo")).stdout == before


async def test_e05_every_mount_is_nosuid_and_nodev_but_for_dev(ground: Ground) -> None:
    mallory = await ground.make()
    for line in (await mallory.sh("cat /proc/self/mounts")).stdout.decode().splitlines():
        _, where, kind, options, *_ = line.split()
        assert "nosuid" in options.split(","), line
        if where != "/dev" and kind != "devpts":
            assert "nodev" in options.split(","), line
        if where.startswith(("/usr", "/bin", "/lib", "/sbin", "/root", "/proc")) or where == "/dev":
            assert "ro" in options.split(","), line


async def test_e06_no_namespace_is_made_or_joined(ground: Ground) -> None:
    mallory = await ground.make()
    verdict = await attack(mallory, "e06_namespaces")
    assert verdict.exposed == {}
    assert set(verdict.refused.values()) <= {"EPERM", "ENOSYS", "EACCES"}


async def test_e07_other_processes_are_neither_seen_nor_touched(ground: Ground) -> None:
    mallory, bob = await ground.make(), await ground.make()
    await bob.start("sleep", "47.11")
    pids = await host_pids(ground, bob)
    marks = ["47.11", "pytest", "atoll-node", "monotonic"]
    verdict = await attack(mallory, "e07_foreign_processes", pids=pids, marks=marks)
    assert verdict.exposed == {}


async def test_e07_kill_minus_one_ends_only_what_the_killer_owns(ground: Ground) -> None:
    mallory, bob = await ground.make(), await ground.make()
    own = await mallory.start("sleep", "100")
    other = await bob.start("sleep", "100")
    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGCONT, signal.SIGINT, signal.SIGKILL):
        await mallory.sh(f"kill -{int(number)} -1")
    assert (await asyncio.wait_for(mallory.inside.wait(own), 5)).signal in (signal.SIGTERM, signal.SIGKILL)
    assert await mallory.answers()
    running = {process.id: process for process in await bob.inside.processes()}
    assert running[other].exit is None


async def test_e08_sockets_of_the_host_are_out_of_reach(ground: Ground, tmp_path: Path) -> None:
    mallory = await ground.make()
    name = f"atoll-attack-{os.getpid()}"
    by_path = tmp_path / "host.sock"
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as path:
        abstract.bind(b"\0" + name.encode())
        abstract.listen()
        path.bind(str(by_path))
        path.listen()
        by_path.chmod(0o777)
        node = ground.data / "run" / "node.sock"
        own = ground.data / "run" / "sandboxes" / mallory.id / "sidekick"
        verdict = await attack(
            mallory, "e08_sockets_of_the_host", abstract=name, paths=[str(by_path), str(node), str(own)]
        )
    assert verdict.exposed == {}


async def test_e09_a_program_starts_with_its_three_streams_only(ground: Ground) -> None:
    # It stops by itself: by then its loader has closed the libraries that it read, each of them descriptor 3 meanwhile.
    program = ("sh", "-c", "kill -STOP $$")
    mallory = await ground.make(SandboxSpec(command=program))
    for fields in ({}, {"stdin": True}, {"tty": True}):
        await mallory.start(*program, **fields)
    sidekick = await mallory.pid()
    programs = children(sidekick)
    assert len(programs) == 4
    for pid in programs:
        await until(lambda pid=pid: state(pid) == "T", "the program stops")
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
        for number in (0, 1, 2):
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            assert target.startswith(("pipe:", "/dev/pts/", "/dev/null")), target


async def test_e09_a_sidekick_keeps_only_what_it_needs(ground: Ground) -> None:
    mallory = await ground.make()
    await mallory.sh("true")
    kept = descriptors(await mallory.pid())
    allowed = {"node.log", "null", "socket", "anon_inode", "pipe", "oom_score_adj", "u"}
    counters = {
        "cpu.stat",
        "memory.max_usage_in_bytes",
        "memory.oom_control",
        "memory.peak",
        "memory.events",
        "cpuacct.usage",
    }
    assert set(kept) <= allowed | counters
    assert sum(kept.values()) < 20


async def test_e10_a_working_directory_is_inside_whatever_its_name(ground: Ground) -> None:
    mallory = await ground.make()
    await mallory.sh(
        "mkdir -p /tmp/gone /tmp/real; ln -s /proc/self/fd/3 /tmp/magic; ln -s / /tmp/up; ln -s nowhere /tmp/dangling"
    )
    await mallory.sh(
        "ln -s /proc/self/root/etc /tmp/own; ln -s /proc/1/cwd /tmp/sidekick; touch /tmp/file; rmdir /tmp/gone"
    )
    for name in ("/proc/self/fd/7", "/proc/self/fd/3", "/proc/1/cwd", "/proc/1/root", "/tmp/magic", "/tmp/sidekick",
                 "/tmp/gone", "/tmp/dangling", "/tmp/file", "/tmp/file/x", "/proc/1/fd/3/x", "/tmp/own"):  # fmt: skip
        with pytest.raises(InvalidInput):
            await mallory.sh("pwd -P", cwd=name)
    for name, wanted in (
        ("../" * 64 + "tmp", "/tmp"),
        ("/tmp/up/tmp/real", "/tmp/real"),
        ("//tmp//./real", "/tmp/real"),
    ):
        assert (await mallory.sh("pwd -P", cwd=name)).stdout.decode().strip() == wanted
    for number in range(40):
        with pytest.raises(InvalidInput):
            await mallory.sh("pwd", cwd=f"/proc/1/fd/{number}")


async def test_e10_a_program_is_not_run_through_the_sidekicks_descriptors(ground: Ground) -> None:
    mallory = await ground.make()
    await mallory.sh("cd; mkdir bin; cp /bin/true bin/binary; printf '#!/bin/sh\\n' > bin/script; chmod 755 bin/script")
    assert (await mallory.sh("ls ~/bin/binary ~/bin/script")).exit.code == 0
    numbers = range(max(int(name) for name in os.listdir(f"/proc/{await mallory.pid()}/fd")) + 16)
    for number, owner, program in itertools.product(numbers, ("self", "1"), ("binary", "script")):
        name = f"/proc/{owner}/fd/{number}/home/user/bin/{program}"
        result = await mallory.inside.run(ProcessSpec((name,)))
        assert result.exit.code in (126, 127), name


async def test_e12_device_nodes_are_not_made_and_not_opened(ground: Ground, tmp_path: Path) -> None:
    mallory = await ground.make()
    assert (await attack(mallory, "e12_devices")).exposed == {}
    layer = tmp_path / "layer"
    layer.mkdir(mode=0o755)
    for name, mode, device in (
        ("null", stat.S_IFCHR, (1, 3)),
        ("mem", stat.S_IFCHR, (1, 1)),
        ("disk", stat.S_IFBLK, (254, 0)),
    ):
        os.mknod(layer / name, mode | 0o666, os.makedev(*device))
        os.chown(layer / name, 1000, 1000)
    planted = await ground.make(SandboxSpec(layers=(str(layer),)))
    for name in ("null", "mem", "disk"):
        seen = await planted.sh(f"ls -l /{name}; cat /{name}; echo x > /{name}")
        assert seen.stderr.count(b"Permission denied") == 2, seen


async def test_e13_setuid_and_file_capabilities_of_a_layer_give_nothing(ground: Ground, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "planted").mkdir(parents=True)
    layer.chmod(0o755)
    for name, mode in (("id", 0o4755), ("sgid", 0o2755), ("grep", 0o755)):
        shutil.copy(shutil.which("id" if name == "sgid" else name) or "", layer / "planted" / name)
        os.chmod(layer / "planted" / name, mode)
    # cap_setuid, cap_sys_admin and the rest, permitted and effective (struct vfs_cap_data, revision 2)
    capabilities = struct.pack("<IIIII", 0x0200_0001, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0)
    os.setxattr(layer / "planted" / "grep", "security.capability", capabilities)
    mallory = await ground.make(SandboxSpec(layers=(str(layer),)))
    told = await mallory.sh(
        "ls -ln /planted; /planted/id -u; /planted/id -ru; /planted/sgid -g; /planted/grep Cap /proc/self/status"
    )
    lines = told.stdout.decode().splitlines()
    assert "-rwsr-xr-x" in told.stdout.decode(), "the setuid bit did not get there: the test shows nothing"
    assert lines[4:7] == ["1000", "1000", "1000"]
    assert all(int(line.split()[1], 16) == 0 for line in lines[7:])
    assert len(lines[7:]) == 5


async def test_e13_a_tenants_own_setuid_file_gives_nothing(ground: Ground) -> None:
    mallory = await ground.make()
    told = await mallory.sh(
        "cp /usr/bin/id /tmp/id; chmod 6755 /tmp/id; chown 0:0 /tmp/id; /tmp/id -u; su -c id; mount /tmp"
    )
    assert told.stdout.split() == [b"1000"], told


async def test_e15_no_capability_is_had_raised_or_inherited(ground: Ground) -> None:
    mallory = await ground.make()
    assert (await attack(mallory, "e15_capabilities")).exposed == {}


async def test_e16_each_sandbox_has_host_users_of_its_own(ground: Ground) -> None:
    tenants = [await ground.make() for _ in range(5)]
    ranges: list[range] = []
    for tenant in tenants:
        await tenant.sh("echo x > /home/user/made; mkdir /tmp/d; ln -s x /tmp/l")
        pid = await tenant.pid()
        inside, outside, count = map(int, Path(f"/proc/{pid}/uid_map").read_text().split())
        assert (inside, count) == (0, IDS)
        assert Path(f"/proc/{pid}/gid_map").read_text().split() == [str(inside), str(outside), str(count)]
        assert outside >= FIRST_UID
        for name in ("home/user/made", "tmp/d", "tmp/l", "home/user", "."):
            info = os.lstat(f"/proc/{pid}/root/{name}")
            assert outside <= info.st_uid < outside + IDS
            assert outside <= info.st_gid < outside + IDS
        for line in ("Uid:", "Gid:"):
            status = Path(f"/proc/{pid}/status").read_text()
            ids = next(text for text in status.splitlines() if text.startswith(line)).split()[1:]
            assert all(outside <= int(number) < outside + IDS for number in ids)
        ranges.append(range(outside, outside + IDS))
    ranges.sort(key=lambda span: span.start)
    for one, next_one in itertools.pairwise(ranges):
        assert one.stop <= next_one.start


async def test_e18_no_socket_sees_or_forges_what_is_not_the_tenants(ground: Ground) -> None:
    mallory = await ground.make()
    assert (await attack(mallory, "e18_sockets")).exposed == {}


# what the control launcher must be seen to expose: one sign for each case
SIGNS = {
    "e01_host_flag": "absolute",
    "e02_proc_sys": "open /proc/sys/kernel/core_pattern",
    "e03_kernel_information": "read /proc/cmdline",
    "e05_mounts": "mount tmpfs",
    "e06_namespaces": "unshare user",
    "e07_foreign_processes": "titles",
    "e08_sockets_of_the_host": "path ",
    "e12_devices": "mknod /tmp mem",
    "e15_capabilities": "CapEff",
    "e18_sockets": "raw 1",
}


@pytest.mark.parametrize("name", SIGNS)
async def test_e22_the_same_attacks_see_a_launcher_that_keeps_no_rules(
    name: str, ground: Ground, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"  # the real one may not be read, by this launcher either
    flag.write_text("control")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(64)
        given = {
            "flag": str(flag),
            "folders": [str(ground.data)],
            "pids": await host_pids(ground),
            "marks": ["pytest", "atoll-node"],
            "abstract": "nobody",
            "paths": [str(tmp_path / "s")],
        }
        verdict = await asyncio.to_thread(control, name, **given)
    assert any(what.startswith(SIGNS[name]) for what in verdict.exposed), verdict
    assert len(verdict.exposed) >= 2 or name in ("e08_sockets_of_the_host",), verdict.exposed


async def test_e22_an_attack_that_is_not_refused_fails_its_test(ground: Ground) -> None:
    """The oracle of the flag notices a read."""
    ground.host.flag.read_text()
    with pytest.raises(AssertionError, match="flag read at"):
        ground.host.check()
    os.utime(ground.host.flag, (1, 2))
    ground.host.check()
