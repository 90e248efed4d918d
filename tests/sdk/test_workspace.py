from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

from atoll import AsyncWorkspace, Sandbox
from atoll.sdk import Conflict, InvalidInput, Mount, NotFound, Workspace
from tests.sdk.fake_workspaces import FakeWorkspaces
from tests.sdk.fake_workspaces import Workspace as Stored
from tests.sdk.stand_in import StandIn


def test_workspaces_are_made_found_changed_and_deleted(fake: FakeWorkspaces) -> None:
    one = Workspace.create("one", tags=["a"], quota_bytes=1_000, description="the first")
    two = Workspace.create("two")
    assert (one.name, one.found.tags, one.found.quota_bytes) == ("one", ("a",), 1_000)
    assert one.found.head is not None
    assert one.found.head.number == 1
    assert [info.name for info in Workspace.list()] == ["two", "one"]
    assert [info.name for info in Workspace.list(tag="a")] == ["one"]
    assert Workspace.get("two").id == Workspace.get(two.id).id == two.id
    assert one.update(name="uno", tags=[]).tags == ()
    assert (one.name, one.info().name) == ("uno", "uno")
    one.delete()
    with pytest.raises(NotFound):
        one.info()
    with pytest.raises(Conflict):
        Workspace.create("two")
    with pytest.raises(InvalidInput) as refused:
        Workspace.create("big", quota_bytes=2**50)
    assert (refused.value.field, str(refused.value)) == ("quota_bytes", "quota_bytes must be at most 1 TiB")


def test_names_may_have_any_character(fake: FakeWorkspaces) -> None:
    Workspace.create("a b ü?&#%")
    assert Workspace.get("a b ü?&#%").name == "a b ü?&#%"


def test_history(mine: Workspace, stored: Stored) -> None:
    stored.write("dir/file", b"one\n")
    stored.write("dir/file", b"two\n")
    stored.put(stored.head.tree[b"dir/file"]._replace(path=b"moved"))
    stored.remove("dir/file")
    assert [revision.number for revision in mine.log()] == [5, 4, 3, 2, 1]
    assert [revision.number for revision in mine.log(limit=2, before=4)] == [3, 2]
    assert mine.revision("HEAD~1").number == 4
    assert [(c.path, c.change, c.renamed_from) for c in mine.diff(3, 5)] == [("moved", "renamed", "dir/file")]
    assert mine.diff(2, 3, text=True)[0].text == "--- a/dir/file\n+++ b/dir/file\n"
    assert [entry.path for entry in mine.files()] == ["dir", "moved"]
    assert [entry.path for entry in mine.files("dir", revision=2)] == ["dir/file"]
    assert mine.read("dir/file", 2) == b"one\n"
    out = io.BytesIO()
    assert mine.download_into("dir/file", out, revision=3) == 4
    assert out.getvalue() == b"two\n"
    assert mine.restore(2).revision.number == 6
    assert mine.restore(5, "moved").revision.number == 7
    assert [entry.path for entry in mine.files(depth=9)] == ["dir", "dir/file", "moved"]
    assert mine.undo().reason == "undo"
    assert mine.commit("why").number == 8
    with pytest.raises(NotFound):
        mine.read("none")


def test_many_files_come_in_pages(mine: Workspace, stored: Stored) -> None:
    stored.write("f", b"")
    entry = stored.head.tree[b"f"]
    stored.put(*(entry._replace(path=b"%05d" % number) for number in range(2_500)))
    assert len(list(mine.files())) == 2_501


def test_forks_and_merges(mine: Workspace, stored: Stored, fake: FakeWorkspaces) -> None:
    stored.write("file", b"base")
    fork = mine.fork("other")
    assert fork.read("file") == b"base"
    assert fork.found.forked_from == stored.head.id
    fake.named("other").write("file", b"theirs")
    stored.write("file", b"ours")
    result = mine.merge(fork)
    (conflict,) = result.conflicts
    assert (conflict.path, mine.read(conflict.kept)) == ("file", b"theirs")
    assert mine.read("file") == b"ours"


