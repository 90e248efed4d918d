"""Many sandboxes at once: what an idle one costs, how the API answers among a thousand, and what they leave."""

from __future__ import annotations

import asyncio
import time
import urllib.request

from atoll import AsyncSandbox, Sandbox
from bench.figures import Report
from bench.machine import Traces, available_bytes, namespaced, parents, pss_bytes
from bench.server import Server

AT_ONCE = 16  # creates and destroys in flight
SETTLE_S = 2.0


def crowd(report: Report, server: Server, *, idle: int, live: int, asks: int) -> None:
    """Weigh `idle` sandboxes, then grow to `live` and ask the API `asks` times, then see that nothing is left."""
    time.sleep(SETTLE_S)  # what is made ahead is there
    traces = Traces.now()
    before = set(parents())
    own = {server.pid, *nodes(server)}
    pss_before = sum(pss_bytes(pid) for pid in own)
    available = available_bytes()
    made = asyncio.run(make(idle))
    try:
        time.sleep(SETTLE_S)
        taken = available - available_bytes()
        theirs = namespaced(set(parents()) - before)
        label = f"an idle sandbox of {idle}: PSS"
        if len(theirs) < idle:  # an ordinary user may not look into them
            report.missing("idle.pss", label, "not measured: needs root")
        else:
            pss = sum(pss_bytes(pid) for pid in theirs | own) - pss_before
            report.value("idle.pss", label, pss / idle / 1e6, "MB", goal="<= 3 MB")
        report.value("idle.available", "... MemAvailable falls by", taken / idle / 1e6, "MB", goal="<= 5 MB")
        began = time.perf_counter()
        made += asyncio.run(make(live - idle))
        rate = (live - idle) / (time.perf_counter() - began)
        report.value("live.make_rate", f"growing to {live} live sandboxes", rate, "per s")
        ask(report, server, made, asks)
    finally:
        began = time.perf_counter()
        asyncio.run(destroy(made))
        report.value("live.destroy", f"destroying {len(made)}", time.perf_counter() - began, "s")
    time.sleep(SETTLE_S)
    left = Traces.now().beyond(traces)
    report.value("live.left", "processes, mounts, cgroups, links left", left, "", goal="0")


def nodes(server: Server) -> set[int]:
    """The server's helper processes on this machine: those that name its data folder, and its children."""
    return {pid for pid, parent in parents().items() if parent == server.pid}


def ask(report: Report, server: Server, made: list[str], asks: int) -> None:
    """Latency of the plainest request and of an exec while all of them live."""
    gets: list[float] = []
    execs: list[float] = []
    for number in range(asks):
        sandbox_id = made[number * len(made) // asks]
        request = urllib.request.Request(
            f"{server.url}/v1/sessions/{sandbox_id}", headers={"Authorization": f"Bearer {server.api_key}"}
        )
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
        gets.append((time.perf_counter() - began) * 1e3)
        sandbox = Sandbox.connect(sandbox_id)
        began = time.perf_counter()
        sandbox.run(["/bin/true"])
        execs.append((time.perf_counter() - began) * 1e3)
    label = f"with {len(made)} live"
    report.times("live.get", f"GET /v1/sessions/{{id}} {label}", gets, goal="<= 20 ms")
    report.times("live.exec", f"exec of /bin/true {label}", execs, against="exec", goal="<= 20 ms")


async def make(count: int) -> list[str]:
    """The ids of `count` new sandboxes."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> str:
        async with gate:
            return (await AsyncSandbox.create(network="none")).id

    return await asyncio.gather(*(one() for _ in range(count)))


async def destroy(ids: list[str]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(sandbox_id: str) -> None:
        async with gate:
            await (await AsyncSandbox.connect(sandbox_id)).kill()

    await asyncio.gather(*(one(sandbox_id) for sandbox_id in ids))
