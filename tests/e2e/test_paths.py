"""Every file endpoint with every kind of path (F01, F02, F06, F07): inside the sandbox's own tree, or refused."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.e2e.machine import resident_bytes, until
from tests.e2e.server import Server

MIB = 2**20
CANARY = f"canary-{secrets.token_hex(16)}"

# Paths as they stand in the URL, already encoded as the attacker would.
ENCODED = {
    "dots": "../../../../../../../../{host}",
    "dots from a folder": "/tmp/../../../../../../..{host}",
    "dots encoded": "%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e{host}",
    "slashes encoded": "..%2f..%2f..%2f..%2f..%2f..{host}",
    "encoded twice": "%252e%252e%252f%252e%252e%252f%252e%252e{host}",
    "backslashes": "..\\..\\..\\..\\..{host}",
    "backslashes encoded": "..%5c..%5c..%5c..{host}",
    "NUL": "{host}%00.txt",
    "NUL in the middle": "/tmp/%00/../../..{host}",
    "overlong dots": "%c0%ae%c0%ae/%c0%ae%c0%ae/%c0%ae%c0%ae{host}",
    "overlong slashes": "..%c0%af..%c0%af..%c0%af..{host}",
    "not UTF-8": "%ff%fe{host}",
    "half a surrogate": "%ed%a0%80{host}",
    "fullwidth dots": "%ef%bc%8e%ef%bc%8e/%ef%bc%8e%ef%bc%8e{host}",
    "double slashes": "//..//..//..//{host}",
    "absolute": "{host}",
    "absolute with dots": "/.././../.{host}",
    "too long": "/tmp/" + "a/" * 2046,
    "name too long": "/tmp/" + "n" * 300,
    "empty": "",
    "by another process's root": "/proc/1/root{host}",
    "by one's own root": "/proc/self/root/../..{host}",
    "by one's own descriptors": "/proc/self/fd/0/../../../..{host}",
    "by one's own folder": "/proc/self/cwd/../../../../..{host}",
    "control characters": "/tmp/%0d%0aSet-Cookie:%20x=y",
    "percent sign alone": "/tmp/100%",
}
BODY_PATHS = ("from", "to")


@pytest.fixture(scope="module")
def host_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the host that nobody may see, and a folder that nobody may write to."""
    folder = tmp_path_factory.mktemp("host")
    folder.chmod(0o777)
    file = folder / "canary"
    file.write_text(CANARY)
    file.chmod(0o666)
    return file


@pytest.fixture
def sandbox(server: Server, host_file: Path) -> Generator[str]:
    """A sandbox; afterwards the host's file and its folder are as they were."""
    before = looks(host_file)
    yield server.create(workDir="/home/user")
    assert looks(host_file) == before


def looks(host_file: Path) -> object:
    status = host_file.stat()
    kept = (status.st_mode, status.st_uid, status.st_mtime_ns, status.st_size)
    return kept, host_file.read_text(), sorted(os.listdir(host_file.parent))


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("operation", ["read", "list", "stat", "write", "mkdir", "delete", "move from", "move to"])
def test_f01_no_path_leads_out(server: Server, sandbox: str, host_file: Path, operation: str, name: str) -> None:
    path = ENCODED[name].replace("{host}", str(host_file))
    status, answer = ask(server, sandbox, operation, path)
    assert CANARY.encode() not in answer
    assert status in (200, 201, 400, 403, 404, 409), (status, answer[:300])
    assert b"Traceback" not in answer
    if name in UNFIT:
        assert status == 400, answer[:300]


UNFIT = (
    "NUL",
    "NUL in the middle",
    "too long",
    "empty",
    "overlong dots",
    "overlong slashes",
    "not UTF-8",
    "half a surrogate",
)


def ask(server: Server, sandbox: str, operation: str, path: str) -> tuple[int, bytes]:
    """One request with the path exactly as given, byte by byte."""
    base = f"/v1/sessions/{sandbox}/files"
    if operation.startswith("move"):
        import json
        from urllib.parse import unquote_to_bytes

        text = unquote_to_bytes(path).decode("utf-8", "surrogateescape")
        other = "/tmp/other"
        body = {"from": text, "to": other} if operation == "move from" else {"from": "/etc/hostname", "to": text}
        return exchange(server, "POST", f"{base}/move", json.dumps(body).encode("utf-8", "surrogatepass"))
    method, more = {
        "read": ("GET", ""),
        "list": ("GET", "&list=true"),
        "stat": ("GET", "&stat=true"),
        "write": ("POST", ""),
        "mkdir": ("POST", "&directory=true"),
        "delete": ("DELETE", "&recursive=true"),
    }[operation]
    body = b"overwritten" if operation == "write" else b""
    return exchange(server, method, f"{base}?path={path}{more}", body)


def exchange(server: Server, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    where = urlsplit(server.url)
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\nConnection: close\r\n"
    with socket.create_connection((where.hostname, where.port), timeout=20) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body)
        answer = b""
        while data := client.recv(65_536):
            answer += data
    return int(answer.split()[1]), answer


