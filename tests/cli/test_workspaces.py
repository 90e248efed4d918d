from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from atoll.cli.failure import Failed, explain
from atoll.cli.sync import check_folder
from atoll.domain.errors import InvalidInput
from atoll.sdk.sync.values import Direction
from tests.cli.conftest import Atoll
from tests.sdk.fake_workspaces import FakeWorkspaces, Workspace
from tests.sdk.stand_in import StandIn


@pytest.fixture
def fake(server: StandIn, atoll: Atoll, tmp_path: Path) -> FakeWorkspaces:
    atoll.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    return server.routes.workspaces


@pytest.fixture
def mine(fake: FakeWorkspaces) -> Workspace:
    return fake.make("mine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "dir").mkdir(parents=True)
    (made / "dir" / "file").write_text("one\n")
    return made


def test_sync_makes_the_workspace_and_says_so(atoll: Atoll, fake: FakeWorkspaces, folder: Path) -> None:
    done = atoll("sync", str(folder), "ws:fresh")
    assert done.returncode == 0, done.stderr
    made = fake.named("fresh")
    assert f"atoll: made a new workspace fresh ({made.id})\n" in done.stderr
    assert done.stdout.splitlines() == ["+ -> dir", "+ -> dir/file", done.stdout.splitlines()[-1]]
    assert done.stdout.splitlines()[-1].startswith("2 paths sent, 0 received (")
    assert made.contents("dir/file") == b"one\n"
    assert atoll("sync", str(folder), "ws:fresh").stdout == "nothing to do: revision 2\n"


def test_sync_from_a_workspace_is_a_pull(atoll: Atoll, mine: Workspace, folder: Path, tmp_path: Path) -> None:
    mine.write("theirs", b"1")
    done = atoll("sync", "--json", "ws:mine", str(folder))
    report = json.loads(done.stdout)
    assert [path["path"] for path in report["received"]] == ["theirs"]
    assert report["sent"] == []
    assert report["revision"]["number"] == 2
    assert list(mine.head.tree) == [b"theirs"]
    assert (folder / "theirs").read_text() == "1"
    done = atoll("sync", "ws:none", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (1, "atoll: workspace not found: 'none'\n")
    assert not (tmp_path / "none").exists()


def test_a_conflict_is_reported(atoll: Atoll, mine: Workspace, folder: Path) -> None:
    atoll("sync", str(folder), "ws:mine")
    (folder / "dir" / "file").write_text("two\n")
    mine.write("dir/file", b"three\n")
    done = atoll("sync", str(folder), "ws:mine")
    assert done.returncode == 0
    assert (
        "atoll: conflict: dir/file: changed on both sides; both are kept, the workspace's as dir/file.conflict-3\n"
        in (done.stderr)
    )
    assert (folder / "dir" / "file.conflict-3").read_text() == "three\n"


def test_a_dry_run_says_what_would_be_done(atoll: Atoll, mine: Workspace, fake: FakeWorkspaces, folder: Path) -> None:
    done = atoll("sync", "--dry-run", str(folder), "ws:mine")
    assert done.stdout.splitlines()[-1] == "2 paths would be sent, 0 would be received"
    assert not mine.head.tree
    done = atoll("sync", "--dry-run", str(folder), "ws:new")
    assert "it would be made" in done.stderr
    assert len(fake.all) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a", "b"), "one of SOURCE and DEST must be ws:NAME, and the other a folder"),
        (("ws:a", "ws:b"), "one of SOURCE and DEST must be ws:NAME, and the other a folder"),
        ((".", "ws:"), "ws: must be followed by the workspace's name"),
        (("--push", "--pull", ".", "ws:a"), "--push and --pull exclude each other"),
        (("--push", "ws:a", "."), "--push needs the folder as SOURCE and ws:NAME as DEST"),
        (("--watch", "--dry-run", ".", "ws:a"), "--watch and --dry-run exclude each other"),
    ],
)
def test_wrong_words_are_named(atoll: Atoll, fake: FakeWorkspaces, words: tuple[str, ...], said: str) -> None:
    done = atoll("sync", *words)
    assert (done.returncode, done.stderr) == (2, f"atoll: {said}\n")
    assert not fake.seen


def test_watching_says_what(atoll: Atoll, mine: Workspace, folder: Path) -> None:
    watching = atoll.start("sync", "--watch", str(folder), "ws:mine")
    assert watching.stderr
    assert watching.stderr.readline() == f"atoll: watching {folder} and ws:mine; Ctrl-C ends it\n".encode()


