"""A16: a secret is in the process that it was given to and in nothing else: not in what is stored, told or logged."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from tests.e2e.machine import until
from tests.e2e.server import Server

PATH = "/api/secrets"


def canary(name: str) -> str:
    return f"canary-{name}-{secrets.token_hex(12)}"


def put(server: Server, name: str, value: str) -> str:
    answer = server.http.post(PATH, json={"name": name, "value": value})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def drop(server: Server) -> None:
    for one in server.http.get(PATH).json()["secrets"]:
        server.http.delete(f"{PATH}/{one['id']}")


def assert_nowhere(canaries: list[str], data: bytes, where: str) -> None:
    for one in canaries:
        for written in (one.encode(), base64.b64encode(one.encode()).rstrip(b"=")[:-1], one.encode().hex().encode()):
            assert written not in data, f"{one[:16]} in {where}"


def assert_clean(server: Server, canaries: list[str]) -> None:
    """In no file of the server's, in no title and in no environment of it or the node; neither writes a core."""
    for path in server.data.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert_nowhere(canaries, path.read_bytes(), str(path))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for part in ("cmdline", "comm"):
            assert_nowhere(canaries, _read(f"/proc/{pid}/{part}"), f"the title of {pid}")
    for process in (server.pid, server.machine.node()):
        assert_nowhere(canaries, _read(f"/proc/{process}/environ"), f"the environment of {process}")
        core = re.search(rb"Max core file size +(\d+|unlimited)", _read(f"/proc/{process}/limits"))
        assert core is not None and core[1] in (b"0", b"1")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def main_output(server: Server, sandbox: str, done: Callable[[str], bool]) -> str:
    def text() -> str:
        return server.http.get(f"/v1/sessions/{sandbox}/logs").text

    until(lambda: done(text()), what="the main process writes")
    return text()


def test_a16_a_secret_is_in_its_process_alone(server: Server) -> None:
    """As a variable, as a file, at creation, of a command and of a stream; then everything is looked through."""
    values = {name: canary(name.lower()) for name in ("MAIN", "FILE", "RUN", "RUN_FILE", "IDLE")}
    for name, value in values.items():
        put(server, name, value)
    told: list[str] = []
    sandbox = server.create(
        # what it writes is the hash, so that no log of its output has the value
        ["sh", "-c", 'echo "$MAIN" | sha256sum; sha256sum < /run/secrets/FILE; sleep 1000'],
        secrets=["MAIN", {"name": "FILE", "as": "file"}],
    )
    seen = main_output(server, sandbox, lambda text: text.count("\n") == 2)
    assert seen.split()[::2] == [_sha(values["MAIN"] + "\n"), _sha(values["FILE"])]
    uses = ["RUN", {"name": "RUN_FILE", "as": "file", "path": "/run/secrets/r"}]
    done = server.exec(sandbox, "sh", "-c", 'echo "$RUN" | sha256sum; sha256sum < /run/secrets/r', secrets=uses)
    assert done["stdout"].split()[::2] == [_sha(values["RUN"] + "\n"), _sha(values["RUN_FILE"])]
    idle = server.create(secrets=["IDLE"])
    assert server.sh(idle, 'echo "$IDLE" | sha256sum').split()[0] == _sha(values["IDLE"] + "\n")

    # other processes have none in their environment, and the files are their user's alone
    other = server.sh(sandbox, "env; ls -ln /run/secrets; ls -lnd /run/secrets; grep ' /run/secrets ' /proc/mounts")
    assert_nowhere(list(values.values()), other.encode(), "another command")
    assert other.count("-r--------") == 2 and "drwx------" in other
    assert "/run/secrets tmpfs rw,nosuid,nodev,noexec" in other
    assert "ulimit" not in other and server.sh(sandbox, "ulimit -c").strip() in ("0", "1")  # no core of it

    for path in (f"/v1/sessions/{sandbox}", f"/v1/sessions/{sandbox}/processes", "/v1/sessions", PATH, "/metrics"):
        told.append(server.http.get(path).text)
    for body in (
        {"secrets": ["MAIN"], "env": {"MAIN": "1"}},
        {"secrets": [{"name": "MAIN", "env": "a b"}]},
        {"secrets": [{"name": "FILE", "as": "file", "path": "/etc/passwd"}]},
    ):
        answer = server.http.post("/v1/sessions", json={"image": "host", "network": "none", "command": ["true"]} | body)
        assert answer.status_code == 400, answer.text
        told.append(answer.text)
    told.append(server.cli("secrets", "list").stdout.decode())
    told.append(server.cli("secrets", "list", "--json").stdout.decode())
    told.append(server.cli("ps", "--json").stdout.decode())
    assert_nowhere(list(values.values()), "\n".join(told).encode(), "an answer")
    assert_clean(server, list(values.values()))
    for one in (sandbox, idle):
        server.http.delete(f"/v1/sessions/{one}")
    assert_clean(server, list(values.values()))
    drop(server)


