"""C01 for workspaces: the real server is killed inside an operation on a mounted workspace and started again.

Nothing that was acknowledged is lost, what was cut short happened or did not, and the same can be done once more.
tests/services/workspaces/test_crashes.py goes through all the points in one process.
"""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.e2e.conftest import needs_root
from tests.e2e.machine import until
from tests.e2e.server import Server
from tests.faults.test_c01_crash_points import assert_whole, die_at, with_workspace

pytestmark = [pytest.mark.root, needs_root]


def call(server: Server, method: str, path: str, body: object = None, *, code: int = 200) -> Any:
    answer = server.http.request(method, f"/v1/workspaces{path}", json=body)
    assert answer.status_code == code, answer.text
    return answer.json()


def file(server: Server, name: str, path: str, revision: str = "HEAD") -> str | None:
    """Its contents in that revision; None where there is no such file."""
    answer = server.http.get(f"/v1/workspaces/{name}/file", params={"path": path, "revision": revision})
    return answer.text if answer.status_code == 200 else None


def take(server: Server, name: str) -> Any:
    return call(server, "POST", f"/{name}/revisions", {}, code=201)


def assert_sound(server: Server, name: str) -> None:
    """Every byte of it is as it was stored, its trees are those that the records name, and it can be used."""
    assert call(server, "POST", f"/{name}/verify")["corrupt"] == []
    sandbox = server.create(workspace=name)
    server.sh(sandbox, "echo again > /workspace/again")
    take(server, name)
    assert file(server, name, "again") == "again\n"
    server.http.delete(f"/v1/sessions/{sandbox}")
    assert_whole(server)


@pytest.mark.parametrize("point", ["workspaces.create.keyed", "workspaces.create.stored", "workspaces.create.recorded"])
def test_c01_create(mortal: Server, point: str) -> None:
    name = point.replace(".", "-")
    die_at(mortal, point, lambda: call(mortal, "POST", "", {"name": name}, code=201))
    there = [one["name"] for one in call(mortal, "GET", "")["workspaces"]]
    assert (name in there) is (point == "workspaces.create.recorded")
    if name not in there:
        call(mortal, "POST", "", {"name": name}, code=201)
    assert_sound(mortal, name)


@pytest.mark.parametrize("point", ["workspaces.tree.made", "workspaces.tree.filled", "workspaces.open.recorded"])
def test_c01_first_mount(mortal: Server, point: str) -> None:
    name = point.replace(".", "-")
    call(mortal, "POST", "", {"name": name}, code=201)
    die_at(mortal, point, lambda: mortal.create(workspace=name))
    assert_sound(mortal, name)


@pytest.mark.parametrize("point", ["workspaces.pack.stored", "workspaces.take.stored", "workspaces.take.recorded"])
def test_c01_revision(mortal: Server, point: str) -> None:
    name = point.replace(".", "-")
    sandbox = with_workspace(mortal, name)
    take(mortal, name)
    mortal.sh(sandbox, "echo newer > /workspace/note")
    die_at(mortal, point, lambda: take(mortal, name))
    assert mortal.sh(sandbox, "cat /workspace/note") == "newer\n"
    take(mortal, name)
    assert file(mortal, name, "note") == "newer\n"
    notes = {
        file(mortal, name, "note", str(one["number"])) for one in call(mortal, "GET", f"/{name}/revisions")["revisions"]
    }
    assert notes == {None, "kept\n", "newer\n"}
    assert_sound(mortal, name)


@pytest.mark.parametrize(
    "point",
    [
        "workspaces.restore.hydrated",
        "workspaces.restore.kept",
        "workspaces.restore.recorded",
        "workspaces.restore.swapped",
    ],
)
def test_c01_restore_under_a_live_sandbox(mortal: Server, point: str) -> None:
    name = point.replace(".", "-")
    sandbox = with_workspace(mortal, name)
    first = take(mortal, name)["id"]
    mortal.sh(sandbox, "echo newer > /workspace/note; echo more > /workspace/more")
    die_at(mortal, point, lambda: call(mortal, "POST", f"/{name}/restore", {"revision": first}))
    until(lambda: mortal.sh(sandbox, "cat /workspace/note") == (file(mortal, name, "note") or ""))
    restored = point in ("workspaces.restore.recorded", "workspaces.restore.swapped")
    assert mortal.sh(sandbox, "cat /workspace/note; ls /workspace") == (
        "kept\nnote\n" if restored else "newer\nmore\nnote\n"
    )
    # what the restore would have lost is in the log, or still there
    revisions = [str(one["number"]) for one in call(mortal, "GET", f"/{name}/revisions")["revisions"]]
    take(mortal, name)
    assert "newer\n" in {file(mortal, name, "note", number) for number in [*revisions, "HEAD"]}
    call(mortal, "POST", f"/{name}/restore", {"revision": first})
    assert mortal.sh(sandbox, "cat /workspace/note; ls /workspace") == "kept\nnote\n"
    assert_sound(mortal, name)