def test_watching_goes_both_ways_until_ctrl_c(atoll: Atoll, mine: Workspace, folder: Path) -> None:
    watching = atoll.start("sync", "--watch", "--json", str(folder), "ws:mine")
    _until(lambda: b"dir/file" in mine.head.tree)
    time.sleep(0.5)  # for it to look at the folder again
    (folder / "new").write_text("new")
    _until(lambda: b"new" in mine.head.tree)
    mine.write("theirs", b"1")
    _until(lambda: (folder / "theirs").exists())
    watching.send_signal(signal.SIGINT)
    out, err = watching.communicate(timeout=10)
    assert (watching.returncode, err) == (130, b"")
    assert [path["path"] for line in out.splitlines() for path in json.loads(line)["sent"]] == [
        "dir",
        "dir/file",
        "new",
    ]


def _until(happened: object) -> None:
    deadline = time.monotonic() + 15
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_bar_shows_on_a_terminal(atoll: Atoll, mine: Workspace, folder: Path) -> None:
    (folder / "big").write_bytes(os.urandom(3_000_000))
    terminal = atoll.on_terminal("sync", str(folder), "ws:mine")
    terminal.expect("upload")
    terminal.expect("3 paths sent")


def test_workspaces_are_made_listed_described_and_deleted(atoll: Atoll, fake: FakeWorkspaces) -> None:
    made = json.loads(atoll("workspace", "create", "one", "--tag", "a", "--quota", "2g", "--json").stdout)
    assert (made["name"], made["tags"], made["quotaBytes"]) == ("one", ["a"], 2 * 2**30)
    assert atoll("workspace", "create", "two").stdout.startswith("two  ws_")
    done = atoll("workspace", "create", "two")
    assert (done.returncode, done.stderr) == (1, "atoll: there is a workspace two already\n")
    lines = atoll("workspace", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "two", "one"]
    assert [one["name"] for one in json.loads(atoll("workspace", "list", "--tag", "a", "--json").stdout)] == ["one"]
    assert "permission:  owner" in atoll("workspace", "info", "one").stdout
    assert json.loads(atoll("workspace", "tag", "one", "x", "y", "--json").stdout)["tags"] == ["x", "y"]
    assert json.loads(atoll("workspace", "set", "one", "--rename", "uno", "--json").stdout)["name"] == "uno"
    assert atoll("workspace", "rm", "uno", made["id"]).returncode == 1
    assert [ws.name for ws in fake.all.values()] == ["two"]


def test_a_limit_names_the_option(atoll: Atoll, fake: FakeWorkspaces) -> None:
    done = atoll("workspace", "create", "big", "--quota", "10t")
    assert (done.returncode, done.stderr) == (2, "atoll: --quota must be at most 1 TiB\n")


def test_history_can_be_looked_at_and_brought_back(atoll: Atoll, mine: Workspace) -> None:
    mine.write("dir/file", b"one\n")
    mine.write("dir/file", b"two\n")
    mine.write("other", b"x")
    lines = atoll("workspace", "log", "mine").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["REVISION", "4", "3", "2", "1"]
    assert atoll("workspace", "diff", "mine", "2", "HEAD").stdout == "~ dir/file\n+ other  1B\n"
    assert "--- a/dir/file\n" in atoll("workspace", "diff", "mine", "2", "3", "--text").stdout
    (change,) = json.loads(atoll("workspace", "diff", "mine", "--json").stdout)
    assert (change["path"], change["change"]) == ("other", "added")
    assert atoll("workspace", "show", "mine", "dir/file").stdout == "two\n"
    assert atoll("workspace", "show", "mine", "dir/file@HEAD~2").stdout == "one\n"
    assert [line.split()[-1] for line in atoll("workspace", "show", "mine", "-r").stdout.splitlines()] == [
        "dir", "dir/file", "other",
    ]  # fmt: skip
    said = atoll("workspace", "restore", "mine", "dir/file@2").stdout
    assert re.fullmatch(r"restored 3 entries \(1B\): revision 5  rev_\w+  \(what was there is kept as r4\)\n", said), (
        said
    )
    said = atoll("workspace", "restore", "mine", "dir/file@2").stdout
    assert re.fullmatch(r"nothing to restore, it is so already: revision 5  rev_\w+\n", said), said
    assert json.loads(atoll("workspace", "restore", "mine", "@HEAD", "--json").stdout)["changed"] is False
    assert mine.contents("dir/file") == b"one\n"
    assert b"other" in mine.head.tree
    assert atoll("workspace", "restore", "mine", "@1").returncode == 0
    assert not mine.head.tree
    said = atoll("workspace", "undo", "mine").stdout
    assert re.fullmatch(r"back to \S.*: revision 7  rev_\w+  \(what was there is kept as r6\)\n", said), said
    assert b"other" in mine.head.tree
    done = atoll("workspace", "restore", "mine", "dir/file")
    assert done.returncode == 2
    assert "dir/file@HEAD~1" in done.stderr