def test_f01_paths_in_the_url_itself_are_routes_or_nothing(server: Server, sandbox: str) -> None:
    for target in (
        f"/v1/sessions/{sandbox}/files/../../../../etc/passwd",
        f"/v1/sessions/{sandbox}/../../../etc/passwd",
        "/v1/sessions/..%2f..%2fetc/files?path=passwd",
        f"//v1//sessions/{sandbox}",
        "/docs/../../../../etc/passwd",
        "/static/..%2f..%2fetc%2fpasswd",
    ):
        status, answer = exchange(server, "GET", target)
        assert status in (400, 404), (target, status)
        assert b"root:" not in answer


def test_f02_links_are_followed_inside_the_sandbox_only(server: Server, sandbox: str, host_file: Path) -> None:
    server.sh(
        sandbox,
        f"cd /tmp; ln -s {host_file} out; ln -s {host_file.parent} outdir; ln -s {host_file.parent}/new dangling;"
        f"ln -s out chain; ln -s /proc/self/root{host_file} byroot; ln -s /proc/1/root{host_file.parent} by1;"
        "ln -s loop2 loop1; ln -s loop1 loop2; echo mine > inner; ln -s inner good",
    )
    for link in ("out", "chain", "byroot", "loop1", "outdir/canary", "by1/canary", "dangling"):
        status, answer = ask(server, sandbox, "read", f"/tmp/{link}")
        assert status in (400, 403, 404), (link, status)
        assert CANARY.encode() not in answer
    assert ask(server, sandbox, "read", "/tmp/good")[1].endswith(b"mine\n")
    for link in ("out", "dangling", "chain", "byroot", "outdir/new", "by1/new", "loop1"):
        ask(server, sandbox, "write", f"/tmp/{link}")
        ask(server, sandbox, "mkdir", f"/tmp/{link}/sub")
        ask(server, sandbox, "list", f"/tmp/{link}")
        ask(server, sandbox, "delete", f"/tmp/{link}")
    assert server.sh(sandbox, "cat /tmp/inner") == "mine\n"


def test_f02_removing_a_link_removes_the_link(server: Server, sandbox: str) -> None:
    server.sh(
        sandbox,
        "mkdir -p /tmp/keep/sub; touch /tmp/keep/file; ln -s /tmp/keep /tmp/link; mkdir /tmp/d;"
        "ln -s /tmp/keep /tmp/d/link",
    )
    assert ask(server, sandbox, "delete", "/tmp/link")[0] == 200
    assert ask(server, sandbox, "delete", "/tmp/d")[0] == 200
    assert server.sh(sandbox, "ls /tmp/keep") == "file\nsub\n"


def test_f02_a_link_swapped_while_it_is_used_never_leads_out(server: Server, sandbox: str, host_file: Path) -> None:
    """Time of check, time of use: a program swaps a folder for a link as fast as it can."""
    swap = (
        "import os\n"
        "os.makedirs('/tmp/real', exist_ok=True); open('/tmp/real/canary', 'w').write('inside')\n"
        f"os.symlink({str(host_file.parent)!r}, '/tmp/evil')\n"
        "os.symlink('/tmp/real', '/tmp/l1')\n"
        "while True:\n"
        "    for target in ('/tmp/evil', '/tmp/real'):\n"
        "        os.symlink(target, '/tmp/l2'); os.rename('/tmp/l2', '/tmp/l1')\n"
    )
    server.stream(sandbox, "python3", "-c", swap)
    until(lambda: server.exec(sandbox, "test", "-e", "/tmp/l1")["exitCode"] == 0)
    inside = 0
    for _ in range(150):
        status, answer = ask(server, sandbox, "read", "/tmp/l1/canary")
        assert CANARY.encode() not in answer
        inside += status == 200
        ask(server, sandbox, "write", "/tmp/l1/canary")
    assert inside


@pytest.mark.parametrize(
    "path",
    ["/tmp/fifo", "/tmp/socket", "/dev/zero", "/dev/null", "/dev/tty", "/proc/self/mem", "/dev", "/tmp"],
)
def test_f06_what_is_no_regular_file_is_refused_quickly(server: Server, sandbox: str, path: str) -> None:
    server.sh(
        sandbox,
        "mkfifo /tmp/fifo; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('/tmp/socket')\"",
    )
    began = time.monotonic()
    status, _ = ask(server, sandbox, "read", path)
    assert status in (400, 403, 404)
    ask(server, sandbox, "write", path)
    assert time.monotonic() - began < 2
    assert server.sh(sandbox, "echo not blocked") == "not blocked\n"


def test_f06_proc_files_read_as_what_they_hold(server: Server, sandbox: str) -> None:
    """Their size is 0 and their content is not: either is fine, but it ends."""
    for path in ("/proc/self/status", "/proc/meminfo", "/sys/kernel/mm/transparent_hugepage/enabled"):
        status, _ = ask(server, sandbox, "read", path)
        assert status in (200, 400, 403, 404)
    status, answer = ask(server, sandbox, "read", "/proc/kmsg")  # masked: it would never end
    assert (status, answer.partition(b"\r\n\r\n")[2]) == (200, b"")


