"""Runtime faults: the node or a sidekick is killed, a server goes and comes; sandboxes, output and deadlines hold."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from atoll.domain.errors import Conflict, NotFound, Unavailable
from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import MAIN, ProcessSpec
from atoll.domain.sandbox import NetworkMode, Resources, SandboxSpec
from atoll.runtimes.base import Ended
from atoll.runtimes.local.runtime import LocalRuntime
from tests.ground import ROOT_ONLY, Tenant, until
from tests.oracles import LeakOracle, children, descriptors

pytestmark = ROOT_ONLY


class Machine:
    """One data folder, its node as the kernel shows it, and servers of it that come and go."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.leaks = LeakOracle(data)
        self.servers: list[LocalRuntime] = []
        self.ends: dict[LocalRuntime, list[Ended]] = {}
        self._listeners: list[asyncio.Task[None]] = []

    async def server(self, *, listens: bool = True) -> LocalRuntime:
        runtime = LocalRuntime(self.data)
        await runtime.start()
        self.servers.append(runtime)
        self.ends[runtime] = []
        if listens:
            self.listen(runtime)
        return runtime

    def listen(self, runtime: LocalRuntime) -> None:
        async def follow() -> None:
            async for ended in runtime.events():
                self.ends[runtime].append(ended)
                await runtime.forget(ended.id)

        self._listeners.append(asyncio.create_task(follow()))

    async def next_end(self, runtime: LocalRuntime, within_s: float = 10.0) -> Ended | None:
        """The next one that this server was told of; None when there is none in time."""
        deadline = time.monotonic() + within_s
        while not self.ends[runtime] and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return self.ends[runtime].pop(0) if self.ends[runtime] else None

    async def make(self, runtime: LocalRuntime, spec: SandboxSpec | None = None) -> Tenant:
        tenant = Tenant(runtime, new_sandbox_id())
        await runtime.make(tenant.id, spec or SandboxSpec())
        return tenant

    async def kill_node(self) -> int:
        """With -9; returns the pid of the next one, once it serves."""
        node = self.leaks.node()
        os.kill(node, signal.SIGKILL)
        await until(lambda: self.leaks.node() not in (0, node), "the next node")
        return self.leaks.node()

    async def leave(self) -> None:
        for task in self._listeners:
            task.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        for server in self.servers:
            await server.close()
        last = await self.server(listens=False)
        await last.shutdown()
        await until(lambda: self.leaks.node() == 0, "the node has left")
        left = self.leaks.processes(), self.leaks.cgroups(), self.leaks.loops()
        assert left == ([], [], [])
        names = os.listdir(self.data / "run" / "sandboxes")
        assert all(os.listdir(self.data / "run" / "sandboxes" / name) == ["ended.json"] for name in names)
        assert (self.data / "run" / "node.log").read_text() == ""


@pytest_asyncio.fixture(loop_scope="session")
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path / "data")
    try:
        yield machine
    finally:
        await machine.leave()