def test_snapshots_shares_archives_and_verification(mine: Workspace, stored: Stored, tmp_path: Path) -> None:
    stored.write("file", b"x")
    made = mine.snapshot("first", keep=True)
    assert (made.name, made.keep, made.revision) == ("first", True, stored.head.id)
    assert [snapshot.id for snapshot in mine.snapshots()] == [made.id]
    mine.delete_snapshot("first")
    assert not mine.snapshots()
    assert mine.share("key_2", "write") == mine.collaborators() == {"key_2": "write"}
    with pytest.raises(InvalidInput):
        mine.share("key_2", "own")
    mine.revoke("key_2")
    assert mine.collaborators() == {}
    assert mine.export(tmp_path / "a.tar.zst") == 10
    into = io.BytesIO()
    mine.export(into)
    assert into.getvalue() == (tmp_path / "a.tar.zst").read_bytes()
    assert mine.import_(tmp_path / "a.tar.zst", message="why").message == "why"
    assert mine.import_(io.BytesIO(b"other")).reason == "import"
    assert stored.contents("imported") == b"other"
    assert mine.verify().ok
    stored.chunks.clear()
    assert mine.verify().corrupt[0].path == "file"


def test_a_sandbox_is_made_with_workspaces(server: StandIn, mine: Workspace) -> None:
    def body(**options: object) -> dict[str, object]:
        with Sandbox.create(**options) as sandbox:  # type: ignore[arg-type]
            return server.routes.boxes[sandbox.id].body

    assert body(workspace=mine)["workspace"] == mine.id
    assert body(workspace="mine")["workspace"] == "mine"
    assert body(workspace=mine, workspaces=[Mount("two", "/data", read_only=True)])["workspaces"] == [
        {"workspace": mine.id, "path": "/workspace", "readOnly": False},
        {"workspace": "two", "path": "/data", "readOnly": True},
    ]
    assert "workspace" not in body()


def test_commands_start_in_the_first_workspace_unless_told_otherwise(server: StandIn, mine: Workspace) -> None:
    def start(**options: object) -> object:
        with Sandbox.create(**options) as sandbox:  # type: ignore[arg-type]
            return server.routes.boxes[sandbox.id].body.get("workDir")

    assert start() is None
    assert start(workspace=mine) == "/workspace"
    assert start(workspaces=[Mount("two", "/data"), "mine"]) == "/data"
    assert start(workspace=mine, cwd="/tmp") == "/tmp"


async def test_the_awaiting_twin_does_the_same(stored: Stored, tmp_path: Path) -> None:
    mine = await AsyncWorkspace.get("mine")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 3_000_000)
    seen: list[tuple[str, int, int]] = []
    report = await mine.push(tmp_path / "a", progress=lambda p: seen.append((p.phase, p.done, p.total)))
    assert [path.path for path in report.sent] == ["file"]
    assert seen[-1][0] == "upload"
    assert seen[-1][1] == seen[-1][2]
    stored.write("theirs", b"y" * 2_000_000)
    report = await mine.sync(tmp_path / "a")
    assert (tmp_path / "a" / "theirs").read_bytes() == b"y" * 2_000_000
    assert [entry.path async for entry in mine.files()] == ["file", "theirs"]


async def test_watching_brings_every_change(stored: Stored, tmp_path: Path) -> None:
    mine = await AsyncWorkspace.get("mine")
    folder = tmp_path / "watched"
    changed: list[str] = []
    async with asyncio.timeout(20):
        async for report in mine.watch(folder, poll_s=0.2):
            changed += [path.path for path in report.sent + report.received]
            if "here" not in changed:
                (folder / "here").write_text("1")
            elif "there" not in changed:
                stored.write("there", b"1")
            else:
                break
    assert changed == ["here", "there"]


def test_what_names_no_folder_is_refused(mine: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no folder"):
        mine.push(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises((InvalidInput, FileExistsError)):
        mine.pull(tmp_path / "file")
