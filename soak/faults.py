"""Faults of the soak: each hits the server as it works; the checks that follow find what it should not have done."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable

from soak.tenant import Tenant
from tests.e2e.machine import running, until
from tests.e2e.server import Server

SLOW_S = 3.0
SLOW_BYTES_MAX = 128 * 2**20  # that the server may grow by meanwhile: others work beside it


def kill_server(server: Server, _tenants: list[Tenant], _rng: random.Random) -> str:
    server.kill()
    server.start()
    return "kill -9 of the server"


def restart_server(server: Server, _tenants: list[Tenant], _rng: random.Random) -> str:
    server.end(signal.SIGTERM)
    server.start()
    return "the server was restarted"


def kill_node(server: Server, _tenants: list[Tenant], _rng: random.Random) -> str:
    node = server.machine.node()
    if node:
        os.kill(node, signal.SIGKILL)
        until(lambda: not running(node) and server.machine.node(), within_s=20, what="another node")
    return "kill -9 of the node"


def kill_sidekick(server: Server, tenants: list[Tenant], rng: random.Random) -> str:
    """Its sandbox ends with it."""
    tenant = rng.choice(tenants)
    with tenant.lock:
        box = tenant.box()
        if box is None:
            return "no sidekick to kill"
        state = server.data / "run" / "sandboxes" / box.id / "sandbox.json"
        try:
            pid = int(json.loads(state.read_text().rstrip())["pid"])
            os.kill(pid, signal.SIGKILL)
        except (OSError, KeyError, ValueError):
            return "the sidekick was gone"
        tenant.forget(box)
    return f"kill -9 of the sidekick of {box.id}"


def slow_reader(server: Server, tenants: list[Tenant], rng: random.Random) -> str:
    """A stream that is opened and not read."""
    tenant = rng.choice(tenants)
    with tenant.lock:
        box = tenant.box()
    if box is None:
        return "no sandbox to be slow with"
    before = memory_bytes(server.pid)
    try:
        stream = server.stream(box.id, "yes", key=tenant.key)
        time.sleep(SLOW_S)
        grown = memory_bytes(server.pid) - before
        stream.close()
    except Exception as error:
        return f"a slow reader that found nobody ({type(error).__name__})"
    if grown > SLOW_BYTES_MAX:
        tenant.findings.add(f"a reader that does not read cost {grown // 2**20} MiB")
    return "a slow reader"


Fault = Callable[[Server, list[Tenant], random.Random], str]
QUIET: tuple[Fault, ...] = (kill_sidekick, slow_reader)  # that leave the server the process that it was
FAULTS: tuple[Fault, ...] = (kill_server, restart_server, kill_node, *QUIET, kill_sidekick)


def memory_bytes(pid: int) -> int:
    """Of its own, resident; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:")), 0)
    except OSError:
        return 0