def _said(word: int) -> str:
    return f"until [ -e /tmp/said{word} ]; do sleep 0.02; done"


def test_c01_what_a_program_writes_in_files_from_before_a_restore(mortal: Server) -> None:
    sandbox = with_workspace(mortal, "late")
    first = take(mortal, "late")["number"]
    mortal.sh(sandbox, "echo newer > /workspace/note")
    says = "until [ -e /tmp/say$word ]; do sleep 0.02; done; echo $word >&3; touch /tmp/said$word"
    program = f"exec 3>> /workspace/note; touch /tmp/said0; for word in 1 2; do {says}; done; sleep 60"
    mortal.sh(sandbox, f"({program}) > /dev/null 2>&1 & {_said(0)}")
    answer = call(mortal, "POST", "/late/restore", {"revision": str(first)})
    assert file(mortal, "late", "note", str(answer["before"]["number"])) == "newer\n"
    mortal.sh(sandbox, f"touch /tmp/say1; {_said(1)}")
    mortal.kill()
    mortal.start()
    mortal.sh(sandbox, f"touch /tmp/say2; {_said(2)}")
    mortal.http.delete(f"/v1/sessions/{sandbox}")
    until(lambda: file(mortal, "late", "note", "HEAD~1") == "newer\n1\n2\n", within_s=20)
    assert file(mortal, "late", "note") == "kept\n"
    assert_sound(mortal, "late")


@pytest.mark.parametrize("point", ["workspaces.fork.stored", "workspaces.fork.recorded"])
def test_c01_fork(mortal: Server, point: str) -> None:
    name, fork = point.replace(".", "-"), f"{point.replace('.', '-')}-fork"
    with_workspace(mortal, name)
    take(mortal, name)
    die_at(mortal, point, lambda: call(mortal, "POST", f"/{name}/fork", {"name": fork}, code=201))
    there = [one["name"] for one in call(mortal, "GET", "")["workspaces"]]
    if fork not in there:
        call(mortal, "POST", f"/{name}/fork", {"name": fork}, code=201)
    assert file(mortal, fork, "note") == "kept\n"
    assert_sound(mortal, fork)


@pytest.mark.parametrize("point", ["workspaces.snapshot.taken", "workspaces.snapshot.recorded"])
def test_c01_snapshot(mortal: Server, point: str) -> None:
    name = point.replace(".", "-")
    with_workspace(mortal, name)
    die_at(mortal, point, lambda: call(mortal, "POST", f"/{name}/snapshots", {"name": "good"}, code=201))
    there = call(mortal, "GET", f"/{name}/snapshots")["snapshots"]
    assert len(there) == (1 if point == "workspaces.snapshot.recorded" else 0)
    if not there:
        call(mortal, "POST", f"/{name}/snapshots", {"name": "good"}, code=201)
    assert file(mortal, name, "note", "good") == "kept\n"
    assert_sound(mortal, name)


@pytest.mark.parametrize("point", ["workspaces.delete.recorded", "workspaces.delete.emptied"])
def test_c01_delete(mortal: Server, point: str) -> None:
    name = point.replace(".", "-")
    sandbox = with_workspace(mortal, name)
    take(mortal, name)
    mortal.http.delete(f"/v1/sessions/{sandbox}")
    die_at(mortal, point, lambda: call(mortal, "DELETE", f"/{name}"))
    call(mortal, "GET", f"/{name}", code=404)
    call(mortal, "POST", "", {"name": name}, code=201)
    assert file(mortal, name, "note") is None
    assert_sound(mortal, name)


