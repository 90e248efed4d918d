"""Workspaces from end to end: folders of a client, real sandboxes on them, the time machine, and the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from atoll.sdk import Conflict, Mount, NotFound, Sandbox, Workspace
from atoll.sdk._io import close_connections
from tests.e2e.machine import until
from tests.e2e.server import Server
from tests.sdk.test_sync import fill, picture


@pytest.fixture(autouse=True)
def this_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("ATOLL_URL", server.url)
    monkeypatch.setenv("ATOLL_API_KEY", server.key)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield
    close_connections()
    for session in server.sessions("running"):
        server.http.delete(f"/v1/sessions/{session['id']}")
    for info in Workspace.list():
        Workspace.get(info.id).delete()
    close_connections()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


def test_a_folder_comes_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    fill(folder)
    mine = Workspace.create("fidelity")
    mine.push(folder)
    mine.pull(tmp_path / "copy")
    assert picture(tmp_path / "copy") == picture(folder)
    assert not mine.sync(folder).changed
    assert not mine.sync(tmp_path / "copy").changed


def test_a_sandbox_and_a_folder_work_on_the_same_files(folder: Path) -> None:
    (folder / "input").write_text("21\n")
    (folder / "tool").write_text("#!/bin/sh\necho $(($(cat input) * 2)) > output\n")
    (folder / "tool").chmod(0o755)
    mine = Workspace.create("shared-work")
    mine.push(folder)
    with Sandbox.create(workspace=mine) as sandbox:
        sandbox.run(
            "cd /workspace && ./tool && ln output twin && mkdir -p deep/er && ln -s ../input deep/link", check=True
        )
        assert mine.info().mounted == (sandbox.id,)
        report = mine.sync(folder)
        assert "output" in {path.path for path in report.received}
        assert (folder / "output").read_text() == "42\n"
        assert (folder / "output").stat().st_ino == (folder / "twin").stat().st_ino
        assert os.readlink(folder / "deep" / "link") == "../input"
        (folder / "input").write_text("50\n")
        mine.sync(folder)
        assert sandbox.run("cat /workspace/input; cd /workspace && ./tool", check=True).stdout == "50\n"
        assert not mine.sync(folder).conflicts
        assert (folder / "output").read_text() == "100\n"
        with pytest.raises(Conflict):
            mine.delete()
    assert not (folder / ".home").exists()


def test_both_change_the_same_file_and_both_versions_stay(folder: Path) -> None:
    (folder / "notes").write_text("base\n")
    mine = Workspace.create("conflict")
    mine.sync(folder)
    with Sandbox.create(workspace="conflict") as sandbox:
        sandbox.run("echo theirs > /workspace/notes", check=True)
        (folder / "notes").write_text("ours\n")
        (conflict,) = mine.sync(folder).conflicts
        assert sandbox.run(["cat", "/workspace/notes", f"/workspace/{conflict.kept}"]).stdout == "ours\ntheirs\n"
    assert (folder / "notes").read_text() == "ours\n"
    assert (folder / conflict.kept).read_text() == "theirs\n"


def test_the_time_machine(folder: Path) -> None:
    (folder / "file").write_text("one\n")
    mine = Workspace.create("time")
    mine.push(folder, message="first")
    with Sandbox.create(workspace=mine) as sandbox:  # its HOME, which is empty, is no change
        sandbox.run("true", check=True)
        first = mine.commit()
        mine.snapshot("start")
    (folder / "file").write_text("two\n")
    (folder / "new").write_text("new\n")
    mine.push(folder)
    found = {change.path: change for change in mine.diff(first.number, "HEAD", text=True)}
    assert {path: change.change for path, change in found.items()} == {"file": "changed", "new": "added"}
    assert "-one\n+two\n" in (found["file"].text or "")
    assert mine.read("file", first.number) == b"one\n"
    assert {entry.path for entry in mine.files()} == {"file", "new"}
    with Sandbox.create(workspace=mine) as sandbox:
        mine.restore("start")
        assert sandbox.run("ls /workspace; cat /workspace/file").stdout == "file\none\n"
        mine.undo()
        assert sandbox.run("ls /workspace; cat /workspace/file").stdout == "file\nnew\ntwo\n"
        mine.restore(first.number, "file")
        assert sandbox.run("ls /workspace; cat /workspace/file").stdout == "file\nnew\none\n"
    fork = mine.fork("time-fork")
    assert fork.read("new") == b"new\n"
    (folder / "file").write_text("in the fork\n")
    fork.push(folder)
    assert not mine.merge(fork).conflicts
    assert mine.read("file") == b"in the fork\n"
    assert mine.verify().ok


def test_an_archive_goes_out_and_into_another(folder: Path, tmp_path: Path) -> None:
    fill(folder)
    mine, other = Workspace.create("out"), Workspace.create("in")
    mine.push(folder)
    assert mine.export(tmp_path / "out.tar.zst") > 0
    other.import_(tmp_path / "out.tar.zst")
    other.pull(tmp_path / "copy")
    assert picture(tmp_path / "copy").keys() == picture(folder).keys()
    assert (tmp_path / "copy" / "a" / "deep" / "big").read_bytes() == (folder / "a" / "deep" / "big").read_bytes()


def test_several_workspaces_and_read_only_ones(folder: Path) -> None:
    (folder / "file").write_text("1\n")
    one, two = Workspace.create("one"), Workspace.create("two")
    two.push(folder)
    with Sandbox.create(workspaces=[one, Mount(two, "/data", read_only=True)]) as sandbox:
        assert sandbox.run("cat /data/file; echo x > /data/file").exit_code != 0
        sandbox.run("cp /data/file /workspace/", check=True)
    until(lambda: one.log()[0].reason == "stop", what="revision of a sandbox that ended")
    assert one.read("file") == b"1\n"
    with pytest.raises(NotFound):
        Sandbox.create(workspace="none")


def test_the_command_line(server: Server, folder: Path, tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "cli-state"), "ATOLL_URL": server.url, "ATOLL_API_KEY": server.key}
    (folder / "file").write_text("one\n")

    def atoll(*words: str) -> str:
        return server.cli(*words, env=env).stdout.decode()

    assert "1 path sent" in atoll("sync", str(folder), "ws:cli")
    assert atoll("run", "--rm", "--workspace", "cli", "--", "sh", "-c", "cat file; echo two > file") == "one\n"
    report = json.loads(atoll("sync", "--json", str(folder), "ws:cli"))
    assert [path["path"] for path in report["received"]] == ["file"]
    assert (folder / "file").read_text() == "two\n"
    assert atoll("workspace", "show", "cli", "file@2") == "one\n"
    assert "file" in atoll("workspace", "diff", "cli", "2", "HEAD")
    assert "(what was there is kept as r3)" in atoll("workspace", "restore", "cli", "file@2")
    assert atoll("workspace", "show", "cli", "file") == "one\n"
    made = atoll("snapshot", "create", "cli", "--name", "s").strip()
    assert made in atoll("snapshot", "list", "cli")
    assert atoll("snapshot", "restore", "cli", "s").startswith("nothing to restore, it is so already: revision 4 ")
    atoll("sync", "ws:cli", str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "file").read_text() == "one\n"
    assert "all as stored" in atoll("workspace", "verify", "cli")
