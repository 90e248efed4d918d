"""Time to interactive: from the SDK's create call to the first command's output, beside the floor and the peers.

Rounds alternate (floor, Atoll, floor, Atoll, ...), so that whatever the machine does meanwhile hits all of them.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time

from atoll import AsyncSandbox, AtollError, Sandbox
from bench.figures import Report
from bench.peers import why_not
from bench.rounds import Rounds

WARM_UP = 5
BLOCK = 10
STAGGER_S = 0.2
PEERS = {"bubblewrap": 1.0, "crun": 0.5, "docker": 0.2}  # the share of the rounds that each gets
GOALS = {"none": "<= 6 ms, <= 4x", "outgoing": "<= 1.5x"}
KINDS = {  # what the SDK is asked: network mode and first command
    "none": ("none", "echo hi"),
    "outgoing": ("outgoing", "echo hi"),
    "node": ("none", "node -v"),
}


def once(network: str, command: str) -> tuple[float, float]:
    """Milliseconds to the first command's output, and until the sandbox was destroyed."""
    began = time.perf_counter()
    sandbox = Sandbox.create(network=network)
    try:
        result = sandbox.run(command)
        ready = time.perf_counter()
    finally:
        sandbox.kill()
    if result.exit_code or not result.stdout.strip():
        raise RuntimeError(f"{command} did not run: {result}")
    return (ready - began) * 1e3, (time.perf_counter() - began) * 1e3


def sequential(report: Report, n: int) -> None:
    """n rounds of each kind that this host can give, each right after one of the floor; then n in a row.

    Kinds take turns in blocks: what one leaves for the kernel to clean up (a link, say) is not the next one's cost.
    """
    floors: list[list[float]] = []
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    absent: dict[str, str] = {}
    with Rounds("bench.floor") as floor:
        for block in range(max(1, n // BLOCK)):
            for kind, (network, command) in KINDS.items():
                if kind in absent:
                    continue
                try:
                    once(network, command)  # warms up, and shows whether this host can do it
                except AtollError as error:
                    if block or kind == "none":
                        raise
                    absent[kind] = f"not measured: {error}"[:60]
                    continue
                for number in range(min(n, BLOCK) + 1):
                    row, taken = floor.once(), once(network, command)
                    if number:
                        floors.append(row)
                        times[kind].append(taken)
    report.times("floor", "bare floor: make, run /bin/true, destroy", [row[1] for row in floors])
    report.times("floor.to_exit", "... to the end of /bin/true", [row[0] for row in floors])
    for kind, rows in times.items():
        network, command = KINDS[kind]
        label = f"interactive: network {network}, {command}"
        if kind in absent:
            report.missing(kind, label, absent[kind])
            continue
        against = "floor" if kind == "none" else "none"
        report.times(kind, label, [row[0] for row in rows], against=against, goal=GOALS.get(kind, ""))
    report.times("none.cycle", "... with destroy", [row[1] for row in times["none"]], against="floor")
    in_a_row = [once("none", "echo hi")[0] for _ in range(WARM_UP + n)][WARM_UP:]
    report.times("sequential", f"interactive: {n} in a row", in_a_row, against="floor", goal="p99 <= 25 ms")


def peers(report: Report, n: int) -> None:
    """The same done by other tools: to the output of echo, and the whole run with all that it made gone."""
    wanted = {tool: why_not(tool) for tool in PEERS}
    counts = {tool: max(3, int(n * share)) for tool, share in PEERS.items() if not wanted[tool]}
    times: dict[str, list[list[float]]] = {tool: [] for tool in counts}
    with Rounds("bench.peers") as rounds:
        for tool in counts:
            rounds.once(tool)
        for number in range(max(counts.values(), default=0)):
            for tool, count in counts.items():
                if number < count:
                    times[tool].append(rounds.once(tool))
    for tool, reason in wanted.items():
        if reason:
            report.missing(tool, f"{tool}: to the output of echo hi", reason)
            continue
        goal = ">= 30x" if tool == "docker" else ""
        first, whole = zip(*times[tool], strict=True)
        report.times(tool, f"{tool}: to the output of echo hi", first, against="none", goal=goal)
        report.times(f"{tool}.cycle", "... whole run", whole, against="none.cycle")


def staggered(report: Report, n: int) -> None:
    """n sandboxes, one begun every 200 ms whatever the others do."""
    values: list[float] = []
    failures: list[BaseException] = []

    def one() -> None:
        try:
            values.append(once("none", "echo hi")[0])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(n)]
    for thread in threads:
        thread.start()
        time.sleep(STAGGER_S)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    report.times("staggered", f"interactive: {n}, one every 200 ms", values, against="floor")


def burst(report: Report, n: int, repeats: int = 3) -> None:
    """n sandboxes asked for at once: each one's time, and when the last one was interactive."""
    runs = [asyncio.run(one_burst(n)) for _ in range(repeats)]
    every = [value for run in runs for value in run]
    report.times("burst", f"interactive: burst of {n}", every, against="floor")
    last_ms = statistics.median(max(run) for run in runs)
    report.value("burst.last", "... the last one of the burst", last_ms / 1e3, "s", goal="<= 0.6 s")


async def one_burst(n: int) -> list[float]:
    """Milliseconds from the common start to each one's first output."""
    made: list[AsyncSandbox] = []
    began = time.perf_counter()

    async def one() -> float:
        sandbox = await AsyncSandbox.create(network="none")
        made.append(sandbox)
        result = await sandbox.run("echo hi")
        if result.stdout != "hi\n":
            raise RuntimeError(f"echo hi answered {result}")
        return (time.perf_counter() - began) * 1e3

    try:
        return await asyncio.gather(*(one() for _ in range(n)))
    finally:
        await asyncio.gather(*(sandbox.kill() for sandbox in made))
