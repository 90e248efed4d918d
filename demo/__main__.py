"""`make demo`: a server, a sandbox, a program in it, its output, its files, its page; a workspace; a user; an agent."""

from __future__ import annotations

import re
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from atoll import AtollError, Sandbox, Workspace
from atoll.domain.errors import Unsupported
from bench.server import server
from demo.agents import agents, stand_in
from demo.people import people
from demo.steps import Steps

PROGRAM = Path(__file__).with_name("mandelbrot.py")
FOLDER = "/tmp/demo"
PORT = 8000
PAGE_TIMEOUT_S = 10.0
MORE = 20
WHAT_IT_SEES = (
    'echo "user      $(id -u)"; echo "host name $(hostname)"; echo "processes $(ls -d /proc/[0-9]* | wc -l)";'
    ' echo "network   $(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d "\\n")"; ls -d /root/* 2>&1 | head -1'
)


def make(steps: Steps) -> tuple[Sandbox, bool]:
    """A sandbox with a port, and True; where this host cannot give it a network, one without, and False."""
    try:
        with steps.step("make an isolated sandbox with one port open"):
            return Sandbox.create(network="exposed", ports=[PORT]), True
    except Unsupported as error:
        steps.console.print(f"[yellow]--[/]  {escape(str(error))}")
    with steps.step("make an isolated sandbox without a network"):
        return Sandbox.create(network="none"), False


def fetch(url: str) -> str:
    """The page, as soon as the program that serves it is up."""
    until = time.monotonic() + PAGE_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=PAGE_TIMEOUT_S) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def fetch_inside(sandbox: Sandbox, url: str) -> str:
    """The page as the sandbox itself sees it."""
    get = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=5).read().decode())"
    until = time.monotonic() + PAGE_TIMEOUT_S
    while True:
        result = sandbox.run(["python3", "-c", get], timeout=PAGE_TIMEOUT_S)
        if result.ok or time.monotonic() > until:
            return result.stdout


def tour(steps: Steps, sandbox: Sandbox, reachable: bool) -> None:
    """What the demo shows of one sandbox."""
    show = steps.console.print
    with steps.step("run the first command in it"):
        sandbox.run("echo hi", check=True)
    show(Panel(escape(sandbox.run(WHAT_IT_SEES).stdout.rstrip()), title="what a program in it sees", expand=False))

    with steps.step("copy a program into it"):
        sandbox.files.upload(PROGRAM, f"{FOLDER}/{PROGRAM.name}")
    with steps.step("run the program"):
        result = sandbox.run(["python3", PROGRAM.name], cwd=FOLDER, check=True)
    show(Panel(escape(result.stdout.rstrip()), title="its output", expand=False))

    with steps.step("list the files that it made"):
        entries = sandbox.files.list(f"{FOLDER}/site")
    files = "\n".join(f"{entry.size:>6} bytes  {entry.name}" for entry in entries)
    show(Panel(escape(files), title=f"its files in {FOLDER}/site", expand=False))

    argv = ["python3", "-m", "http.server", str(PORT), "--bind", "127.0.0.1", "--directory", f"{FOLDER}/site"]
    with sandbox.exec(argv, stdin=False):
        url = sandbox.url(PORT) if reachable else f"http://127.0.0.1:{PORT}/"
        with steps.step(f"fetch its web page from {'outside' if reachable else 'inside'}"):
            page = fetch(url) if reachable else fetch_inside(sandbox, url)
    title = re.search(r"<title>(.*?)</title>", page)
    drawn = re.search(r"<p>(.*?)</p>", page)
    if title is None or drawn is None:
        raise RuntimeError(f"this is not the page that the program wrote: {page[:200]}")
    show(Panel(escape(f"{title[1]}\n{drawn[1]}"), title=f"its web page, {url}", expand=False))

    with steps.step("end it"):
        sandbox.kill()
    remember(steps)
    with steps.step(f"make {MORE} more, one after another, hear an echo from each, end them"):
        median = median_ms(MORE)
    show(f"    the median of them took [bold]{median:.1f} ms[/] to its echo")


def remember(steps: Steps) -> None:
    """A workspace that outlives its sandboxes, and a change of it taken back."""
    with steps.step("make a workspace, and write to it in a sandbox that ends"):
        workspace = Workspace.create("demo")
        in_a_sandbox(workspace, "printf 'one\\ntwo\\n' > notes.txt")
        workspace.commit()
    with steps.step("find that in another sandbox, and spoil it"):
        found = in_a_sandbox(workspace, "cat notes.txt; echo oops > notes.txt")
        workspace.commit()
    with steps.step("undo the change"):
        workspace.undo()
    kept = workspace.read("notes.txt").decode()
    if found != kept:
        raise RuntimeError(f"the workspace has {kept!r}, not what was written: {found!r}")
    lines = [f"{one.number}  {one.reason:<8} {one.entries - 1} file(s)" for one in reversed(workspace.log())]
    text = f"notes.txt again: {kept.split()}\nits revisions:\n" + "\n".join(lines)
    steps.console.print(Panel(escape(text), title="the workspace remembers", expand=False))


def in_a_sandbox(workspace: Workspace, script: str) -> str:
    """What the script says, in a sandbox of its own with the workspace as its current folder."""
    with Sandbox.create(workspace=workspace) as sandbox:
        return sandbox.run(script, cwd="/workspace", check=True).stdout


def median_ms(count: int) -> float:
    """The median time from asking for a sandbox to its first output, of so many."""
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        with Sandbox.create() as sandbox:
            sandbox.run("echo hi", check=True)
            times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


@contextmanager
def begun() -> Iterator[float]:
    """The moment."""
    yield time.perf_counter()


def main() -> int:
    """0 when every step worked; the server and all it had are gone either way."""
    console = Console(highlight=False)
    steps = Steps(console)
    console.print("[bold]Atoll[/]: a computer in milliseconds\n")
    try:
        with stand_in() as codex, begun() as began, server() as up:
            steps.times.append(("start a server", (time.perf_counter() - began) * 1e3))
            console.print(f"[green]ok[/]  a server on {up.url}  [bold]{steps.times[0][1]:.1f} ms[/]")
            sandbox, reachable = make(steps)
            with sandbox:
                tour(steps, sandbox, reachable)
            agents(steps, up, *people(steps, up), codex=codex)
            ending = time.perf_counter()
        steps.times.append(("stop the server, leaving nothing", (time.perf_counter() - ending) * 1e3))
    except (AtollError, OSError, RuntimeError) as error:
        console.print(f"[red]the demo failed:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        console.print("stopped, and nothing of it is left")
        return 130
    console.print(steps.table())
    console.print("Now yours, after [bold]. .venv/bin/activate[/] in each terminal:")
    console.print("[bold]atoll up[/] in one, [bold]atoll run -it -- bash[/] in another.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