def test_a16_no_snapshot_revision_template_or_archive_has_it(server: Server, tmp_path: Path) -> None:
    value = canary("kept")
    put(server, "KEPT", value)
    server.http.post("/v1/workspaces", json={"name": "a16", "quotaBytes": 2**24})
    sandbox = server.create(
        ["sleep", "1000"],
        workspace="a16",
        setup=["env > /opt/setup-env; ls -la /run/secrets > /opt/setup-secrets"],
        secrets=["KEPT", {"name": "KEPT", "as": "file"}],
    )
    baked = server.sh(sandbox, "cat /opt/setup-env /opt/setup-secrets")
    assert "KEPT" not in baked  # neither its name nor its value was there while the template was made
    server.sh(sandbox, "sha256sum /run/secrets/KEPT > /workspace/sum")
    made = server.http.post("/v1/workspaces/a16/snapshots", json={"name": "s"})
    assert made.status_code == 201, made.text
    assert server.cli("workspace", "export", "a16", str(tmp_path / "a.tar.zst")).returncode == 0
    assert_nowhere([value], (tmp_path / "a.tar.zst").read_bytes(), "the archive")
    assert_clean(server, [value])
    server.http.delete(f"/v1/sessions/{sandbox}")
    server.http.delete("/v1/workspaces/a16")
    drop(server)


def test_a16_rest_and_rotation_give_the_present_value_again(server: Server) -> None:
    old, new = canary("old"), canary("new")
    secret = put(server, "TURN", old)
    server.http.post("/v1/workspaces", json={"name": "turn", "quotaBytes": 2**24})
    sandbox = server.create(
        ["sh", "-c", 'echo "$TURN" | sha256sum; sha256sum < /run/secrets/TURN; sleep 1000'],
        workspace="turn",
        secrets=["TURN", {"name": "TURN", "as": "file"}],
    )
    main_output(server, sandbox, lambda text: text.count("\n") == 2)
    assert server.http.put(f"{PATH}/{secret}", json={"value": new}).status_code == 200
    assert server.http.post(f"/v1/sessions/{sandbox}/suspend").status_code == 200
    assert_clean(server, [old, new])
    assert server.http.post(f"/v1/sessions/{sandbox}/resume").status_code == 200
    seen = main_output(server, sandbox, lambda text: text.count("\n") == 4)
    assert seen.split()[::2] == [_sha(old + "\n"), _sha(old), _sha(new + "\n"), _sha(new)]
    assert server.sh(sandbox, "ls /run/secrets") == "TURN\n"

    assert server.http.post(f"/v1/sessions/{sandbox}/suspend").status_code == 200
    assert server.http.delete(f"{PATH}/{secret}").status_code == 200
    refused = server.http.post(f"/v1/sessions/{sandbox}/resume")
    assert refused.status_code == 409 and "TURN" in refused.text, refused.text
    assert server.session(sandbox)["suspended"] is True
    assert_clean(server, [old, new])
    server.http.delete(f"/v1/sessions/{sandbox}")
    server.http.delete("/v1/workspaces/turn")


def test_a16_a_restart_of_the_server_leaves_processes_their_secrets_and_gives_more(mortal: Server) -> None:
    server, value = mortal, canary("restart")
    put(server, "AGAIN", value)
    sandbox = server.create(["sh", "-c", "sleep 1000"], secrets=[{"name": "AGAIN", "as": "file"}])
    server.kill()
    server.start()
    assert server.sh(sandbox, "sha256sum < /run/secrets/AGAIN").split()[0] == _sha(value)
    done = server.exec(sandbox, "sh", "-c", 'echo "$AGAIN" | sha256sum', secrets=["AGAIN"])
    assert done["stdout"].split()[0] == _sha(value + "\n")
    assert_clean(server, [value])
    server.http.delete(f"/v1/sessions/{sandbox}")
    drop(server)


def test_a16_the_command_line_takes_a_value_by_its_input_alone(server: Server) -> None:
    value = canary("typed")
    server.cli("secrets", "set", "TYPED", "--host", "api.example.org", stdin=f"{value}\n".encode())
    script = 'echo "$X" | sha256sum; sha256sum < /run/secrets/y'
    done = server.cli(
        "run", "--rm", "--secret", "TYPED=X", "--secret", "TYPED=/run/secrets/y", "--", "sh", "-c", script
    )
    assert done.stdout.decode().split()[::2] == [_sha(value + "\n"), _sha(value)]
    assert server.cli("secrets", "set", "TYPED", value, code=None).returncode != 0
    assert server.cli("secrets", "set", "EMPTY", stdin=b"\n", code=None).returncode != 0
    assert b"TYPED" in server.cli("secrets", "list").stdout
    assert server.cli("secrets", "delete", "TYPED").stdout == b"TYPED\n"
    assert_clean(server, [value])


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