def import_(server: Server, name: str, contents: dict[str, bytes]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, data in contents.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    answer = server.http.post(f"/v1/workspaces/{name}/import", content=zstandard.compress(packed.getvalue()))
    assert answer.status_code == 201, answer.text


def revisions(server: Server, name: str) -> list[str]:
    return [one["id"] for one in call(server, "GET", f"/{name}/revisions")["revisions"]]


@pytest.mark.parametrize("point", ["workspaces.import.unpacked", "workspaces.import.stored"])
def test_c01_import(mortal: Server, point: str) -> None:
    name = point.replace(".", "-")
    sandbox = with_workspace(mortal, name)
    take(mortal, name)
    before = revisions(mortal, name)
    new = {"note": b"imported\n", "more": b"more\n" * 100_000}
    die_at(mortal, point, lambda: import_(mortal, name, new))
    assert mortal.sh(sandbox, "cat /workspace/note; ls /workspace") == "kept\nnote\n"
    assert revisions(mortal, name) == before
    import_(mortal, name, new)
    assert mortal.sh(sandbox, "cat /workspace/note; ls /workspace") == "imported\nmore\nnote\n"
    assert file(mortal, name, "note", "HEAD~1") == "kept\n"
    assert_sound(mortal, name)


def test_c01_merge(mortal: Server) -> None:
    name, fork = "merged", "merged-fork"
    sandbox = with_workspace(mortal, name)
    take(mortal, name)
    call(mortal, "POST", f"/{name}/fork", {"name": fork}, code=201)
    theirs = mortal.create(workspace=fork)
    mortal.sh(theirs, "echo theirs > /workspace/theirs; echo newer > /workspace/note")
    mortal.sh(sandbox, "echo ours > /workspace/ours")
    take(mortal, name)
    before = revisions(mortal, name)
    die_at(mortal, "workspaces.merge.stored", lambda: call(mortal, "POST", f"/{name}/merge", {"source": fork}))
    assert mortal.sh(sandbox, "cat /workspace/note; ls /workspace") == "kept\nnote\nours\n"
    assert revisions(mortal, name) == before
    call(mortal, "POST", f"/{name}/merge", {"source": fork})
    assert mortal.sh(sandbox, "cat /workspace/note; ls /workspace") == "newer\nnote\nours\ntheirs\n"
    assert_sound(mortal, name)


def test_c01_prune(mortal: Server) -> None:
    """What goes is beyond what is kept; killed before it went, it is all there, and goes with the next."""
    name, kept = "pruned", 5
    sandbox = with_workspace(mortal, name)

    def snapshot(number: int) -> str:
        mortal.sh(sandbox, f"echo {number} > /workspace/number")
        return call(mortal, "POST", f"/{name}/snapshots", {}, code=201)["id"]

    made = [snapshot(number) for number in range(kept)]
    die_at(mortal, "workspaces.prune.chosen", lambda: snapshot(kept))
    there = [one["id"] for one in call(mortal, "GET", f"/{name}/snapshots")["snapshots"]]
    assert there[::-1][:kept] == made and len(there) == kept + 1
    assert [file(mortal, name, "number", one) for one in there[::-1]] == [f"{number}\n" for number in range(kept + 1)]
    last = snapshot(kept + 1)
    after = [one["id"] for one in call(mortal, "GET", f"/{name}/snapshots")["snapshots"]]
    assert after == [last, *there][:kept]
    assert_sound(mortal, name)


def test_c01_backup(mortal: Server, new_server: Callable[..., Server], tmp_path: Path) -> None:
    """Beside a server that runs: a backup that is killed is none, and the next one is whole and leaves nothing."""
    store, name = tmp_path / "store", "backed-up"
    with_workspace(mortal, name)
    take(mortal, name)
    for point in ("backup.blobs_copied", "backup.records_stored"):
        mortal.cli("backup", "--to", str(store), env={"ATOLL_CRASH_AT": point}, code=-signal.SIGKILL)
        assert not list(store.rglob("manifest.json"))
    mortal.cli("backup", "--to", str(store))
    assert os.listdir(mortal.data / "dumps") == []
    again = new_server()
    again.cli("restore", "--from", str(store), "--master-key", str(mortal.data / "master.key"))
    again.start()
    assert file(again, name, "note") == "kept\n"
    assert call(again, "POST", f"/{name}/verify")["corrupt"] == []
