"""C07: what bears this server's label and has no record goes after a grace; what does not bear it is never touched."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import needs_root
from tests.e2e.machine import running, until
from tests.e2e.server import Server

pytestmark = [pytest.mark.root, needs_root]


def test_c07_a_sandbox_without_a_record_is_destroyed_after_its_grace(mortal: Server) -> None:
    server = mortal
    forgotten = server.create(["sleep", "1000"], network="exposed", ports=[{"container": 80}])
    kept = server.create(["sleep", "1000"])
    server.kill()
    forget(server, forgotten)
    server.start()
    assert server.machine.sandbox_folders() == {forgotten, kept}, "no grace at all"
    until(lambda: server.machine.sandbox_folders() == {kept})
    assert len(server.machine.links()) <= server.machine.spares()
    assert server.sh(kept, "echo lives") == "lives\n"
    assert server.http.get(f"/v1/sessions/{forgotten}").status_code == 404


def test_c07_a_record_without_a_sandbox_gets_an_honest_end(mortal: Server) -> None:
    """Its cgroup was killed by somebody else while nobody looked."""
    server = mortal
    sandbox = server.create(["sleep", "1000"])
    pid = server.machine.node()
    server.kill()
    (main,) = sleepers(server)
    os.kill(parent(main), signal.SIGKILL)
    server.start()
    until(lambda: server.session(sandbox)["status"] == "failed")
    assert server.session(sandbox)["reason"] == "lost"
    assert server.machine.node() == pid


def test_c07_killing_node_or_sidekick_is_recorded_within_seconds(mortal: Server) -> None:
    server = mortal
    lost, kept = server.create(["sleep", "1001"]), server.create(["sleep", "1002"])
    (main,) = [pid for pid in sleepers(server) if "1001" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(parent(main), signal.SIGKILL)
    until(lambda: server.session(lost)["status"] == "failed", within_s=3)
    node = server.machine.node()
    os.kill(node, signal.SIGKILL)
    until(lambda: server.machine.node() not in (0, node), within_s=5)
    assert server.sh(kept, "echo lives") == "lives\n"
    assert server.session(kept)["status"] == "running"
    fresh = server.create()
    assert server.sh(fresh, "echo new") == "new\n"


def test_c07_stray_groups_of_ours_go_and_those_of_others_stay(mortal: Server) -> None:
    server = mortal
    node = server.machine.node()
    top = f"/sys/fs/cgroup/pids/{server.machine.name}"
    server.kill()
    os.kill(node, signal.SIGKILL)
    until(lambda: server.machine.node() == 0)
    others = "/sys/fs/cgroup/pids/atoll-of-somebody-else"
    with in_group(f"{top}/777-7-7") as ours, in_group(others) as theirs:
        server.start()
        until(lambda: ours.poll() is not None, what="the stray process is killed")
        until(lambda: not os.path.exists(f"{top}/777-7-7"))
        time.sleep(2.0)  # beyond the grace, several passes
        assert running(theirs.pid)
        assert os.path.isdir(others)


def test_c07_servers_side_by_side_leave_each_other_alone(mortal: Server, tmp_path: Path) -> None:
    server = mortal
    ours = server.create(["sleep", "1000"], network="exposed", ports=[{"container": 80}])
    other = Server(tmp_path / "other").start()
    try:
        theirs = other.create(["sleep", "1000"], network="exposed", ports=[{"container": 80}])
        server.kill()
        server.start()
        assert other.sh(theirs, "echo lives") == "lives\n"
    finally:
        other.down()
    assert not other.machine.traces()
    assert server.sh(ours, "echo lives") == "lives\n"
    assert server.machine.links()
    assert server.machine.tables()
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1", "the other server's end took it away"


def forget(server: Server, sandbox: str) -> None:
    database = sqlite3.connect(server.data / "atoll.db")
    with database:
        database.execute("DELETE FROM sandboxes WHERE id = ?", (sandbox,))
    database.close()


def sleepers(server: Server) -> list[int]:
    return [pid for pid in server.machine.processes() if b"sleep\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def in_group(folder: str) -> Generator[subprocess.Popen[bytes]]:
    """A process of this test's own in a cgroup of that name."""
    os.mkdir(folder)
    process = subprocess.Popen(["sleep", "60"])
    Path(f"{folder}/cgroup.procs").write_text(str(process.pid))
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if os.path.exists(folder):
            until(lambda: not Path(f"{folder}/cgroup.procs").read_text())
            os.rmdir(folder)
