"""Files inside of JSON: text as it is, other bytes as base64, many at once; and every spelling of a path."""

from __future__ import annotations

import base64

import pytest

from tests.surfaces.conftest import WRITER
from tests.surfaces.sidekick.conftest import Daemon


async def test_a_file_is_written_read_looked_at_and_removed(daemon: Daemon) -> None:
    made = await daemon.data("POST", "/files", status=201, json={"path": "/tmp/d/f.txt", "content": "text ✓"})
    assert (made["file"]["name"], made["file"]["size"], made["file"]["is_dir"]) == ("f.txt", 8, False)
    answer = await daemon.call("GET", "/files//tmp/d/f.txt?content=true")
    assert answer.json()["content"] == answer.json()["data"]["content"] == "text ✓"
    assert (await daemon.data("PUT", "/files//tmp/d/f.txt", json={"content": ""}))["file"]["size"] == 0
    assert (await daemon.data("GET", "/files//tmp/d/f.txt"))["file"]["size"] == 0
    assert (await daemon.data("GET", "/files?path=/tmp"))["files"][0]["is_dir"] is True
    assert (await daemon.data("GET", "/files"))["path"] == "/"
    assert (await daemon.call("HEAD", "/files//tmp/d/f.txt")).status_code == 200
    assert (await daemon.call("DELETE", "/files//tmp/d")).status_code == 204
    gone = await daemon.call("HEAD", "/files//tmp/d/f.txt")
    assert (gone.status_code, gone.content) == (404, b"")
    assert (await daemon.call("GET", "/files//tmp/d/f.txt")).status_code == 404


SPELLINGS = ["/tmp/a%20b/%C3%BC", "%2Ftmp%2Fa%20b%2F%C3%BC", "tmp/a%20b/%C3%BC", "//tmp/a b/ü"]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_every_spelling_of_a_path_is_one_file(daemon: Daemon, spelling: str) -> None:
    await daemon.data("POST", "/files", status=201, json={"path": "/tmp/a b/ü", "content": "x"})
    found = await daemon.data("GET", f"/files/{spelling}?content=true")
    assert (found["content"], found["file"]["path"]) == ("x", "/tmp/a b/ü")


async def test_bytes_that_are_no_text_travel_as_base64(daemon: Daemon) -> None:
    coded = base64.b64encode(b"\xff\x00").decode()
    body = {"path": "/tmp/b", "content": coded, "encoding": "base64"}
    assert (await daemon.data("POST", "/files", status=201, json=body))["file"]["size"] == 2
    found = await daemon.data("GET", "/files//tmp/b?content=true")
    assert (found["content"], found["encoding"]) == (coded, "base64")
    answer = await daemon.call("POST", "/files", json=body | {"content": "%"})
    assert (answer.status_code, "content" in answer.json()["error"]) == (400, True)


async def test_many_files_each_by_itself(daemon: Daemon) -> None:
    files = [
        {"path": "/tmp/m/1", "operation": "write", "content": "1"},
        {"path": "/tmp/never", "operation": "delete"},
        {"path": "a\0b", "operation": "write"},
        {"path": "/tmp/m/1", "operation": "delete"},
    ]
    results = (await daemon.data("POST", "/files/batch", status=207, json={"files": files}))["results"]
    assert [one["success"] for one in results] == [True, False, False, True]
    assert results[0]["file"]["size"] == 1
    assert "NUL" in results[2]["error"]
    assert (await daemon.data("POST", "/files/batch", json={"files": files[:1]}))["results"][0]["success"]
    assert (await daemon.data("POST", "/files/batch", json={"files": []}))["results"] == []
    wrong = await daemon.call("POST", "/files/batch", json={"files": [{"path": "/x", "operation": "copy"}]})
    assert (wrong.status_code, "operation" in wrong.json()["error"]) == (400, True)


async def test_who_may_only_write_learns_nothing_of_what_is_there(daemon: Daemon) -> None:
    assert (await daemon.call("PUT", "/files//tmp/w", WRITER, json={"content": "w"})).status_code == 200
    assert (await daemon.call("GET", "/files//tmp/w", WRITER)).status_code == 403
    assert (await daemon.call("DELETE", "/files//tmp/w", WRITER)).status_code == 204


async def test_what_changes_nothing_of_a_missing_sandbox_is_one_404(daemon: Daemon) -> None:
    nobody = Daemon(daemon.house, "sess_0123456789ab")
    item = {"files": [{"path": "/x", "operation": "delete"}]}
    answers = [
        await nobody.call("POST", "/files/batch", json=item),
        await nobody.call("GET", "/files//x"),
        await nobody.call("GET", "/files/x"),
        await nobody.call("DELETE", "/files/x"),
    ]
    assert {(one.status_code, one.text) for one in answers} == {(404, '{"error":"session not found"}')}


@pytest.mark.parametrize(("unix_s", "told"), [(-1.0, "1970-01-01"), (3e11, "9999-12-31"), (2.0**62, "9999-12-31")])
async def test_a_file_may_carry_any_time_at_all(daemon: Daemon, unix_s: float, told: str) -> None:
    files = daemon.house.host.sandboxes[daemon.id].files
    files.write("/tmp/f", b"x")
    files.root.children["tmp"].children["f"].modified_at = unix_s
    (one,) = (await daemon.data("GET", "/files?path=/tmp"))["files"]
    assert one["modified_at"].startswith(told)
