"""What the sidekick API keeps in sandboxes, on the real runtime: through kill -9 of the server, and through rest."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import Any

from tests.e2e.machine import until
from tests.e2e.server import Server

# It ends when this file is there, with a code of its own.
WEB = "python3 -m http.server $PORT --bind 127.0.0.1 & until [ -e /tmp/end ]; do sleep 0.1; done; rm /tmp/end; exit 7"


def answered(server: Server, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    answer = server.http.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def shown(server: Server, sandbox: str, slug: str = "web") -> dict[str, Any]:
    return answered(server, "GET", f"/sb/{sandbox}/servers/{slug}")["data"]


def run(server: Server, sandbox: str, line: str) -> str:
    return answered(server, "POST", f"/sb/{sandbox}/run/command", {"command": line})["data"]["stdout"]


def test_c01_servers_and_overlays_outlive_atoll_and_wake_with_their_sandbox(mortal: Server) -> None:
    server = mortal
    made = answered(server, "POST", "/v1/sandboxes", {}, 201)["data"]
    sandbox = made["sandboxId"]
    base = f"/sb/{sandbox}"
    run(server, sandbox, "mkdir -p /tmp/template/node_modules/x; echo hello > /tmp/template/index.html")
    health = {"interval_ms": 200, "delay_ms": 0}
    overlay = {"source": "/tmp/template", "target": "site", "strategy": "copy"}
    wanted = {"slug": "web", "start": WEB, "path": "/workspace/site", "port": 3000, "overlay": overlay}
    wanted |= {"restart_policy": "on-failure", "restart_delay_ms": 100, "health_check": health, "install": "echo in"}
    answered(server, "POST", f"{base}/servers", wanted, 201)
    until(lambda: shown(server, sandbox)["status"] == "ready", 20)
    before = shown(server, sandbox)
    assert before["healthy"] is True and run(server, sandbox, "cat site/index.html") == "hello\n"

    answered(server, "POST", f"{base}/servers", {"slug": "stays", "start": "sleep 1000", "depends_on": ["web"]}, 201)
    until(lambda: shown(server, sandbox, "stays")["status"] == "running", 20)
    stays = shown(server, sandbox, "stays")["pid"]

    run(server, sandbox, "(sleep 1; touch /tmp/end) >/dev/null 2>&1 &")
    server.end(signal.SIGKILL)  # one ends while nobody looks
    time.sleep(1.5)
    server.start()
    until(lambda: shown(server, sandbox)["restart_count"] == 1 and shown(server, sandbox)["status"] == "ready", 20)
    assert shown(server, sandbox)["pid"] != before["pid"]
    assert shown(server, sandbox, "stays")["pid"] == stays and shown(server, sandbox, "stays")["restart_count"] == 0

    assert server.http.post(f"/v1/sessions/{sandbox}/suspend").status_code == 200
    assert shown(server, sandbox)["status"] == "stopped"
    run(server, sandbox, "true")  # wakes it
    until(lambda: shown(server, sandbox)["status"] == "ready", 20)
    (copied,) = answered(server, "GET", f"{base}/filesystem/overlays")["overlays"]
    run(server, sandbox, "echo mine > site/own")
    assert server.http.delete(f"{base}/filesystem/overlays/{copied['id']}").status_code == 204
    assert run(server, sandbox, "find site -type f") == "site/own\n"
    assert server.http.delete(f"/v1/sandboxes/{sandbox}").status_code == 200


def test_changes_are_told_to_the_command_line_as_they_happen(server: Server) -> None:
    sandbox = server.create()
    told = server.spawn_cli(
        "watch", sandbox, "/tmp", "--ignore", "*.log", "--count", "2", "--json", stdout=subprocess.PIPE
    )
    try:
        number = 0
        while told.poll() is None:
            number += 1
            server.sh(sandbox, f"touch /tmp/{number}.log /tmp/f{number}; mkdir -p /tmp/d{number}")
            assert number < 100, "nothing is told"
        assert told.stdout is not None
        lines = [json.loads(line) for line in told.stdout]
    finally:
        told.kill()
        told.communicate(timeout=10)
    assert len(lines) == 2 and {line["event"] for line in lines} <= {"add", "addDir"}
    assert not [line for line in lines if line["path"].endswith(".log")]
