"""Tenants who take as much as they get: stampedes, floods and clocks (R08, R10, R11), through the whole server."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

import httpx2
import pytest

from tests.e2e.conftest import tidy
from tests.e2e.machine import assert_nothing_left, resident_bytes, until
from tests.e2e.server import EXIT, STDERR, STDOUT, Server, messages

QUOTA = 20
MIB = 2**20
GROWTH_MAX = 32 * MIB
SETTINGS = f"""
[limits]
max_sandboxes_per_key = {QUOTA}
[rates]
enabled = false
[sandboxes]
reconcile_s = 0.5
"""


@pytest.fixture(scope="module")
def _strict(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    server = Server(tmp_path_factory.mktemp("strict") / "data", SETTINGS).start()
    yield server
    server.down()
    assert_nothing_left(server.machine)


@pytest.fixture
def strict(_strict: Server) -> Generator[Server]:
    yield _strict
    tidy(_strict)


def test_r10_of_200_creates_at_once_the_quota_succeeds_and_the_rest_is_429(strict: Server) -> None:
    """Twice: what the first stampede gave back is there for the second, to the last one."""
    server = strict
    text = server.new_key()[1]
    for _ in range(2):
        answers = asyncio.run(stampede(server, text, 200))
        assert Counter(answer.status_code for answer in answers) == {201: QUOTA, 429: 200 - QUOTA}
        refused = [answer.json() for answer in answers if answer.status_code == 429]
        assert {answer["code"] for answer in refused} == {"QUOTA_EXCEEDED"}
        assert refused[0]["error"] == f"concurrent session limit reached ({QUOTA}/{QUOTA})"
        made = {answer.json()["id"] for answer in answers if answer.status_code == 201}
        assert server.machine.sandbox_folders() == made
        with server.client(text) as client:
            listed = client.get("/v1/sessions", params={"status": "running"}).json()["sessions"]
            assert {one["id"] for one in listed} == made
            assert client.get("/v1/sessions", params={"status": "failed"}).json()["sessions"] == []
            for sandbox in made:
                assert client.delete(f"/v1/sessions/{sandbox}").status_code == 200
        assert server.machine.sandbox_folders() == set()


async def stampede(server: Server, key: str, count: int) -> list[httpx2.Response]:
    headers = {"authorization": f"Bearer {key}"}
    bounds = httpx2.Limits(max_connections=count)
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=50, limits=bounds) as client:
        body = {"image": "host", "network": "none"}
        return await asyncio.gather(*(client.post("/v1/sessions", json=body) for _ in range(count)))


@pytest.mark.parametrize(
    "command",
    ["yes", "head -c 1G /dev/zero", "sh -c 'yes & yes >&2'", "python3 -c 'import os\nwhile 1: os.write(1, bytes(9))'"],
    ids=["yes", "no newline", "both streams", "small writes"],
)
def test_r08_a_flood_through_http_is_cut_and_says_so(strict: Server, command: str) -> None:
    server = strict
    sandbox = server.create()
    limit = 2 * MIB
    with growth(server) as grown:
        done = server.exec(sandbox, command, timeoutMs=2000, maxOutputBytes=limit)
    assert done["truncated"] is True
    assert len(done["stdout"]) == limit
    assert len(done["stderr"]) == (limit if "both" in command or ">&2" in command else 0)
    assert grown() < GROWTH_MAX


def test_r08_the_largest_answer_is_bounded_in_memory(strict: Server) -> None:
    server = strict
    sandbox = server.create()
    with growth(server) as grown:
        done = server.exec(sandbox, "head -c 1G /dev/zero", encoding="base64")
    assert (done["truncated"], len(done["stdout"])) == (True, (8 * MIB + 2) // 3 * 4)
    assert grown() < 2 * GROWTH_MAX  # the answer itself, and its copies while it is written


@pytest.mark.parametrize("tty", ["false", "true"])
def test_r08_a_flood_through_a_stream_waits_for_its_reader(strict: Server, tty: str) -> None:
    server = strict
    sandbox = server.create()
    stream = server.stream(sandbox, "yes", tty=tty)
    with growth(server) as grown:
        time.sleep(1.0)  # nobody reads: the program waits instead of the server's memory growing
        seen = 0
        for message in messages(stream):
            assert message[0] == STDOUT
            seen += len(message) - 5
            if seen > (20 if tty == "true" else 200) * MIB:
                break
    assert grown() < GROWTH_MAX
    stream.close()


def test_r08_streams_that_nobody_reads_cost_little_each(strict: Server) -> None:
    server = strict
    sandbox = server.create()
    with growth(server) as grown:
        streams = [server.stream(sandbox, "yes") for _ in range(60)]
        time.sleep(1.0)
    for stream in streams:
        stream.socket.shutdown(socket.SHUT_RDWR)  # a close would wait for what comes before the other side's
    assert grown() < len(streams) * 3 * MIB / 4


def test_r08_300_mib_without_a_newline_arrive_whole(strict: Server) -> None:
    server = strict
    sandbox = server.create()
    stream = server.stream(sandbox, "sh", "-c", "head -c 300M /dev/zero; head -c 3M /dev/zero >&2")
    sizes: Counter[int] = Counter()
    with growth(server) as grown:
        for message in messages(stream):
            sizes[message[0]] += len(message) - 5
    assert sizes == {STDOUT: 300 * MIB, STDERR: 3 * MIB, EXIT: 0}
    assert grown() < GROWTH_MAX


def test_r08_output_that_nobody_read_is_kept_up_to_the_ring_and_its_loss_is_told(strict: Server) -> None:
    server = strict
    sandbox = server.create(["sh", "-c", "head -c 50M /dev/zero; echo end; sleep 1000"])
    until(lambda: process(server, sandbox)["outputEnd"] == 50 * MIB + 4)
    kept = process(server, sandbox)
    assert MIB / 2 < kept["outputEnd"] - kept["outputStart"] <= MIB + 65_536
    answer = server.http.get(f"/v1/sessions/{sandbox}/logs")
    assert int(answer.headers["atoll-offset"]) == kept["outputStart"]
    assert answer.content.endswith(b"\0end\n")


def test_r11_idle_and_age_end_a_sandbox_on_time_and_use_keeps_it(strict: Server) -> None:
    server = strict
    idle = server.create(resources={"idleMs": 1000})
    used = server.create(resources={"idleMs": 1000})
    old = server.create(resources={"maxAgeMs": 2500, "timeoutMs": 1500})
    short = server.create(resources={"timeoutMs": 1500})
    began = time.monotonic()
    ended: dict[str, float] = {}
    while time.monotonic() - began < 4.5:
        for sandbox in {idle, used, old, short} - ended.keys():
            if server.session(sandbox)["status"] != "running":
                ended[sandbox] = time.monotonic() - began
        if used not in ended:
            server.exec(used, "true")
        if old not in ended:
            server.http.post(f"/v1/sessions/{old}/keepalive")  # a storm of them cannot pass the age
        time.sleep(0.05)
    assert set(ended) == {idle, old, short}
    for sandbox, limit_s in ((idle, 1.0), (short, 1.5), (old, 2.5)):
        assert limit_s - 0.1 < ended[sandbox] < limit_s + 1.0
    reasons = {name: server.session(name)["reason"] for name in ended}
    assert reasons == {idle: "idle", old: "max_age", short: "timeout"}
    assert server.machine.sandbox_folders() == {used}


def process(server: Server, sandbox: str) -> dict[str, int]:
    return server.http.get(f"/v1/sessions/{sandbox}/processes").json()["processes"][0]


@contextmanager
def growth(server: Server) -> Generator[object]:
    """How much the server's memory grew at most while the block ran; asked for afterwards."""
    before = peak = resident_bytes(server.pid)
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, resident_bytes(server.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: peak - before
    finally:
        over.set()
        thread.join()
