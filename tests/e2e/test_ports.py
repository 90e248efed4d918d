"""Exposed ports with what may go wrong behind them (N14): servers that are dead, silent, slow, endless or vanish."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.e2e.machine import open_files, resident_bytes, until
from tests.e2e.server import Server

UPSTREAM = r"""
import socket, sys, threading, time
def serve(port, handle):
    listener = socket.create_server(('127.0.0.1', port), backlog=300)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=handle, args=(client,), daemon=True).start()
def hang(client):
    time.sleep(1000)
def drip(client):
    while True:
        client.sendall(b'.'); time.sleep(0.1)
def endless(client):
    while True:
        client.sendall(bytes(65536))
def echo(client):
    while data := client.recv(65536):
        client.sendall(data)
    client.sendall(b'END'); client.close()
def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1,0,0,0,0,0,0,0])); client.close()
for port, handle in ((1001, hang), (1002, drip), (1003, endless), (1004, echo), (1005, reset)):
    port += 8000
    threading.Thread(target=serve, args=(port, handle), daemon=True).start()
print('ready', flush=True)
time.sleep(1000)
"""
HELD_MAX = 512 * 1024  # of memory, for a connection whose client does not read
DEAD, HANG, DRIP, ENDLESS, ECHO, RESET = 9000, 9001, 9002, 9003, 9004, 9005


class Upstream:
    def __init__(self, server: Server) -> None:
        ports = [{"container": port} for port in range(DEAD, RESET + 1)]
        command = ["python3", "-u", "-c", UPSTREAM]
        self.server = server
        self.id = server.create(command, network="exposed", ports=ports)
        until(lambda: server.http.get(f"/v1/sessions/{self.id}/logs").text == "ready\n", what="listeners inside")
        self._ports = server.session(self.id)["network"]["ports"]

    def connect(self, port: int, kernel_bytes: int = 0) -> socket.socket:
        """`kernel_bytes`: of what is received and not read; 0: as many as the kernel likes, some MiB."""
        where = urlsplit(self._ports[str(port)]["url"])
        assert where.hostname == "127.0.0.1" and where.port is not None
        client = socket.socket()
        if kernel_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kernel_bytes)
        client.settimeout(10)
        try:
            client.connect((where.hostname, where.port))
        except OSError:
            client.close()
            raise
        return client


@pytest.fixture
def upstream(server: Server) -> Generator[Upstream]:
    files = open_files(server.pid)
    yield Upstream(server)
    server.http.delete(f"/v1/sessions/{server.sessions()[0]['id']}")
    until(lambda: open_files(server.pid) <= files + 2, what="descriptors are given back")


def test_n14_a_dead_port_is_told_at_once(upstream: Upstream) -> None:
    began = time.monotonic()
    for port in (DEAD, RESET):
        with upstream.connect(port) as client:
            assert ended(client)
    assert time.monotonic() - began < 2


def test_n14_bytes_and_ends_go_both_ways(upstream: Upstream) -> None:
    data = bytes(range(256)) * 20_000
    with upstream.connect(ECHO) as client:
        sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        sender.start()
        back = b""
        while piece := client.recv(1 << 20):
            back += piece
        sender.join()
    assert back == data + b"END"


def test_n14_silent_slow_and_endless_ones_hold_up_nobody(upstream: Upstream) -> None:
    server = upstream.server
    clients = [upstream.connect(port) for port in (HANG, DRIP, ENDLESS, HANG, ENDLESS) for _ in range(10)]
    try:
        slowest = 0.0
        for _ in range(30):
            began = time.monotonic()
            assert server.http.get("/health").status_code == 200
            with upstream.connect(ECHO) as client:
                client.sendall(b"x")
                assert client.recv(10) == b"x"
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1
        assert clients[15].recv(1) == b"."
    finally:
        for client in clients:
            client.close()


def test_n14_connections_of_one_sandbox_are_bounded(upstream: Upstream) -> None:
    """The 257th is turned away; when one of the others leaves there is room again."""
    clients = [upstream.connect(ECHO) for _ in range(256)]

    def room() -> bool:
        with upstream.connect(ECHO) as client:
            try:
                client.sendall(b"x")
                return client.recv(1) == b"x"
            except OSError:
                return False

    try:
        # A thread for each inside: before the last has come, somebody else would take its place.
        threads = "set -- /proc/*/task/*; echo $#"
        until(lambda: int(upstream.server.sh(upstream.id, threads)) > 256, what="all are there")
        assert not room()
        clients.pop().close()
        until(room)
    finally:
        for client in clients:
            client.close()


def test_n14_clients_that_do_not_read_cost_little_and_are_let_go_with_the_sandbox(upstream: Upstream) -> None:
    server = upstream.server
    files, resident = open_files(server.pid), resident_bytes(server.pid)
    clients = [upstream.connect(ENDLESS, kernel_bytes=4096) for _ in range(100)]
    try:
        until(lambda: open_files(server.pid) >= files + 200, what="all are there")
        for _ in range(20):
            assert resident_bytes(server.pid) - resident < 100 * HELD_MAX
            time.sleep(0.1)
        assert server.http.delete(f"/v1/sessions/{upstream.id}").status_code == 200
        until(lambda: open_files(server.pid) <= files, what="descriptors are given back")
    finally:
        for client in clients:
            client.close()


def test_n14_destroyed_in_the_middle_the_connections_are_cut(upstream: Upstream) -> None:
    server = upstream.server
    clients = [upstream.connect(port) for port in (HANG, DRIP, ENDLESS, ECHO)]
    clients[2].recv(1000)
    assert server.http.delete(f"/v1/sessions/{upstream.id}").status_code == 200
    for client in clients:
        assert ended(client)
        client.close()
    with pytest.raises(ConnectionRefusedError):
        upstream.connect(ECHO)


def test_a_port_is_reached_by_its_owner_through_the_api_and_only_if_declared(server: Server) -> None:
    sandbox = server.create(network="exposed", ports=[{"container": 8000}])
    url = f"/v1/sessions/{sandbox}/url"
    answer = server.http.get(url, params={"port": 8000}).json()
    assert answer["containerPort"] == 8000
    assert answer["url"] == f"http://127.0.0.1:{answer['hostPort']}"
    assert server.http.get(url, params={"port": 8001}).status_code == 404
    for bad in ("0", "65536", "-1", "http", ""):
        assert server.http.get(url, params={"port": bad}).status_code == 400
    with server.client(server.new_key()[1]) as stranger:
        assert stranger.get(url, params={"port": 8000}).status_code == 404


def test_a_web_server_inside_is_fetched_and_answers_many(server: Server) -> None:
    sandbox = server.create(
        ["python3", "-m", "http.server", "8000", "--directory", "/home/user/site"],
        network="exposed", ports=[{"container": 8000}],
    )  # fmt: skip
    page = "x" * 300_000
    server.http.post(f"/v1/sessions/{sandbox}/files", params={"path": "/home/user/site/index.html"}, content=page)
    url = server.session(sandbox)["network"]["ports"]["8000"]["url"]

    def fetch() -> str:
        try:
            return httpx2.get(url, timeout=10).text
        except httpx2.HTTPError:
            return ""

    until(lambda: fetch() == page)
    pages: list[str] = []
    threads = [threading.Thread(target=lambda: pages.append(fetch())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert pages == [page] * 20


def test_all_who_come_while_a_server_wakes_are_answered(server: Server) -> None:
    assert server.http.post("/v1/workspaces", json={"name": "site", "quotaBytes": 2**24}).status_code == 201
    sandbox = server.create(
        ["sh", "-c", "sleep 1; exec python3 -m http.server 8000"],
        network="exposed", ports=[{"container": 8000}], workspace="site",
    )  # fmt: skip
    url = server.session(sandbox)["network"]["ports"]["8000"]["url"]
    session = f"/v1/sessions/{sandbox}"

    def fetch(*, after_s: float = 0.0) -> int:
        time.sleep(after_s)
        return httpx2.get(url, timeout=10).status_code

    with ThreadPoolExecutor(12) as many:
        assert server.http.post(f"{session}/suspend").status_code == 200
        answers = [many.submit(fetch, after_s=after_s) for after_s in (0.0, 0.1, 0.5, 0.8)]
        assert [answer.result() for answer in answers] == [200] * 4
        assert server.http.post(f"{session}/suspend").status_code == 200
        assert server.http.get(f"{session}/url", params={"port": 8000}).status_code == 200  # which wakes it too
        assert list(many.map(lambda _: fetch(), range(12))) == [200] * 12
    assert server.http.delete(session).status_code == 200
    assert server.http.delete("/v1/workspaces/site").status_code == 200


def ended(client: socket.socket) -> bool:
    """Whether the other side closes within seconds, with or without a reset, after what it had to say."""
    client.settimeout(5)
    try:
        while client.recv(1 << 20):
            pass
    except ConnectionError:
        pass
    return True
