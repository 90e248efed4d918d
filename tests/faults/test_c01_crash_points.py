"""C01: the server is killed at every crash point that an operation reaches, started again, and must be whole.

`CASES` names them all: a point in the registry that is in no case fails, and a case whose point is not reached fails.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable

import httpx2
import pytest

from atoll.domain.crash import POINTS
from tests.e2e.conftest import CRASH_AT, needs_root
from tests.e2e.machine import until
from tests.e2e.server import Server

pytestmark = [pytest.mark.root, needs_root]

WRITES = ("records.write.before_commit", "records.write.after_commit")
CASES: dict[str, tuple[str, ...]] = {
    "create": ("sandboxes.create.recorded", "sandboxes.create.made", "sandboxes.create.running", *WRITES),
    "create once": ("idempotency.begun", "idempotency.done", "idempotency.answered"),
    "create with setup": ("templates.build.baked", "templates.build.renamed"),
    "stop": ("sandboxes.stop.recorded", "sandboxes.stop.signalled", "sandboxes.stop.destroyed", *WRITES),
    "kill": ("sandboxes.end.recorded", "sandboxes.end.destroyed", *WRITES),
    "exit": ("sandboxes.exit.saved", "sandboxes.end.recorded", "sandboxes.end.destroyed", *WRITES),
    "first start": (
        "records.migrate.begun",
        "records.migrate.stepped",
        "records.migrate.done",
        "keys.mint.written",
        *WRITES,
    ),
    "suspend": ("sandboxes.suspend.recorded", "sandboxes.suspend.destroyed"),
    "resume": ("sandboxes.resume.recorded",),
    "key create": WRITES,
    "key revoke": WRITES,
}
UNDONE = "records.write.before_commit"
CONTAINER_PORT = 8000


def at(operation: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("point", CASES[operation])


def test_c01_each_registered_point_is_in_a_case() -> None:
    # the others have files of their own: test_c01_*.py, tests/services/workspaces, tests/services/agents, tests/blobs,
    # tests/objects
    elsewhere = ("workspaces.", "blobs.", "backup.", "ledger.", "tasks.", "agents.", "objects.", "marketplace.")
    here = {point for point in POINTS if not point.startswith(elsewhere)}
    assert {point for points in CASES.values() for point in points} == here


@at("create")
def test_c01_create(mortal: Server, point: str) -> None:
    server = mortal
    known = {one["id"] for one in server.sessions()}

    def create() -> None:
        ports = [{"container": CONTAINER_PORT}]
        server.create(["sleep", "1000"], network="exposed", ports=ports)

    die_at(server, point, create)
    made = [one for one in server.sessions() if one["id"] not in known]
    if point == UNDONE:
        assert made == []
    else:
        assert len(made) == 1
        until(lambda: server.session(made[0]["id"])["status"] in ("running", "failed"))
    for one in made:
        if server.session(one["id"])["status"] == "running":
            assert server.http.get(f"/v1/sessions/{one['id']}/url", params={"port": CONTAINER_PORT}).status_code == 200
        else:
            assert server.session(one["id"])["reason"] == "interrupted"
    assert_whole(server)


@at("create once")
def test_b03_c01_a_request_with_a_key_has_no_second_effect_after_a_crash(mortal: Server, point: str) -> None:
    server = mortal
    known = {one["id"] for one in server.sessions()}

    def create() -> httpx2.Response:
        body = {"image": "host", "network": "none", "command": ["sleep", "1000"]}
        return server.http.post("/v1/sessions", json=body, headers={"Idempotency-Key": point})

    die_at(server, point, create)
    again = create()
    made = [one["id"] for one in server.sessions() if one["id"] not in known]
    if point == "idempotency.begun":
        assert made == []
    else:
        [sandbox] = made
        assert server.session(sandbox)["status"] == "running"
    if point == "idempotency.answered":
        assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
        assert [again.json()["id"]] == made
    else:
        assert (again.status_code, again.json()["code"]) == (409, "IDEMPOTENCY_UNDECIDED")
        assert create().status_code == 409
    assert_whole(server)


@at("create with setup")
def test_c01_create_with_setup(mortal: Server, point: str) -> None:
    server = mortal
    setup = [f"echo baked > /home/user/{point}"]
    die_at(server, point, lambda: server.create(setup=setup))
    assert {one["status"] for one in server.sessions()[:1]} == {"failed"}
    sandbox = server.create(setup=setup)
    assert server.sh(sandbox, f"cat /home/user/{point}") == "baked\n"
    assert not [name for name in os.listdir(server.data / "layers") if "partial" in name]
    assert_whole(server)


@at("stop")
def test_c01_stop(mortal: Server, point: str) -> None:
    server = mortal
    sandbox = server.create(["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"])
    die_at(server, point, lambda: server.http.post(f"/v1/sessions/{sandbox}/stop"))
    if point == UNDONE:
        assert server.sh(sandbox, "echo lives") == "lives\n"
    else:
        until(lambda: server.session(sandbox)["status"] == "stopped")
        assert server.session(sandbox)["reason"] == "stopped"
    assert_whole(server)


@at("kill")
def test_c01_kill(mortal: Server, point: str) -> None:
    server = mortal
    sandbox = server.create(["sleep", "1000"])
    die_at(server, point, lambda: server.http.delete(f"/v1/sessions/{sandbox}"))
    if point == UNDONE:
        assert server.sh(sandbox, "echo lives") == "lives\n"
    else:
        assert server.session(sandbox)["status"] == "killed"
    assert_whole(server)


@at("exit")
def test_c01_exit_of_the_main_process(mortal: Server, point: str) -> None:
    server = mortal
    sandbox = server.create(["sh", "-c", "read line; echo $line; exit 7"])
    die_at(server, point, lambda: server.attach(sandbox).send(b"\x01\x00\x00\x00\x04bye\n"))
    until(lambda: server.session(sandbox)["status"] == "stopped")
    ended = server.session(sandbox)
    assert (ended["exitCode"], ended["reason"]) == (7, "exited")
    assert server.http.get(f"/v1/sessions/{sandbox}/logs").text == "bye\n"
    assert_whole(server)


@at("suspend")
def test_c01_suspend(mortal: Server, point: str) -> None:
    server = mortal
    sandbox = with_workspace(server, f"suspend {point}")
    die_at(server, point, lambda: server.http.post(f"/v1/sessions/{sandbox}/suspend"))
    until(lambda: server.session(sandbox).get("suspended", False) is (point != "sandboxes.suspend.recorded"))
    assert server.sh(sandbox, "cat /workspace/note") == "kept\n"
    assert_whole(server)


@at("resume")
def test_c01_resume(mortal: Server, point: str) -> None:
    server = mortal
    sandbox = with_workspace(server, f"resume {point}")
    server.http.post(f"/v1/sessions/{sandbox}/suspend")
    die_at(server, point, lambda: server.http.post(f"/v1/sessions/{sandbox}/resume"))
    assert server.session(sandbox)["suspended"]
    assert server.sh(sandbox, "cat /workspace/note") == "kept\n"
    assert_whole(server)


def with_workspace(server: Server, name: str) -> str:
    """A sandbox with a workspace of its own that has a file in it."""
    assert server.http.post("/v1/workspaces", json={"name": name}).status_code == 201
    sandbox = server.create(workspace=name)
    server.sh(sandbox, "echo kept > /workspace/note")
    return sandbox


@at("first start")
def test_c01_first_start(new_server: Callable[..., Server], point: str) -> None:
    server = new_server()
    assert not server.launch({"ATOLL_CRASH_AT": point}), f"{point} is not reached"
    assert server.ended() == -signal.SIGKILL
    server.start()
    assert server.sessions() == []
    keys = json.loads(server.cli("keys", "list", "--json").stdout)
    assert [key["name"] for key in keys] == ["owner"]
    assert os.stat(server.data / "owner.key").st_mode & 0o777 == 0o600
    sandbox = server.create()
    assert server.sh(sandbox, "echo works") == "works\n"


@at("key create")
def test_c01_key_create(mortal: Server, point: str) -> None:
    """A key whose making was cut short has no text that anybody knows; it is there and can be revoked, or it is not."""
    server = mortal
    name = f"cut {point}"
    server.cli("keys", "create", "--name", name, env={"ATOLL_CRASH_AT": point}, code=-signal.SIGKILL)
    found = [key for key in json.loads(server.cli("keys", "list", "--json").stdout) if key["name"] == name]
    assert len(found) == (0 if point == UNDONE else 1)
    for key in found:
        server.cli("keys", "revoke", key["id"])
    assert_whole(server)


@at("key revoke")
def test_c01_key_revoke(mortal: Server, point: str) -> None:
    server = mortal
    key_id, text = server.new_key()
    server.cli("keys", "revoke", key_id, env={"ATOLL_CRASH_AT": point}, code=-signal.SIGKILL)
    with server.client(text) as client:
        if point == UNDONE:
            assert client.get("/v1/sessions").status_code == 200
        else:
            until(lambda: client.get("/v1/sessions").status_code == 401, within_s=5)
    assert_whole(server)


def test_c01_upload_cut_by_kill9_leaves_the_old_file(mortal: Server) -> None:
    """There is no point inside an upload: it is killed half-way. The old file is whole, nothing half-made is left."""
    server = mortal
    sandbox = server.create()
    server.sh(sandbox, "mkdir /tmp/d && printf old > /tmp/d/file")
    sent = threading.Event()

    def body() -> object:
        yield b"n" * 1_000_000
        sent.wait(10)
        yield b"n"

    def upload() -> None:
        with server.client() as client:
            try:
                client.post(f"/v1/sessions/{sandbox}/files", params={"path": "/tmp/d/file"}, content=body())
            except Exception as error:
                failed.append(error)

    failed: list[Exception] = []
    thread = threading.Thread(target=upload)
    thread.start()
    until(lambda: server.sh(sandbox, "ls -A /tmp/d | wc -l").strip() == "2", what="the upload has begun")
    server.kill()
    sent.set()
    thread.join(10)
    assert failed
    server.start()
    assert server.sh(sandbox, "cat /tmp/d/file") == "old"
    until(lambda: server.sh(sandbox, "ls -A /tmp/d") == "file\n")
    assert_whole(server)


def test_c01_exec_cut_by_kill9_goes_on_and_can_be_found(mortal: Server) -> None:
    server = mortal
    sandbox = server.create()
    failed: list[Exception] = []

    def run() -> None:
        with server.client() as client:
            try:
                client.post(
                    f"/v1/sessions/{sandbox}/exec", json={"command": ["sh", "-c", "sleep 2; echo whole > /tmp/done"]}
                )
            except Exception as error:
                failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: server.http.get(f"/v1/sessions/{sandbox}/processes").json()["processes"])
    server.kill()
    thread.join(10)
    assert failed
    server.start()
    (process,) = server.http.get(f"/v1/sessions/{sandbox}/processes").json()["processes"]
    ended = server.http.get(f"/v1/sessions/{sandbox}/processes/{process['id']}/wait").json()
    assert ended["exitCode"] == 0
    assert server.sh(sandbox, "cat /tmp/done") == "whole\n"
    assert_whole(server)


def die_at(server: Server, point: str, operation: Callable[[], object]) -> None:
    """Do the operation with the crash point armed, see the server die there, start it again."""
    node = server.machine.node()
    armed = server.data.parent / CRASH_AT
    armed.write_text(point)
    refused: list[Exception] = []

    def attempt() -> None:
        try:
            operation()
        except Exception as error:  # the connection broke: how is not the question here
            refused.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    try:
        assert server.ended(within_s=15) == -signal.SIGKILL, f"{point} is not reached"
    finally:
        armed.unlink()
        thread.join(20)
    server.close_streams()
    server.start()
    assert server.machine.node() == node, "the node is another one"


def assert_whole(server: Server) -> None:
    """Records and machine agree, both ways; each sandbox's events tell one legal life; what runs answers."""
    machine = server.machine

    def settled() -> bool:
        sessions = server.sessions()
        live = {one["id"] for one in sessions if one["status"] == "running" and not one.get("suspended")}
        links = sum(one["network"]["mode"] != "none" for one in sessions if one["id"] in live)
        return (
            {one["status"] for one in sessions} <= {"running", "stopped", "killed", "failed"}
            and machine.sandbox_folders() == live
            and links <= len(machine.links()) <= links + machine.spares()
            and len(set(map(os.path.basename, machine.cgroups()))) - 1
            == len(live) + machine.spares() + machine.keepers()
        )

    until(settled, within_s=10, what="records and machine agree")
    for one in server.sessions("running"):
        assert server.sh(one["id"], "echo answers") == "answers\n"
    for actions in lives(server).values():
        assert actions[0] == "sandbox.created"
        assert len([action for action in actions if action in ENDS]) <= 1, actions
        if "sandbox.stopping" in actions and "sandbox.stopped" in actions:
            assert actions.index("sandbox.stopping") < actions.index("sandbox.stopped")


ENDS = {"sandbox.stopped", "sandbox.killed", "sandbox.exited", "sandbox.ended", "sandbox.failed"}


def lives(server: Server) -> dict[str, list[str]]:
    """The actions of each sandbox's events, in order."""
    found: dict[str, list[str]] = {}
    with sqlite3.connect(f"file:{server.data}/atoll.db?mode=ro", uri=True) as database:
        for target, action in database.execute("SELECT target, action FROM events ORDER BY id"):
            if target.startswith("sess_"):
                found.setdefault(target, []).append(action)
    database.close()
    return found