def test_forks_come_back_together(atoll: Atoll, mine: Workspace, fake: FakeWorkspaces) -> None:
    mine.write("file", b"base")
    assert atoll("workspace", "fork", "mine", "other").stdout.startswith("other  ws_")
    fork = fake.named("other")
    base = mine.head
    fork.fields["forkedFrom"] = base.id
    fork.write("file", b"theirs")
    mine.write("file", b"ours")
    done = atoll("workspace", "merge", "mine", "other")
    assert done.stdout.startswith("1 change, 1 conflict: revision ")
    assert "theirs is file.conflict-" in done.stderr


def test_sharing(atoll: Atoll, mine: Workspace) -> None:
    assert "key_2" in atoll("workspace", "share", "mine", "key_2", "write").stdout
    assert mine.shares == {"key_2": "write"}
    done = atoll("workspace", "share", "mine", "key_2", "own")
    assert (done.returncode, done.stderr) == (2, "atoll: the permission must be one of read, write, admin, not 'own'\n")
    assert json.loads(atoll("workspace", "unshare", "mine", "key_2", "--json").stdout) == {}


def test_an_archive_that_cannot_be_says_which_file(atoll: Atoll, mine: Workspace, tmp_path: Path) -> None:
    for words, said in (("export", f"FILE: there is no folder {tmp_path}/no"), ("import", "FILE: there is no file ")):
        done = atoll("workspace", words, "mine", f"{tmp_path}/no/file")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith(f"atoll: {said}")


def test_archives(atoll: Atoll, mine: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "out.tar.zst"
    assert atoll("workspace", "export", "mine", str(target)).returncode == 0
    assert target.read_bytes() == b"an archive"
    assert atoll("workspace", "export", "mine", "-").stdout == "an archive"
    assert atoll("workspace", "export", "mine", str(tmp_path / "bad"), "--revision", "99").returncode == 1
    assert not (tmp_path / "bad").exists()
    assert atoll("workspace", "import", "mine", str(target), "-m", "why").returncode == 0
    assert (mine.contents("imported"), mine.head.message) == (b"an archive", "why")
    done = subprocess.run(["cat", str(target)], stdout=subprocess.PIPE, check=True)
    assert atoll("workspace", "import", "mine", "-", stdin=done.stdout).returncode == 0


def test_verify_tells_what_is_damaged(atoll: Atoll, mine: Workspace) -> None:
    mine.write("file", b"x")
    assert "all as stored" in atoll("workspace", "verify", "mine").stdout
    mine.chunks[next(iter(mine.chunks))] = b"y"
    done = atoll("workspace", "verify", "mine")
    assert done.returncode == 1
    assert "file: a chunk is not what was stored" in done.stdout


def test_snapshots(atoll: Atoll, mine: Workspace) -> None:
    mine.write("file", b"x")
    made = atoll("snapshot", "create", "mine", "--name", "first", "--keep").stdout.strip()
    mine.write("file", b"y")
    listed = atoll("snapshot", "list", "mine").stdout.splitlines()
    assert listed[1].split()[:2] == [made, "first"]
    assert listed[1].split()[-1] == "kept"
    assert atoll("snapshot", "restore", "mine", "first").returncode == 0
    assert mine.contents("file") == b"x"
    assert atoll("snapshot", "delete", "mine", "first").returncode == 0
    assert atoll("snapshot", "delete", "mine", "first").returncode == 1


def test_a_sandbox_has_workspaces_mounted(atoll: Atoll, server: StandIn) -> None:
    done = atoll("run", "-d", "-W", "one", "--workspace", "two:/data:ro", "--", "sleep", "100")
    body = server.routes.boxes[done.stdout.strip()].body
    assert body["workspaces"] == [
        {"workspace": "one", "path": "/workspace", "readOnly": False},
        {"workspace": "two", "path": "/data", "readOnly": True},
    ]
    assert body["workDir"] == "/workspace"
    done = atoll("run", "--workspace", "one:data", "--", "true")
    assert done.returncode == 2
    assert done.stderr == "atoll: --workspace must look like NAME, NAME:/PATH or NAME:/PATH:ro, not 'one:data'\n"


@pytest.mark.parametrize(
    ("field", "message", "said"),
    [
        ("memory_mb", "memory_mb must be within 16..8192", "--memory must be within 16m..8192m"),
        ("cpus", "cpus must be within 0.01..8", "--cpus must be within 0.01..8"),
        ("idle_timeout", "idle_timeout must be within 0.1..inf", "--idle must be 0.1s at least"),
        ("ports", "ports must be at most 32", "--publish must be at most 32"),
        ("ports.0.container", "ports.0.container: must be less", "--publish: must be less"),
        ("", "session is paused: resume it first", "sandbox is paused: resume it first"),
        ("image", "no template is called x", "no template is called x"),
        ("other", "other must be right", "other must be right"),
    ],
)
def test_errors_speak_of_options_in_their_units(
    field: str, message: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(InvalidInput(message, field=field)) == 2
    assert capsys.readouterr().err == f"atoll: {said}\n"


def test_without_a_server_it_is_one_line(alone: object) -> None:
    atoll = alone(ATOLL_URL="http://127.0.0.1:1", ATOLL_API_KEY="x")  # type: ignore[operator]
    for words in (("workspace", "list"), ("sync", ".", "ws:x"), ("snapshot", "list", "x")):
        done = atoll(*words)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "`atoll up` starts one" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nodir", "ws:x"), 1, "SOURCE: there is no folder nodir"),
        (("file", "ws:x"), 1, "SOURCE: file is not a folder"),
        (("ws:x", "file"), 1, "DEST: file is not a folder"),
        (("", "ws:x"), 2, "SOURCE must name a folder"),
        (("dir", "ws: "), 2, "ws: must be followed by the workspace's name"),
        (("dir", "ws:x", "--no-create"), 1, "workspace not found: 'x'"),
        (("dir", "ws:alice/x"), 1, "workspace not found: 'alice/x'"),
        (("dir", "ws:ws_" + "0" * 32), 1, f"workspace not found: 'ws_{'0' * 32}'"),
    ],
)
def test_a_sync_that_cannot_be_says_which_argument(
    atoll: Atoll, fake: FakeWorkspaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...],
    code: int, said: str,
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("")
    (tmp_path / "dir").mkdir()
    monkeypatch.chdir(tmp_path)
    done = atoll("sync", *words)
    assert (done.returncode, done.stderr) == (code, f"atoll: {said}\n")
    assert not fake.all and not (tmp_path / "nodir").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_said(atoll: Atoll, fake: FakeWorkspaces, folder: Path) -> None:
    folder.chmod(0o300)
    done = atoll("sync", str(folder), "ws:x")
    folder.chmod(0o700)
    assert (done.returncode, done.stderr) == (1, f"atoll: SOURCE: {folder} cannot be read: permission denied\n")


