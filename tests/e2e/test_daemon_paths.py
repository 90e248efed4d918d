"""Every file route of the sidekick API with every kind of path (F01, F02, F06, F07): inside the sandbox, or refused."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

import pytest

from tests.e2e.server import Server
from tests.e2e.test_paths import CANARY, ENCODED, UNFIT, exchange, host_file, looks  # noqa: F401

MIB = 2**20
ABOUT_ANY_PATH = (200, 201, 204, 207, 400, 403, 404, 409)
OPERATIONS = ["look", "read", "exists", "replace", "delete", "list", "write", "batch write", "batch delete"]


@pytest.fixture
def sandbox(server: Server, host_file: Path) -> Generator[str]:  # noqa: F811
    before = looks(host_file)
    yield server.create(workDir="/home/user")
    assert looks(host_file) == before


def ask(server: Server, sandbox: str, operation: str, path: str) -> tuple[int, bytes]:
    """One request with the path exactly as given, byte by byte: in the address, or decoded in the body."""
    base = f"/sb/{sandbox}/files"
    text = unquote_to_bytes(path).decode("utf-8", "surrogateescape")
    methods = {
        "look": ("GET", ""),
        "read": ("GET", "?content=true"),
        "exists": ("HEAD", ""),
        "replace": ("PUT", ""),
        "delete": ("DELETE", ""),
    }
    if operation in methods:
        method, query = methods[operation]
        body = b'{"content":"overwritten"}' if operation == "replace" else b""
        return exchange(server, method, f"{base}/{path}{query}", body)
    if operation == "list":
        return exchange(server, "GET", f"{base}?path={path}")
    sent = {"path": text, "content": "overwritten"}
    if operation == "write":
        return exchange(server, "POST", base, json.dumps(sent).encode("utf-8", "surrogatepass"))
    item = sent | {"operation": operation.removeprefix("batch ")}
    return exchange(server, "POST", f"{base}/batch", json.dumps({"files": [item]}).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_f01_no_path_leads_out(server: Server, sandbox: str, host_file: Path, operation: str) -> None:  # noqa: F811
    for name, encoded in ENCODED.items():
        path = encoded.replace("{host}", str(host_file))
        status, answer = ask(server, sandbox, operation, path)
        assert CANARY.encode() not in answer, name
        assert status in ABOUT_ANY_PATH, (name, status, answer[:300])
        assert b"Traceback" not in answer, name
        if name in UNFIT and name != "empty":
            refused = status == 400 or (status == 207 and b'"success":false' in answer)
            assert refused, (name, status, answer[:300])


def test_f01_a_path_is_decoded_once(server: Server, sandbox: str) -> None:
    server.sh(sandbox, "mkdir -p /tmp/d; echo twice > '/tmp/d/%41'; echo once > /tmp/d/A")
    for spelling in ("/tmp/d/%2541", "%2Ftmp%2Fd%2F%2541", "tmp/d/%2541", "///tmp/d/%2541"):
        assert b'"content":"twice\\n"' in ask(server, sandbox, "read", spelling)[1], spelling
    assert b'"content":"once\\n"' in ask(server, sandbox, "read", "/tmp/d/%41")[1]


def test_a_path_without_a_slash_is_from_the_root_or_else_from_the_work_directory(server: Server, sandbox: str) -> None:
    server.sh(sandbox, "mkdir -p /home/user/tmp; echo work > /home/user/own; echo root > /tmp/both; echo x > tmp/both")
    assert b"work" in ask(server, sandbox, "read", "own")[1]
    assert b"root" in ask(server, sandbox, "read", "tmp/both")[1]
    assert ask(server, sandbox, "replace", "tmp/new")[0] == 200
    assert server.sh(sandbox, "cat /tmp/new") == "overwritten"
    assert ask(server, sandbox, "replace", "fresh/new")[0] == 200
    assert server.sh(sandbox, "cat /home/user/fresh/new") == "overwritten"


def test_f02_links_are_followed_inside_the_sandbox_only(server: Server, sandbox: str, host_file: Path) -> None:  # noqa: F811
    server.sh(
        sandbox,
        f"cd /tmp; ln -s {host_file} out; ln -s {host_file.parent} outdir; ln -s {host_file.parent}/new dangling;"
        f"ln -s out chain; ln -s /proc/self/root{host_file} byroot; ln -s loop2 loop1; ln -s loop1 loop2;"
        "echo mine > inner; ln -s inner good; mkdir keep; touch keep/file; ln -s /tmp/keep todir",
    )
    for link in ("out", "chain", "byroot", "loop1", "outdir/canary", "dangling"):
        status, answer = ask(server, sandbox, "read", f"/tmp/{link}")
        assert status in (400, 403, 404), (link, status)
        assert CANARY.encode() not in answer
    assert b'"content":"mine\\n"' in ask(server, sandbox, "read", "/tmp/good")[1]
    for link in ("out", "dangling", "chain", "byroot", "outdir/new", "loop1"):
        for operation in ("replace", "write", "batch write", "list", "delete"):
            ask(server, sandbox, operation, f"/tmp/{link}")
    assert ask(server, sandbox, "delete", "/tmp/todir")[0] == 204
    assert server.sh(sandbox, "cat /tmp/inner; ls /tmp/keep") == "mine\nfile\n"


def test_f06_what_is_no_file_is_refused_at_once(server: Server, sandbox: str) -> None:
    bind = "import socket; socket.socket(socket.AF_UNIX).bind('/tmp/sock')"
    server.sh(sandbox, f'mkfifo /tmp/fifo; python3 -c "{bind}"')
    began = time.monotonic()
    for path in ("/tmp/fifo", "/tmp/sock", "/dev/zero", "/dev/random", "/proc/version", "/proc/1/mem", "/tmp"):
        assert ask(server, sandbox, "read", path)[0] in (400, 403, 404), path
        assert ask(server, sandbox, "replace", path)[0] in (400, 403, 404, 409), path
    assert time.monotonic() - began < 15


def test_f07_a_file_is_replaced_whole_and_sizes_have_a_bound(server: Server, sandbox: str) -> None:
    path, size = "/tmp/torn", MIB
    write(server, sandbox, path, "a" * size)
    done = threading.Event()

    def again(letter: str) -> None:
        while not done.is_set():
            write(server, sandbox, path, letter * size)

    writers = [threading.Thread(target=again, args=(letter,)) for letter in "ab"]
    for writer in writers:
        writer.start()
    try:
        for _ in range(15):
            content = server.http.get(f"/sb/{sandbox}/files/{path}", params={"content": "true"}).json()["data"][
                "content"
            ]
            assert len(content) == size
            assert len(set(content)) == 1, "torn"
    finally:
        done.set()
        for writer in writers:
            writer.join()
    server.sh(sandbox, "truncate -s 2G /tmp/sparse")
    assert ask(server, sandbox, "read", "/tmp/sparse")[0] == 413
    assert b'"size":2147483648' in ask(server, sandbox, "look", "/tmp/sparse")[1]


def test_f07_an_upload_that_breaks_off_leaves_the_old_file(server: Server, sandbox: str) -> None:
    write(server, sandbox, "/tmp/kept", "old")
    where = urlsplit(server.url)
    head = f"PUT /sb/{sandbox}/files//tmp/kept HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n"
    with socket.create_connection((where.hostname, where.port), timeout=20) as client:
        client.sendall(f'{head}Content-Length: 5000\r\n\r\n{{"content":"new'.encode())
    assert server.sh(sandbox, "cat /tmp/kept; ls -A /tmp | grep -c atoll || true") == "old0\n"


def write(server: Server, sandbox: str, path: str, content: str) -> None:
    body = json.dumps({"content": content}).encode()
    assert exchange(server, "PUT", f"/sb/{sandbox}/files/{quote(path)}", body)[0] == 200
