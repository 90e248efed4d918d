"""O6: what a tenant or an operator entrusts to the server stands in no log, database, error, metric or title."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from pathlib import Path

from tests.e2e.server import STDIN, STDIN_CLOSE, Server, drain, frame


def canary(name: str) -> str:
    return f"canary-{name}-{secrets.token_hex(12)}"


def test_o6_secrets_are_found_nowhere(server: Server) -> None:
    """Each goes in by a door of its own; then everything that the server wrote or shows is looked through."""
    made, run, streamed = canary("create-env"), canary("exec-env"), canary("stream-env")
    configured = canary("workspace-env")
    typed, uploaded, posted = canary("stdin"), canary("upload"), canary("exec-stdin")
    wrong_key, wrong_field = "sk_" + secrets.token_hex(32), canary("wrong-field")
    key_text = server.new_key()[1]
    sandbox = server.create(["sleep", "1000"], env={"SECRET": made})
    told: list[str] = []

    assert server.sh(sandbox, "printenv SECRET") == f"{made}\n"
    assert server.exec(sandbox, "sh", "-c", "printenv A", env={"A": run})["stdout"] == f"{run}\n"
    assert server.exec(sandbox, "cat", stdin=posted)["stdout"] == posted
    stream = server.stream(sandbox, "cat", env=f"B={streamed}")
    stream.send(frame(STDIN, typed.encode()))
    stream.send(bytes([STDIN_CLOSE]))
    assert drain(stream)[0] == typed.encode()
    answer = server.http.post("/workspaces", json={"name": "w", "sandbox_config": {"env": {"SECRET": configured}}})
    told.append(answer.text)
    workspace = f"/workspaces/{answer.json()['workspace_id']}"
    server.http.patch("/v1/workspaces/w", json={"quotaBytes": 2**24})  # all of its image is looked through
    ran = server.http.post(workspace + "/exec", json={"command": "printenv SECRET"}).json()
    assert ran["stdout"] == f"{configured}\n"
    told += [server.http.get(path).text for path in (workspace, f"/v1/sessions/{ran['sandbox_id']}", "/v1/workspaces")]
    server.http.post(f"/v1/sessions/{sandbox}/files", params={"path": "/tmp/f"}, content=uploaded)
    with server.client(key_text) as client:
        told.append(client.get(f"/v1/sessions/{sandbox}").text)
    for body in (
        {"image": "host", "env": {"A": wrong_field}, "network": wrong_field},
        {"image": "host", "env": {"A" * 10: wrong_field, "": wrong_field}},
        {"image": wrong_field + "\0", "env": [wrong_field]},
        {"image": "host", "command": [wrong_field] * 5000},
        wrong_field,
    ):
        answer = server.http.post("/v1/sessions", json=body)
        assert answer.status_code == 400, answer.text
        if not (isinstance(body, dict) and wrong_field in str(body.get("image"))):
            told.append(answer.text)
    for config in ({"env": {"A": [wrong_field]}}, {"env": wrong_field}, {"network": wrong_field}, wrong_field):
        answer = server.http.post("/workspaces", json={"name": "n", "sandbox_config": config})
        assert answer.status_code == 422, answer.text
        told.append(answer.text)
    for target in (f"/v1/sessions/{sandbox}/exec?cmd=true&env={wrong_field}", f"/v1/sessions?status={wrong_field}"):
        told.append(server.http.get(target).text)
    with server.client(wrong_key) as client:
        answer = client.get("/v1/sessions", headers={"x-request-id": wrong_key, "user-agent": "x"})
        assert answer.status_code == 401
        told += [answer.text, str(answer.headers)]
    told.append(server.http.get(f"/v1/sessions/{sandbox}").text)
    told.append(server.http.get("/v1/sessions").text)
    told += [server.http.get(path).text for path in ("/metrics", "/health", "/openapi.json")]

    secret = [made, run, streamed, configured, typed, uploaded, posted, wrong_key, key_text, server.key]
    assert_nowhere(secret, "\n".join(told), "an answer")
    assert wrong_field not in "\n".join(told)
    server.http.delete(f"/v1/sessions/{sandbox}")
    server.http.delete(f"/v1/sessions/{ran['sandbox_id']}")
    for path in files_of(server):
        assert_nowhere(secret, read(str(path)), str(path))
    for name in filter(str.isdigit, os.listdir("/proc")):
        for part in ("cmdline", "comm"):
            assert_nowhere(secret, read(f"/proc/{name}/{part}"), f"the title of process {name}")
    for pid in (server.pid, server.machine.node()):
        assert_nowhere(secret, read(f"/proc/{pid}/environ"), f"the environment of {pid}")


def test_o6_no_key_and_nothing_of_the_server_is_inside_a_sandbox(server: Server) -> None:
    sandbox = server.create(network="exposed", ports=[{"container": 80}])
    inside = server.sh(
        sandbox, "env; cat /proc/*/environ /proc/*/cmdline /proc/mounts /proc/self/mountinfo | tr '\\0' '\\n'"
    )
    for told in (
        server.key,
        str(server.data),
        "ATOLL_API_KEY",
        str(server.port),
        os.environ.get("PYTHONPATH") or "-none-",
    ):
        assert told not in inside


def test_o6_the_owner_key_is_readable_by_its_owner_alone(server: Server) -> None:
    assert (server.data.stat().st_mode & 0o077, (server.data / "owner.key").stat().st_mode & 0o177) == (0, 0)
    loose = [path for path in server.data.iterdir() if path.is_file() and path.stat().st_mode & 0o077]
    assert [path.name for path in loose if path.name != "server.json"] == []


def test_o6_a_key_that_was_made_is_stored_as_a_hash(server: Server) -> None:
    key_id, text = server.new_key()
    database = sqlite3.connect(f"file:{server.data}/atoll.db?mode=ro", uri=True)
    (row,) = database.execute("SELECT * FROM api_keys WHERE id = ?", (key_id,)).fetchall()
    database.close()
    assert text not in json.dumps(row, default=str)
    assert text[:12] in row


def assert_nowhere(secret: list[str], text: str, where: str) -> None:
    found = [one[:20] for one in secret if one in text]
    assert not found, f"{found} in {where}"


def files_of(server: Server) -> list[Path]:
    """All that the server wrote, but the one file that is meant to hold the key."""
    kept = [path for path in server.data.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in kept if path.name != "owner.key" and "templates" not in path.parts]


def read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("latin-1")
    except OSError:
        return ""