def test_a_folder_on_a_read_only_file_system_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    monkeypatch.setattr(os, "statvfs", lambda path: ReadOnly)
    with pytest.raises(Failed, match="cannot be written: read-only file system"):
        check_folder(str(folder), "DEST", Direction.PULL)
    check_folder(str(folder), "SOURCE", Direction.PUSH)


def test_a_quota_needs_a_unit(atoll: Atoll, fake: FakeWorkspaces) -> None:
    fake.make("mine")
    done = atoll("workspace", "set", "mine", "--quota", "1")
    assert (done.returncode, done.stderr) == (2, "atoll: --quota must look like 512m or 2g, not '1'\n")


def test_anothers_workspaces_are_listed_and_never_taken_for_ones_own(
    atoll: Atoll, fake: FakeWorkspaces, folder: Path
) -> None:
    fake.make("theirs", {"permission": "write", "owner": "key_2", "ownerName": "bob"})
    fake.make("mine")
    for words in (("workspace", "list"), ("workspaces",)):
        assert [line.split()[0] for line in atoll(*words).stdout.splitlines()] == ["NAME", "mine", "bob/theirs"]
    assert [line.split()[0] for line in atoll("workspace", "ls", "--own").stdout.splitlines()] == ["NAME", "mine"]
    assert [one["name"] for one in json.loads(atoll("workspaces", "--shared", "--json").stdout)] == ["theirs"]
    assert "key_2 (bob)" in atoll("workspace", "info", "bob/theirs").stdout
    done = atoll("sync", str(folder), "ws:theirs")
    assert (done.returncode, done.stderr) == (
        1,
        "atoll: you have no workspace theirs, and bob/theirs is shared with you: say ws:bob/theirs, "
        "or --create for one of your own\n",
    )
    assert atoll("sync", str(folder), "ws:bob/theirs").returncode == 0
    assert atoll("sync", "--create", str(folder), "ws:theirs").returncode == 0
    assert sorted(ws.name for ws in fake.all.values()) == ["mine", "theirs", "theirs"]