def test_f07_sizes_from_nothing_to_gibibytes(server: Server, sandbox: str) -> None:
    assert ask(server, sandbox, "write", "/tmp/f")[0] == 201
    assert exchange(server, "POST", f"/v1/sessions/{sandbox}/files?path=/tmp/empty")[0] == 201
    assert server.sh(sandbox, "stat -c %s /tmp/empty") == "0\n"
    server.sh(sandbox, "truncate -s 2G /tmp/sparse")
    before, size = resident_bytes(server.pid), 0
    with server.http.stream("GET", f"/v1/sessions/{sandbox}/files", params={"path": "/tmp/sparse"}) as answer:
        assert answer.headers["content-length"] == str(2 * 1024 * MIB)
        for piece in answer.iter_raw():
            size += len(piece)
            if size > 700 * MIB:
                break
    assert resident_bytes(server.pid) - before < 32 * MIB


def test_f07_more_than_the_disk_is_refused_and_leaves_the_old_file(server: Server) -> None:
    sandbox = server.create(resources={"diskMB": 20})
    server.sh(sandbox, "printf old > /home/user/f")
    answer = upload(server, sandbox, "/home/user/f", (bytes(MIB) for _ in range(60)))
    assert answer.status_code in (400, 413), answer.text
    assert server.sh(sandbox, "cat /home/user/f; ls -A /home/user | grep -v '^\\.[a-z]*rc$\\|profile'") == "oldf\n"
    declared = exchange_head(server, sandbox, 100 * 1024**3)
    assert declared in (400, 413)


def exchange_head(server: Server, sandbox: str, length: int) -> int:
    """The status of an upload that announces so many bytes and sends none."""
    where = urlsplit(server.url)
    head = f"POST /v1/sessions/{sandbox}/files?path=/tmp/f HTTP/1.1\r\nHost: x\r\n"
    head += f"Authorization: Bearer {server.key}\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection((where.hostname, where.port), timeout=20) as client:
        client.sendall(head.encode())
        return int(client.recv(65_536).split()[1])


def test_f07_concurrent_writers_leave_one_of_their_files(server: Server, sandbox: str) -> None:
    contents = [bytes([65 + number]) * (3 * MIB + number) for number in range(6)]
    over = threading.Event()
    torn: list[bytes] = []

    def watch() -> None:
        with server.client() as client:
            while not over.is_set():
                answer = client.get(f"/v1/sessions/{sandbox}/files", params={"path": "/tmp/f"})
                if answer.status_code == 200 and answer.content not in contents:
                    torn.append(answer.content[:50])

    def write(content: bytes) -> None:
        for _ in range(3):
            assert upload(server, sandbox, "/tmp/f", iter([content])).status_code == 201

    watcher = threading.Thread(target=watch)
    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in (watcher, *writers):
        thread.start()
    for thread in writers:
        thread.join(40)
    over.set()
    watcher.join(10)
    assert not torn
    assert server.http.get(f"/v1/sessions/{sandbox}/files", params={"path": "/tmp/f"}).content in contents
    assert server.sh(sandbox, "ls -A /tmp") == "f\n"


def test_f07_an_upload_that_breaks_off_leaves_the_old_file(server: Server, sandbox: str) -> None:
    server.sh(sandbox, "mkdir /tmp/d; printf old > /tmp/d/f")
    where = urlsplit(server.url)
    for announced in ("Content-Length: 5000000", "Transfer-Encoding: chunked"):
        head = f"POST /v1/sessions/{sandbox}/files?path=/tmp/d/f HTTP/1.1\r\nHost: x\r\n"
        head += f"Authorization: Bearer {server.key}\r\n{announced}\r\n\r\n"
        with socket.create_connection((where.hostname, where.port), timeout=20) as client:
            client.sendall(head.encode() + (b"100000\r\n" if "chunked" in announced else b"") + bytes(2**20))
            until(lambda: server.sh(sandbox, "ls -A /tmp/d | wc -l") == "2\n", what="it has begun")
        until(lambda: server.sh(sandbox, "ls -A /tmp/d") == "f\n", what="what was begun is gone")
        assert server.sh(sandbox, "cat /tmp/d/f") == "old"


def upload(server: Server, sandbox: str, path: str, pieces: Any) -> Any:
    with server.client() as client:
        return client.post(f"/v1/sessions/{sandbox}/files", params={"path": path}, content=pieces)


def test_odd_names_go_in_and_out(server: Server, sandbox: str) -> None:
    for name in ("ünïcode", "with space", "new\nline", "-rf", "a%2fb", "quote'\"", "☃" * 80, "&amp;?#", "back\\slash"):
        path = f"/tmp/odd/{name}"
        assert upload(server, sandbox, path, iter([name.encode()])).status_code == 201, name
        answer = server.http.get(f"/v1/sessions/{sandbox}/files", params={"path": path})
        assert answer.content == name.encode()
        assert "\n" not in str(answer.headers.get("content-disposition", ""))
    listed = server.http.get(f"/v1/sessions/{sandbox}/files?path={quote('/tmp/odd')}&list=true").json()["entries"]
    assert len(listed) == 9
