"""An ordinary user's server: user namespaces only. It does what it can, and says what it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest

import atoll
from tests.e2e.conftest import assert_no_faults
from tests.e2e.machine import assert_nothing_left, running, until
from tests.e2e.server import Server, drain

NOBODY = 65_534
PATHS = [Path(atoll.__file__).parents[1], Path(sysconfig.get_path("purelib"))]


def as_nobody() -> list[str]:
    """How that user runs `atoll`: this Python may lie where only root may go, the system's does not."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    setting = ["env", f"PYTHONPATH={':'.join(map(str, PATHS))}", "PATH=/usr/local/bin:/usr/bin:/bin"]
    for python in (sysconfig.get_path("scripts") + "/python", "/usr/bin/python3"):
        words = [*user, *setting, python, "-s"]
        tried = [*words, "-c", "import atoll.cli.main, uvicorn, httptools, pydantic_core, uvloop"]
        if shutil.which("setpriv") and subprocess.run(tried, capture_output=True, cwd="/").returncode == 0:
            return [*words, "-m", "atoll.cli.main"]
    return []


@pytest.fixture(scope="module")
def _rootless() -> Generator[Server]:
    program = as_nobody()
    if not program:
        pytest.skip("no Python of this version, with our packages, that an ordinary user can run")
    folder = Path(tempfile.mkdtemp(prefix="atoll-rootless-"))
    folder.chmod(0o755)
    server = Server(folder / "data", program=program)
    for path in (folder, server.data):
        os.chown(path, NOBODY, NOBODY)
    (server.data / "server.log").touch()
    os.chown(server.data / "server.log", NOBODY, NOBODY)
    try:
        server.start()
        yield server
        server.down()
        assert_nothing_left(server.machine)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def rootless(_rootless: Server) -> Generator[Server]:
    yield _rootless
    for session in _rootless.sessions("running"):
        _rootless.http.delete(f"/v1/sessions/{session['id']}")
    until(lambda: not _rootless.machine.sandbox_folders())
    assert_no_faults(_rootless)


def test_rootless_runs_programs_and_moves_files(rootless: Server) -> None:
    server = rootless
    assert status(server.pid, "Uid").split() == [str(NOBODY)] * 4
    assert server.cli("run", "--rm", "--", "sh", "-c", "cat; id -u; hostname", stdin=b"in\n").stdout == (
        b"in\n1000\natoll\n"
    )
    sandbox = server.create(["sleep", "1000"])
    path = {"path": "/home/user/deep/er/file"}
    data = os.urandom(2_000_000)
    assert server.http.post(f"/v1/sessions/{sandbox}/files", params=path, content=data).status_code == 201
    assert server.http.get(f"/v1/sessions/{sandbox}/files", params=path).content == data
    server.cli("exec", sandbox, "sh", "-c", "exit 9", code=9)
    stdout, _, code = drain(server.stream(sandbox, "sh", "-c", "test -t 0 && stty size", tty="true", cols=91, rows=17))
    assert (stdout, code) == (b"17 91\r\n", 0)
    done = server.exec(sandbox, "sleep", "100", timeoutMs=300)
    assert done["timedOut"]


def test_rootless_says_what_it_cannot(rootless: Server) -> None:
    server = rootless
    for network in ("outgoing", "exposed"):
        answer = server.http.post("/v1/sessions", json={"image": "host", "network": network})
        assert answer.status_code == 501
        assert answer.json()["code"] == "NOT_IMPLEMENTED"
    sandbox = server.create()
    assert server.http.post(f"/v1/sessions/{sandbox}/pause").status_code == 501
    told = server.cli("doctor", code=0).stdout.decode()
    assert "FAIL" not in told and "tier rootless, isolated; 7 rules of the root tier are not enforced" in told
    assert sum(line.startswith("--") and "not enforced in this tier" in line for line in told.splitlines()) == 7
    report = json.loads(server.cli("doctor", "--json", code=0).stdout)
    assert report["tier"] == "rootless"
    missing = {check["name"]: check["fix"] for check in report["checks"] if not check["ok"]}
    assert {"memory_bounded", "pids_bounded", "cpu_bounded", "outgoing_network"} <= missing.keys()
    assert all(missing.values())


def test_rootless_still_isolates(rootless: Server) -> None:
    server = rootless
    sandbox = server.create()
    for line in (
        "cat /etc/shadow",
        f"ls {server.data}",
        "mount -t tmpfs t /mnt",
        "unshare -U true",
        "echo x > /proc/sys/kernel/core_pattern",
        "mknod /tmp/null c 1 3",
        "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
    ):
        assert server.exec(sandbox, "sh", "-c", line)["exitCode"] != 0, line
    assert server.sh(sandbox, "set -- /proc/[0-9]*; echo $#").strip() == "2"
    assert server.exec(sandbox, "sh", "-c", "head -c 1G /dev/zero > /tmp/full")["exitCode"] != 0
    assert server.sh(sandbox, "rm /tmp/full; echo lives") == "lives\n"
    other = server.create()
    server.sh(sandbox, "touch /tmp/mine")
    assert server.exec(other, "test", "-e", "/tmp/mine")["exitCode"] == 1


def test_rootless_sandboxes_outlive_the_server_and_end_with_down(rootless: Server) -> None:
    server = rootless
    sandbox = server.create(["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"])
    node = server.machine.node()
    server.end(signal.SIGKILL)
    time.sleep(0.5)
    server.start()
    assert server.machine.node() == node
    beats = server.http.get(f"/v1/sessions/{sandbox}/logs").text.split()
    assert beats == [str(number) for number in range(len(beats))]
    assert len(beats) > 8
    os.kill(node, signal.SIGKILL)
    until(lambda: server.machine.node() not in (0, node))
    assert server.sh(sandbox, "echo lives") == "lives\n"
    server.http.delete(f"/v1/sessions/{sandbox}")
    assert server.machine.sandbox_folders() == set()
    assert running(server.pid)


def status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2] for line in lines if line.startswith(f"{name}:"))


def test_rootless_gives_secrets_in_memory(rootless: Server) -> None:
    server = rootless
    server.http.post("/api/secrets", json={"name": "TOKEN", "value": "t0p"})
    use = {"name": "TOKEN", "as": "file"}
    sandbox = server.create(["sh", "-c", "sleep 1000"], secrets=["TOKEN", use])
    assert server.sh(sandbox, "stat -c '%a %u' /run/secrets/TOKEN; cat /run/secrets/TOKEN") == "400 1000\nt0p"
    assert "TOKEN" not in server.sh(sandbox, "env")
    assert server.sh(sandbox, "grep -c '/run/secrets tmpfs rw,nosuid,nodev,noexec' /proc/mounts") == "1\n"
    assert server.sh(sandbox, "echo $TOKEN", secrets=["TOKEN"]) == "t0p\n"
    server.http.delete("/api/secrets/TOKEN")
