"""The Sandbox API on real sandboxes: code, jobs, folders of the host, and terminals that outlive the server."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.e2e.machine import until
from tests.e2e.server import Server
from tests.e2e.test_streams import raw, request
from tests.e2e.test_w04_rfc6455 import BINARY, Peer, ws

LOCAL = {"sandbox_config": {"network": "none"}}


def call(server: Server, method: str, path: str, **how: Any) -> Any:
    answer = server.http.request(method, path, **how)
    assert answer.status_code == 200, answer.text
    return answer.json()


def make(server: Server, **body: Any) -> str:
    return call(server, "POST", "/sandboxes", json={**LOCAL, **body})["sandbox_id"]


def run(server: Server, box: str, command: str, *args: str, **body: Any) -> dict[str, Any]:
    return call(server, "POST", f"/sandboxes/{box}/exec", json={"command": command, "args": list(args), **body})


def reads(socket: ClientConnection, text: bytes) -> bytes:
    seen = b""
    until_s = time.monotonic() + 20
    while text not in seen:
        data = socket.recv(max(0.0, until_s - time.monotonic()))
        assert isinstance(data, bytes)
        seen += data
    return seen


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_code_runs_beside_what_it_imports_and_leaves_nothing(server: Server) -> None:
    box = make(server)
    call(server, "POST", f"/sandboxes/{box}/files", json={"path": "mine.py", "data": "answer = 42"})
    python = "import mine, sys\nprint(mine.answer, len(sys.argv), __file__.endswith('.py'))\nsys.exit(3)"
    for command in ("python", "python3"):
        done = run(server, box, command, "ignored", code=python)
        assert done == {"stdout": "42 1 True\n", "stderr": "", "exit_code": 3}
    assert run(server, box, "python", "-c", "print(1)")["stdout"] == "1\n"
    assert run(server, box, "bash", code="echo $((6 * 7)); exit 2") == {"stdout": "42\n", "stderr": "", "exit_code": 2}
    late = run(server, box, "python", code="import time; time.sleep(60)", timeout=1)
    assert late == {"stdout": "", "stderr": "Execution timed out", "exit_code": late["exit_code"]}
    assert late["exit_code"] < 0 or late["exit_code"] == 143
    listed = [*run(server, box, "sh", "-c", "ls -A | grep atoll; true")["stdout"].split()]
    assert listed == []
    if shutil.which("node"):  # the sandbox has the host's programs
        assert run(server, box, "node", code="console.log(6 * 7)")["stdout"] == "42\n"


def test_c13_a_job_repeats_is_bounded_survives_the_server_and_stops_with_its_tree(mortal: Server) -> None:
    server = mortal
    box = make(server)
    script = "echo run >> log; echo out; [ $(wc -l < log) != 2 ] || exit 5"
    job = call(
        server, "POST", f"/sandboxes/{box}/background", json={"command": "sh", "args": ["-c", script], "interval": 1}
    )["job_id"]

    def told() -> dict[str, Any]:
        return call(server, "GET", f"/sandboxes/{box}/background")["jobs"][0]

    until(lambda: told()["runs"] >= 2, what="two runs")
    server.kill()
    server.start()
    before = told()
    assert (before["job_id"], before["failed"]) == (job, 1)
    until(lambda: told()["runs"] > before["runs"], what="another run")
    assert told()["last_exit_code"] == 0
    assert b"out\n" in server.http.get(f"/v1/sessions/{box}/logs?process={before['process']}").content
    slow = {"command": "sh", "args": ["-c", "(setsid sleep 61 &); sleep 62"], "interval": 1}
    other = call(server, "POST", f"/sandboxes/{box}/background", json=slow)["job_id"]
    count = "pgrep -fx 'sleep 6[12]' | wc -l"
    until(lambda: run(server, box, "sh", "-c", count)["stdout"] == "2\n", what="what the job runs")
    for one in (job, other):
        assert call(server, "DELETE", f"/sandboxes/{box}/background/{one}") == {"stopped": True}
    assert run(server, box, "sh", "-c", count)["stdout"] == "0\n"
    gone = server.http.delete(f"/sandboxes/{box}/background/{job}")
    assert (gone.status_code, gone.json()) == (404, {"detail": "Job not found"})
    assert call(server, "GET", f"/sandboxes/{box}/background") == {"jobs": []}


def test_a_terminal_is_a_real_one_and_the_same_after_a_restart(mortal: Server) -> None:
    server = mortal
    box = make(server)
    path = f"/sandboxes/{box}/terminal?cols=100&rows=30"
    socket = server.socket(path)
    reads(socket, b"$ ")
    socket.send("secret=$((6*7)); cd /tmp; tty; printf '\\033[31mred\\033[0m'\r")
    assert b"/dev/pts/" in reads(socket, b"\x1b[31mred\x1b[0m")
    server.kill()
    server.start()
    socket = server.socket(path)
    assert b"\x1b[31mred" in reads(socket, b"\x1b[0m")  # what it showed
    socket.send("echo still $secret $PWD\r")
    reads(socket, b"still 42 /tmp\r\n")
    socket.send("stty size\r")
    reads(socket, b"30 100\r\n")
    socket.send('{"type":"resize","cols":77,"rows":22}')
    socket.send("until [ \"$(stty size)\" = '22 77' ]; do sleep 0.1; done; echo resi'zed'\r")
    reads(socket, b"resized\r\n")
    socket.send(b"exit 3\r")
    with pytest.raises(ConnectionClosed) as closed:
        reads(socket, b"never")
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "exit 3")


def test_f17_a_folder_of_the_host_is_mounted_and_stays_through_a_restore_and_a_restart(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for name in ("data", "drop"):
        (root / name).mkdir(parents=True)
        (root / name).chmod(0o777)
    (root / "data" / "a").write_text("of the host")
    (root / "out").symlink_to("/etc")
    roots = f'mount_roots = ["{root}", "{root}/drop:rw"]'
    server = new_server(f"[sandboxes]\nspares = 0\n{roots}\n")
    server.start()
    box = make(server)
    for alias in ("data", "drop"):
        body = {"alias": alias, "target": f"{root}/{alias}"}
        assert call(server, "POST", f"/sandboxes/{box}/mount", json=body) == {"success": True}
    for target in ("/", "/etc", str(server.data), f"{root}/out", f"{root}/data/../../x"):
        refused = server.http.post(f"/sandboxes/{box}/mount", json={"alias": "x", "target": target})
        said = {"detail": "Mount target must be under the allowed base directory"}
        assert (refused.status_code, refused.json()) == (403, said), target
    missing = server.http.post(f"/sandboxes/{box}/mount", json={"alias": "x", "target": f"{root}/none"})
    assert (missing.status_code, missing.json()) == (404, {"detail": "Mount target missing"})
    kept = call(server, "POST", "/snapshot/create")["snapshot_id"]
    call(server, "POST", "/snapshot/restore", json={"snapshot_id": kept})
    server.kill()
    server.start()
    assert call(server, "GET", f"/sandboxes/{box}/files/data/a") == {"content": "of the host"}
    assert call(server, "GET", f"/sandboxes/{box}/files?path=data") == {"entries": ["data/a"]}
    assert run(server, box, "cat", "data/a")["stdout"] == "of the host"
    assert run(server, box, "sh", "-c", "echo x > data/b || id -u")["stdout"] == "1000\n"
    assert run(server, box, "sh", "-c", "echo x > drop/b; umount data; rm -rf data; ls data")["stdout"] == "a\n"
    assert (root / "drop" / "b").read_text() == "x\n"
    options = run(server, box, "sh", "-c", "grep ' /workspace/d' /proc/self/mountinfo")["stdout"].splitlines()
    assert [set(line.split()[5].split(",")) >= {"nosuid", "nodev"} for line in options] == [True, True]
    again = server.http.post(f"/sandboxes/{box}/mount", json={"alias": "drop", "target": f"{root}/data"})
    assert again.status_code == 409
    call(server, "DELETE", f"/sandboxes/{box}")
    assert (root / "data" / "a").read_text() == "of the host"


def test_w06_a_reader_that_does_not_read_holds_its_shell_and_no_memory_and_misses_nothing(server: Server) -> None:
    box = make(server)
    socket = server.socket(f"/sandboxes/{box}/terminal")
    socket.send("stty -echo -onlcr; PS1=; echo re'ady'\r")
    reads(socket, b"ready\n")
    before, lines = rss_bytes(server.pid), 3_000_000  # more than the buffers on the way take
    socket.send(f"seq {lines}; echo do'ne'\r")
    time.sleep(0.5)
    assert rss_bytes(server.pid) - before < 8 * 2**20
    assert run(server, box, "pgrep", "-x", "seq")["stdout"]  # it waits
    seen: list[bytes] = []
    while b"done\n" not in b"".join(seen[-2:]):
        data = socket.recv(20)
        assert isinstance(data, bytes)
        seen.append(data)
    expected = b"".join(b"%d\n" % number for number in range(1, lines + 1)) + b"done\n"
    told = b"".join(seen)
    told = told[told.index(b"1\n2\n") : told.rindex(b"done\n")] + b"done\n"  # without what the shell says of pastes
    assert hashlib.sha256(told).digest() == hashlib.sha256(expected).digest()


def test_w06_a_program_that_reads_nothing_holds_who_types_and_no_memory(server: Server) -> None:
    box, typed = make(server), ws(BINARY, b"x" * 65_536)
    with raw(server) as sock:
        sock.sendall(request(server, "GET", f"/sandboxes/{box}/terminal", upgrade=True))
        peer, shown = Peer(sock), b""
        assert peer.head().startswith(b"HTTP/1.1 101")
        # a cooked terminal drops what is too much, and holds nobody
        sock.sendall(ws(BINARY, b"stty raw -echo; echo re'ady'; exec sleep 1000\r"))
        while b"ready\n" not in shown:
            shown += peer.frame()[1]
        before, sent = rss_bytes(server.pid), 0
        sock.settimeout(1.0)
        with pytest.raises(TimeoutError):
            while sent < 64 * 2**20:
                sock.sendall(typed)
                sent += len(typed)
        assert rss_bytes(server.pid) - before < 16 * 2**20
        assert server.http.get("/health").status_code == 200
        assert run(server, box, "pgrep", "-x", "sleep")["stdout"]  # it runs on
