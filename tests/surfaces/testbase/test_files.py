"""The files of a workspace over Testbase's routes: what its clients send, and what leads out of a workspace nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.domain.tree import Entry, EntryKind
from atoll.surfaces.testbase import files as handlers
from tests.services.conftest import until
from tests.surfaces.workspaces.client import ENTRIES, Client, file, lines


async def upload(house: Any, path: str | None, name: str | None, data: bytes = b"x", **more: Any) -> Any:
    form: dict[str, Any] = {} if name is None else {"files": {"file": (name, data)}}
    where = more.pop("where", "/workspace/my-project/upload")
    return await house.call("POST", where, data={} if path is None else {"path": path}, **form, **more)


async def test_a_file_goes_up_is_listed_comes_down_and_goes(house: Any) -> None:
    done = await upload(house, "src/deep", "app.py", b"print(1)\n")
    assert (done.status_code, done.json()) == (
        200,
        {"success": True, "workspaceId": "my-project", "filename": "app.py", "path": "src/deep/app.py", "size": 9},
    )
    top = (await house.call("GET", "/workspace/my-project/files")).json()
    assert (top["workspaceId"], top["path"]) == ("my-project", ".")
    assert [(one["name"], one["type"]) for one in top["files"]] == [("src", "directory")]
    deep = (await house.call("GET", "/workspace/my-project/files?path=src/deep")).json()
    assert deep["path"] == "src/deep"
    assert [{**one, "modified": ""} for one in deep["files"]] == [
        {"name": "app.py", "type": "file", "size": 9, "modified": ""}
    ]
    got = await house.call("GET", "/workspace/my-project/download/src/deep/app.py")
    assert (got.status_code, got.content) == (200, b"print(1)\n")
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"] == 'attachment; filename="app.py"'
    gone = await house.call("DELETE", "/workspace/my-project/files/src/deep/app.py")
    assert gone.json() == {"success": True, "workspaceId": "my-project", "filePath": "src/deep/app.py"}
    again = await house.call("GET", "/workspace/my-project/download/src/deep/app.py")
    assert (again.status_code, again.json()["error"]) == (404, "File not found")


async def test_the_workspace_is_made_with_its_first_file_and_is_the_one_of_every_surface(house: Any) -> None:
    await upload(house, ".", "a.txt", b"hello")
    (made,) = (await house.call("GET", "/v1/workspaces")).json()["workspaces"]
    assert made["name"] == "my-project"
    by_id = await house.call("GET", f"/workspace/{made['id']}/download/a.txt")
    assert by_id.content == b"hello"


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1, 3 * 2**20 + 17])
async def test_any_size_comes_back_as_it_was(house: Any, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    assert (await upload(house, ".", "big", data[:size])).json()["size"] == size
    assert (await house.call("GET", "/workspace/my-project/download/big")).content == data[:size]


async def test_what_is_missing_in_a_form_is_told_in_the_protocols_words(house: Any) -> None:
    for answer, message in (
        (await upload(house, ".", None), "No file uploaded"),
        (await upload(house, None, "a"), "Target path is required"),
    ):
        assert answer.status_code == 400
        body = answer.json()
        assert body["error"] == "Validation failed" and body["errors"][0]["message"] == message


@pytest.mark.parametrize("path", ["..", "../x", "a/../../b", "/etc", "/", "a/..", "x\0y", "a" * 2000])
async def test_no_target_leads_out_of_the_workspace(house: Any, path: str) -> None:
    answer = await upload(house, path, "a")
    assert answer.status_code == 400
    (wrong,) = answer.json()["errors"]
    assert (wrong["field"], wrong["message"]) == ("path", "Invalid target path or path traversal attempt")


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", ".", "", "x\0y", "n" * 256])
async def test_no_file_name_leads_out_of_its_folder(house: Any, name: str) -> None:
    part = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n\r\ndata'
    body = f'--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n.\r\n--b\r\n{part}\r\n--b--\r\n'
    answer = await house.call(
        "POST",
        "/workspace/my-project/upload",
        content=body.encode(),
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert answer.status_code == 400, answer.text
    assert (await house.call("GET", "/v1/workspaces")).json()["workspaces"] == []


@pytest.mark.parametrize("path", ["..", "../../etc/passwd", "a/../../b", "%2e%2e/x", "..%2f..%2fetc%2fpasswd"])
async def test_no_path_of_a_request_leads_out_of_the_workspace(house: Any, path: str) -> None:
    await upload(house, ".", "a")
    for method, target in (
        ("GET", f"/workspace/my-project/files?path={path}"),
        ("GET", f"/workspace/my-project/download/{path}"),
        ("DELETE", f"/workspace/my-project/files/{path}"),
    ):
        answer = await house.call(method, target)
        assert answer.status_code in (400, 404), target
        assert b"root:" not in answer.content
    assert (await house.call("GET", "/workspace/my-project/download/a")).content == b"x"


async def test_a_symlink_is_an_entry_and_leads_nowhere(house: Any) -> None:
    await upload(house, ".", "a", b"mine")
    session = await house.create(workspace="my-project")
    await house.exec(session["id"], ["sh", "-c", "cd /workspace && ln -s /etc/passwd link && ln -s .. up"])
    await house.call("DELETE", f"/v1/sessions/{session['id']}")

    async def linked() -> bool:
        listed = (await house.call("GET", "/workspace/my-project/files")).json()["files"]
        return {one["name"] for one in listed} >= {"a", "link", "up"}

    await until(linked)
    for path in ("link", "up", "up/etc/passwd"):
        assert (await house.call("GET", f"/workspace/my-project/download/{path}")).status_code == 404
    assert (await house.call("GET", "/workspace/my-project/files?path=up")).status_code == 404
    for folder in ("up", "link"):
        refused = await upload(house, folder, "b")
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "path")
    assert (await upload(house, ".", "link", b"now a file")).status_code == 200
    assert (await house.call("GET", "/workspace/my-project/download/link")).content == b"now a file"


async def test_folders_are_no_files(house: Any) -> None:
    await upload(house, "folder", "a")
    assert (await house.call("DELETE", "/workspace/my-project/files/folder")).status_code == 404
    assert (await house.call("GET", "/workspace/my-project/download/folder")).status_code == 404
    refused = await upload(house, ".", "folder")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "path")
    missing = await house.call("GET", "/workspace/my-project/files?path=none")
    assert (missing.status_code, missing.json()["error"]) == (404, "Directory not found")


async def test_a_live_sandbox_has_what_was_uploaded_and_the_listing_what_it_wrote(house: Any) -> None:
    await upload(house, ".", "a", b"before")
    session = await house.create(workspace="my-project")
    await upload(house, ".", "b", b"during")
    assert (await house.exec(session["id"], ["cat", "/workspace/b"]))["stdout"] == "during"
    await house.exec(session["id"], ["sh", "-c", "echo new > /workspace/c"])
    listed = (await house.call("GET", "/workspace/my-project/files")).json()["files"]
    assert {one["name"] for one in listed} == {"a", "b", "c"}  # and not .home, which is the programs'


async def test_too_large_a_file_is_refused_and_leaves_nothing(open_house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "UPLOAD_BYTES_MAX", 1_000)
    async with open_house() as house:
        assert (await upload(house, ".", "fits", b"x" * 1_000)).status_code == 200
        refused = await upload(house, ".", "large", b"x" * 1_001)
        assert (refused.status_code, refused.json()["error"]) == (413, "Request Entity Too Large")
        assert (await upload(house, "y" * 9_000, "fields", b"x")).status_code == 413
        listed = (await house.call("GET", "/workspace/my-project/files")).json()["files"]
        assert [one["name"] for one in listed] == ["fits"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\nhalf",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name=path\r\n\r\n\xff\r\n--b--\r\n",
        b"--b\r\nno header\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"X: " + b"y" * 100_000,
        b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n" * 100 + b"--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\nx\r\n" * 2 + b"--b--\r\n",
    ],
)
async def test_a_form_that_is_none_or_cut_short_puts_no_file_anywhere(house: Any, body: bytes) -> None:
    kind = {"content-type": "multipart/form-data; boundary=b"}
    for _ in range(2):  # while there is no such workspace, and when there is
        answer = await house.call("POST", "/workspace/my-project/upload", content=body, headers=kind)
        assert (answer.status_code, answer.json()["error"]) == (400, "Validation failed")
        assert (await upload(house, ".", "there")).status_code == 200
    listed = (await house.call("GET", "/workspace/my-project/files")).json()["files"]
    assert [one["name"] for one in listed] == ["there"]


async def test_an_upload_that_is_refused_makes_no_workspace(house: Any) -> None:
    assert (await upload(house, "../..", "a")).status_code == 400
    assert (await upload(house, "", "a")).status_code == 400
    kind = {"content-type": "multipart/form-data; boundary=b"}
    cut = b"--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n" + b"x" * 3 * 2**20
    assert (await house.call("POST", "/workspace/my-project/upload", content=cut, headers=kind)).status_code == 400
    assert (await house.call("GET", "/v1/workspaces")).json()["workspaces"] == []
    content = b"y" * (3 * 2**20 + 1)
    assert (await upload(house, "deep/down", "a", content)).status_code == 200
    assert (await house.call("GET", "/workspace/my-project/download/deep/down/a")).content == content


async def test_names_that_are_no_ascii_or_no_utf8_are_the_same_on_every_way(house: Any, keys: Any) -> None:
    await upload(house, "größe", "fünf %.txt", b"5")
    got = await house.call("GET", "/workspace/my-project/download/gr%C3%B6%C3%9Fe/f%C3%BCnf%20%25.txt")
    assert got.content == b"5"
    assert got.headers["content-disposition"].endswith("filename*=UTF-8''f%C3%BCnf%20%25.txt")
    client = Client(house, "my-project", keys.ALICE)
    await client.send(b"odd")
    base = (await client.head())["id"]
    await client.ok("POST", f"/sync/commit?base={base}", content=lines([file(b"x\xff", b"odd")]), headers=ENTRIES)
    got = await house.call("GET", "/workspace/my-project/download/x%FF")
    assert (got.status_code, got.content) == (200, b"odd")
    assert (await house.call("DELETE", "/workspace/my-project/files/x%FF")).status_code == 200


async def test_what_hardlinks_name_outlives_the_name_that_goes(house: Any, keys: Any) -> None:
    await upload(house, ".", "a", b"one\n")
    client = Client(house, "my-project", keys.ALICE)
    base = (await client.head())["id"]
    link = Entry(b"b", EntryKind.HARDLINK, 0, target=b"a")
    await client.ok("POST", f"/sync/commit?base={base}", content=lines([link]), headers=ENTRIES)
    listed = (await house.call("GET", "/workspace/my-project/files")).json()["files"]
    assert {one["name"]: one["size"] for one in listed} == {"a": 4, "b": 4}
    assert (await house.call("DELETE", "/workspace/my-project/files/a")).status_code == 200
    assert (await house.call("GET", "/workspace/my-project/download/b")).content == b"one\n"


async def test_who_may_only_read_uploads_nothing_and_others_workspaces_are_unknown(house: Any, keys: Any) -> None:
    await upload(house, ".", "a")
    (made,) = (await house.call("GET", "/v1/workspaces")).json()["workspaces"]
    where = f"/workspace/{made['id']}"
    assert (await upload(house, ".", "b", key=keys.READER, where=where + "/upload")).status_code == 403
    assert (await house.call("GET", where + "/download/a", keys.READER)).status_code == 200
    nobodys = "/workspace/ws_" + "5" * 32
    for path in ("/files", "/download/a"):
        theirs = await house.call("GET", where + path, keys.BOB)
        unknown = await house.call("GET", nobodys + path, keys.BOB)
        assert theirs.status_code == 404 and theirs.text.replace(made["id"], "ID") == unknown.text.replace(
            nobodys.rpartition("/")[2], "ID"
        )
    assert (await upload(house, ".", "b", key=keys.BOB, where=where + "/upload")).status_code == 404