def alive(pid: int) -> bool:
    """Whether it runs: what has ended may wait for somebody to take note of it."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


async def test_sandboxes_outlive_their_node_with_processes_files_and_output(machine: Machine) -> None:
    runtime = await machine.server()
    spec = SandboxSpec(command=("sh", "-c", "echo before; cat; exit 9"), env={"COLOUR": "blue"})
    tenants = [await machine.make(runtime, spec) for _ in range(5)]
    terminals = [await t.inside.start(ProcessSpec(("bash", "--norc"), tty=True)) for t in tenants]
    for tenant in tenants:
        await tenant.sh("echo kept > /tmp/mine")
    pids = {tenant.id: await tenant.pid() for tenant in tenants}
    await machine.kill_node()
    await until(lambda: _listed(runtime, set(pids)), "the next node knows them")
    for tenant, terminal in zip(tenants, terminals, strict=True):
        assert await tenant.pid() == pids[tenant.id]
        await terminal.write_stdin(b"echo $((6*7))\r")
        async with asyncio.timeout(5):
            async for _, data in terminal:
                if b"42\r\n" in data:
                    break
        await terminal.close()
        told = await tenant.sh(
            "cat /tmp/mine; echo $COLOUR; cat /etc/passwd; ls /etc/ssl/certs | head -1 | wc -l; git --version"
        )
        assert told.stdout.startswith(b"kept\nblue\nroot:x:0:0"), told  # the root below is as it was
        assert b"git version" in told.stdout
        main = await tenant.inside.attach(MAIN)
        await main.write_stdin(b"after\n")
        await main.close_stdin()
        async with asyncio.timeout(5):
            assert b"".join([data async for _, data in main]) == b"before\nafter\n"
        assert main.exit is not None
        assert main.exit.code == 9
        await main.close()
        usage = await runtime.destroy(tenant.id)
        assert usage is not None
        assert usage.cpu_s > 0


async def _listed(runtime: LocalRuntime, ids: set[str]) -> bool:
    return {found.id for found in await runtime.list()} == ids


async def test_deadlines_hold_across_nodes_and_while_no_server_is_there(machine: Machine) -> None:
    runtime = await machine.server(listens=False)
    started = time.monotonic()
    hard = await machine.make(runtime, SandboxSpec(resources=Resources(timeout_s=1.5), command=("sleep", "100")))
    idle = await machine.make(runtime, SandboxSpec(resources=Resources(idle_s=1.5)))
    forever = await machine.make(runtime)
    pids = [await hard.pid(), await idle.pid()]
    await machine.kill_node()
    assert await _listed(runtime, {hard.id, idle.id, forever.id})
    await runtime.close()  # the server goes too
    await until(lambda: not any(map(alive, pids)), "both end", 5)
    assert 1.4 < time.monotonic() - started < 3
    # killed once more: what ended while nobody listened is in the data folder
    os.kill(machine.leaks.node(), signal.SIGKILL)
    again = await machine.server()
    ends = {
        end.id: end.reason for end in [await machine.next_end(again), await machine.next_end(again)] if end is not None
    }
    assert ends == {hard.id: "timeout", idle.id: "idle"}
    assert await machine.next_end(again, 0.3) is None
    await again.close()
    third = await machine.server()
    assert await machine.next_end(third, 0.3) is None  # told once
    assert await _listed(third, {forever.id})


async def test_a_deadline_that_passed_while_no_node_was_there_is_kept_at_once(machine: Machine) -> None:
    runtime = await machine.server()
    tenant = await machine.make(runtime, SandboxSpec(resources=Resources(max_age_s=0.6)))
    await runtime.close()
    os.kill(machine.leaks.node(), signal.SIGKILL)
    await asyncio.sleep(0.8)
    assert await tenant.answers()  # nobody is there to end it
    again = await machine.server()
    end = await machine.next_end(again, 2)
    assert end is not None
    assert (end.id, end.reason) == (tenant.id, "max_age")


async def test_a_sidekick_killed_from_the_host_is_lost_within_seconds(machine: Machine) -> None:
    runtime = await machine.server()
    for adopted in (False, True):
        tenant = await machine.make(runtime, SandboxSpec(command=("sleep", "100")))
        await tenant.start("sh", "-c", "trap '' TERM; sleep 100")
        pid = await tenant.pid()
        programs = children(pid)
        if adopted:
            await machine.kill_node()
            assert await tenant.pid() == pid
        started = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        end = await machine.next_end(runtime)
        assert end is not None
        assert (end.id, end.reason) == (tenant.id, "lost")
        assert time.monotonic() - started < 2
        assert not any(map(alive, programs))
        with pytest.raises(NotFound):
            await tenant.inside.ping()
        assert await runtime.find(tenant.id) is None
        assert await runtime.destroy(tenant.id) is None


async def test_an_end_is_told_once_however_often_the_node_dies(machine: Machine) -> None:
    runtime = await machine.server(listens=False)
    tenants = [await machine.make(runtime) for _ in range(3)]
    for tenant in tenants:
        os.kill(await tenant.pid(), signal.SIGKILL)
    await until(lambda: _listed(runtime, set()), "all are gone")
    for _ in range(2):
        await machine.kill_node()
        await runtime.list()
    machine.listen(runtime)
    told = [await machine.next_end(runtime, 2) for _ in tenants]
    assert sorted(end.id for end in told if end) == sorted(tenant.id for tenant in tenants)
    assert await machine.next_end(runtime, 0.3) is None


async def test_requests_across_the_death_of_a_node_are_answered_or_refused(machine: Machine) -> None:
    runtime = await machine.server()
    tenant = await machine.make(runtime)
    making = [asyncio.create_task(machine.make(runtime)) for _ in range(20)]
    looking = [asyncio.create_task(runtime.list()) for _ in range(20)]
    node = machine.leaks.node()
    await asyncio.sleep(0.01)
    os.kill(node, signal.SIGKILL)
    made = await asyncio.wait_for(asyncio.gather(*making, return_exceptions=True), 20)
    listed = await asyncio.wait_for(asyncio.gather(*looking, return_exceptions=True), 20)
    assert all(isinstance(result, (Tenant, Unavailable)) for result in made), made
    assert all(isinstance(result, list) for result in listed), listed
    living = {result.id for result in made if isinstance(result, Tenant)}
    found = {item.id for item in await runtime.list()}
    assert living | {tenant.id} == found, "what was told to be made is there, and nothing else"
    assert await tenant.answers()


async def test_spares_of_a_dead_node_are_gone_and_never_listed(machine: Machine) -> None:
    runtime = await machine.server()
    folder = machine.data / "run" / "sandboxes"
    await until(lambda: _spares(machine) >= 8, "spares")
    assert await runtime.list() == []
    before = set(os.listdir(folder))
    old, node = machine.leaks.processes(), machine.leaks.node()
    await machine.kill_node()
    assert await runtime.list() == []
    await until(lambda: not any(map(alive, old)), "the old spares end")
    await until(lambda: not before & set(os.listdir(folder)), "their folders go")
    await until(lambda: not any(f"-{node}-" in path for path in machine.leaks.cgroups()), "their groups go")


async def test_a_new_server_object_finds_everything(machine: Machine) -> None:
    first = await machine.server()
    tenants = [await machine.make(first, SandboxSpec(command=("sh", "-c", "echo out; sleep 100"))) for _ in range(3)]
    handles = {found.id: found.handle for found in await first.list()}
    await first.close()
    second = await machine.server()
    assert {found.id: found.handle for found in await second.list()} == handles
    for tenant in tenants:
        stream = await second.sidekick(tenant.id).attach(MAIN)
        async with asyncio.timeout(5):
            async for _, data in stream:
                assert data == b"out\n"
                break
        await stream.close()
        with pytest.raises(Conflict):
            await second.make(tenant.id, SandboxSpec())


async def test_c09_a_second_node_of_the_same_folder_refuses(machine: Machine) -> None:
    runtime = await machine.server()
    tenant = await machine.make(runtime)
    program = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from atoll.runtimes.local.node import main; "
        "main(sys.argv[2], json.loads(sys.argv[3]))"
    )
    settings = json.dumps(runtime._node._settings)
    source = str(Path(__file__).parents[3] / "src")
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, source, str(machine.data), settings],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"busy\n", b"")
    assert await tenant.answers()
    assert await _listed(runtime, {tenant.id})


async def test_two_servers_that_start_at_once_share_one_node(machine: Machine) -> None:
    one, other = await asyncio.gather(machine.server(), machine.server())
    tenant = await machine.make(one)
    assert await _listed(other, {tenant.id})


async def test_c07_groups_and_folders_of_ours_that_nobody_claims_are_cleared_and_others_left_alone(
    machine: Machine,
) -> None:
    runtime = await machine.server()
    living = await machine.make(runtime)
    await runtime.close()
    os.kill(machine.leaks.node(), signal.SIGKILL)
    mark = f"atoll-{machine.leaks.mark}"
    bases = [path.parent for path in Path("/sys/fs/cgroup").glob("*/cgroup.procs")]
    bases = [base for base in bases if (base / mark).is_dir()]
    foreign = f"atoll-not-ours-{os.getpid()}"
    strays = [subprocess.Popen(["sleep", "60"]), subprocess.Popen(["sleep", "60"])]
    try:
        for base in bases:
            (base / mark / "999-1-1").mkdir()
            (base / foreign).mkdir()
            (base / mark / "999-1-1" / "cgroup.procs").write_text(str(strays[0].pid))
            (base / foreign / "cgroup.procs").write_text(str(strays[1].pid))
        run = machine.data / "run"
        (run / "sandboxes" / ".spare-1-1").mkdir()
        (run / "sandboxes" / "sess_000000000000").mkdir()
        (run / "sandboxes" / "sess_000000000000" / "sandbox.json").write_text('{"half": ')
        (run / "sandboxes" / "sess_111111111111").mkdir()
        (run / "sandboxes" / "sess_111111111111" / "ended.json").write_text("")
        again = await machine.server()
        assert await asyncio.to_thread(strays[0].wait, 5) == -signal.SIGKILL
        assert strays[1].poll() is None
        await until(lambda: not any((base / mark / "999-1-1").exists() for base in bases), "the stray groups go")
        assert all((base / foreign).is_dir() for base in bases)
        assert await _listed(again, {living.id})
        end = await machine.next_end(again, 2)
        assert end is not None
        assert (end.id, end.reason) == ("sess_111111111111", "lost")  # it ended, and more is not known
        await until(lambda: set(_real(run)) == {living.id}, "the stray folders go")
    finally:
        for stray in strays:
            stray.kill()
            stray.wait()
        for base in bases:
            for name in (foreign,):
                if (base / name).exists():
                    await until(lambda base=base: _removed(base / foreign), "the foreign group goes")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _real(run: Path) -> list[str]:
    return [name for name in os.listdir(run / "sandboxes") if not name.startswith(".spare")]


async def test_a_state_file_with_an_older_longer_tail_still_names_its_sandbox(machine: Machine) -> None:
    """The node died between writing the shorter text and cutting the file."""
    runtime = await machine.server()
    tenant = await machine.make(runtime)
    pid = await tenant.pid()
    state = machine.data / "run" / "sandboxes" / tenant.id / "sandbox.json"
    state.write_text(state.read_text() + '"frozen":false}')
    await machine.kill_node()
    assert await tenant.pid() == pid
    assert await tenant.answers()


async def test_a_reboot_is_told_for_what_it_is(machine: Machine) -> None:
    runtime = await machine.server()
    tenant = await machine.make(runtime)
    await runtime.close()
    node = machine.leaks.node()
    os.kill(node, signal.SIGKILL)
    os.kill(await _pid_in(machine, tenant), signal.SIGKILL)
    state = machine.data / "run" / "sandboxes" / tenant.id / "sandbox.json"
    fields = json.loads(state.read_text())
    state.write_text(json.dumps({**fields, "boot_id": "an-earlier-boot", "pid": os.getpid()}))
    again = await machine.server()
    end = await machine.next_end(again, 2)
    assert end is not None
    assert (end.id, end.reason) == (tenant.id, "host_restarted")


async def _pid_in(machine: Machine, tenant: Tenant) -> int:
    return int(json.loads((machine.data / "run" / "sandboxes" / tenant.id / "sandbox.json").read_text())["pid"])


async def test_a_process_that_took_a_dead_sidekicks_number_is_not_touched(machine: Machine) -> None:
    runtime = await machine.server()
    tenant = await machine.make(runtime)
    await runtime.close()
    os.kill(machine.leaks.node(), signal.SIGKILL)
    os.kill(await _pid_in(machine, tenant), signal.SIGKILL)
    with subprocess.Popen(["sleep", "60"]) as innocent:
        try:
            state = machine.data / "run" / "sandboxes" / tenant.id / "sandbox.json"
            state.write_text(json.dumps({**json.loads(state.read_text()), "pid": innocent.pid}))
            again = await machine.server()
            end = await machine.next_end(again, 2)
            assert end is not None
            assert end.reason == "lost"
            assert innocent.poll() is None
        finally:
            innocent.kill()


async def test_a_frozen_sandbox_is_found_frozen_and_can_be_destroyed_or_resumed(machine: Machine) -> None:
    runtime = await machine.server()
    one, other = await machine.make(runtime), await machine.make(runtime)
    for tenant in (one, other):
        await runtime.pause(tenant.id)
        await runtime.pause(tenant.id)
    assert not await one.answers(0.3)
    await machine.kill_node()
    assert all(found.paused for found in await runtime.list())
    await runtime.resume(one.id)
    assert await one.answers()
    started = time.monotonic()
    assert await runtime.destroy(other.id) is not None
    assert time.monotonic() - started < 2


async def test_a_node_that_is_killed_over_a_bake_is_followed_by_the_next_at_once(
    machine: Machine, tmp_path: Path
) -> None:
    runtime = await machine.server()
    tenant = await machine.make(runtime, SandboxSpec(resources=Resources(disk_bytes=200 << 20, inodes=60_000)))
    await tenant.sh("mkdir /opt/d; cd /opt/d; seq 1 30000 | xargs touch")
    baking = asyncio.create_task(runtime.bake(tenant.id, str(tmp_path / "layer")))
    await until(lambda: (tmp_path / "layer").exists(), "it has begun")
    copiers = [pid for pid in children(machine.leaks.node()) if pid not in machine.leaks.processes()]
    started = time.monotonic()
    await machine.kill_node()
    assert await tenant.answers()
    assert await _listed(runtime, {tenant.id})
    assert time.monotonic() - started < 3
    assert not any(map(alive, copiers)), "who copies goes with the node"
    baking.cancel()
    await asyncio.gather(baking, return_exceptions=True)


async def test_a_node_with_a_full_data_folder_makes_nothing_half_and_goes_on(machine: Machine, tmp_path: Path) -> None:
    """The folder of sandboxes is full: what cannot be recorded is not made."""
    runtime = await machine.server()
    tenant = await machine.make(runtime)
    folder = machine.data / "run" / "sandboxes"
    node = machine.leaks.node()
    import resource

    resource.prlimit(node, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # every write to a file now fails
    with pytest.raises(Unavailable):
        await machine.make(runtime)
    os.kill(await tenant.pid(), signal.SIGKILL)
    end = await machine.next_end(runtime)  # told, though it could not be written down
    assert end is not None
    assert end.id == tenant.id
    resource.prlimit(node, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert machine.leaks.node() == node
    again = await machine.make(runtime)
    assert await again.answers()
    assert set(_real(machine.data / "run")) == {again.id}
    (machine.data / "run" / "node.log").write_text("")
    assert folder.is_dir()


async def test_descriptors_of_an_adopting_node_do_not_grow(machine: Machine) -> None:
    runtime = await machine.server()
    tenants = [await machine.make(runtime) for _ in range(4)]
    await machine.kill_node()
    await runtime.list()
    counts: list[int] = []
    for _ in range(3):
        await machine.kill_node()
        await runtime.list()
        await until(lambda: _spares(machine) >= 8, "spares")
        counts.append(sum(descriptors(machine.leaks.node()).values()))
    assert max(counts) - min(counts) < 2 * len(tenants), counts
    assert all([await tenant.answers() for tenant in tenants])


def _spares(machine: Machine) -> int:
    return sum(name.startswith(".spare") for name in os.listdir(machine.data / "run" / "sandboxes"))


async def test_networks_of_living_sandboxes_are_kept_and_stray_links_go(machine: Machine) -> None:
    runtime = await machine.server()
    living = await machine.make(runtime, SandboxSpec(network=NetworkMode.OUTGOING))
    before = (await living.sh("cat /proc/net/route; cat /proc/net/dev")).stdout
    await machine.kill_node()
    await runtime.list()
    assert (await living.sh("cat /proc/net/route")).stdout in before
    await runtime.destroy(living.id)
    prefix = f"at{machine.leaks.mark[:6]}x"
    await until(lambda: _spare_links(prefix), "its link goes, and those of spares stay")


def _spare_links(prefix: str) -> bool:
    return len([name for name in os.listdir("/sys/class/net") if name.startswith(prefix)]) <= 8
