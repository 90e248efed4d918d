"""The time machine over HTTP: revisions, listings, files, diffs, restores, undo and snapshots."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from atoll.surfaces.workspaces import answers
from tests.surfaces.workspaces.client import ENTRIES, file, lines


async def test_the_log_is_newest_first_and_can_be_paged(ws: Any) -> None:
    for number in range(4):
        await ws.push({"a.txt": b"%d" % number}, message=f"m{number}")
    found = (await ws.ok("GET", "/revisions"))["revisions"]
    assert [one["number"] for one in found] == [5, 4, 3, 2, 1]
    assert [one.get("message") for one in found] == ["m3", "m2", "m1", "m0", None]
    assert [one["parent"] for one in found] == [one["id"] for one in found[1:]] + [None]
    paged = (await ws.ok("GET", "/revisions?limit=2&before=4"))["revisions"]
    assert [one["number"] for one in paged] == [3, 2]


async def test_new_files_make_a_workspace_newer(ws: Any) -> None:
    await ws.push({"a.txt": b"1"})
    told = await ws.ok("GET", "")
    assert told["updatedAt"] == told["head"]["createdAt"] > told["createdAt"]


async def test_a_revision_is_found_by_every_spelling(ws: Any) -> None:
    await ws.push({"a.txt": b"1"})
    wanted = await ws.head()
    snapshot = await ws.ok("POST", "/snapshots", json={"name": "release"})
    await ws.push({"a.txt": b"2"})
    for spelled in ("HEAD~1", "2", wanted["id"], "release", snapshot["id"]):
        found = await ws.ok("GET", f"/revisions/{spelled}")
        assert (found["id"], found["snapshots"]) == (wanted["id"], [snapshot["id"]]), spelled
    now = quote(datetime.now(UTC).isoformat())
    assert (await ws.ok("GET", f"/revisions/{now}"))["number"] == 3
    for unknown in ("HEAD~9", "77", "rev_" + "0" * 24, "nothing", "2000-01-01T00:00:00Z", "%00", "HEAD~x", "-1"):
        assert (await ws.call("GET", f"/revisions/{unknown}")).status_code in (400, 404), unknown


async def test_asking_for_a_revision_of_what_did_not_change_gives_the_head(ws: Any) -> None:
    await ws.push({"a.txt": b"1"})
    head = await ws.head()
    answer = await ws.call("POST", "/revisions", json={"message": "again"})
    assert (answer.status_code, answer.json()["id"]) == (201, head["id"])


async def test_listings_go_down_and_on(ws: Any) -> None:
    await ws.push({"a/b/c.txt": b"c", "a/d.txt": b"d", "e.txt": b"e"})

    async def paths(query: str) -> tuple[list[str], str | None]:
        found = await ws.ok("GET", f"/files?{query}")
        answers.ListingAnswer.model_validate(found)
        return [one["path"] for one in found["entries"]], found.get("next")

    assert await paths("") == (["a", "e.txt"], None)
    assert await paths("path=a") == (["a/b", "a/d.txt"], None)
    assert await paths("path=a&depth=2") == (["a/b", "a/b/c.txt", "a/d.txt"], None)
    assert await paths("depth=256") == (["a", "a/b", "a/b/c.txt", "a/d.txt", "e.txt"], None)
    assert await paths("depth=256&limit=2") == (["a", "a/b"], "a/b")
    assert await paths("depth=256&limit=2&after=a/b") == (["a/b/c.txt", "a/d.txt"], "a/d.txt")
    assert await paths("path=e.txt") == (["e.txt"], None)
    assert await paths("revision=1") == ([], None)


async def test_a_file_is_read_as_it_was(ws: Any) -> None:
    large = bytes(range(256)) * 12_000  # three chunks
    await ws.push({"large": large})
    await ws.push({"large": b"small"})
    assert await ws.read("large") == b"small"
    assert await ws.read("large", "HEAD~1") == large
    assert (await ws.call("GET", "/file?path=large&revision=1")).status_code == 404


async def test_a_directory_is_no_file(ws: Any) -> None:
    await ws.push({"a/b": b"x"})
    answer = await ws.call("GET", "/file?path=a")
    assert (answer.status_code, answer.json()["field"]) == (400, "path")


async def test_a_name_that_is_no_utf8_travels_everywhere(ws: Any) -> None:
    name = b"caf\xe9.txt"
    shown = name.decode("utf-8", "surrogateescape")
    await ws.send(b"old")
    await ws.send(b"new")
    for data in (b"old", b"new"):
        body = lines([file(name, data)])
        base = (await ws.head())["id"]
        assert (await ws.call("POST", f"/sync/commit?base={base}", content=body, headers=ENTRIES)).status_code == 201
    assert (await ws.ok("GET", "/files"))["entries"][0]["path"] == shown
    assert await ws.ok("GET", "/file?path=caf%E9.txt") == b"new"
    assert (await ws.ok("GET", "/files?path=caf%E9.txt"))["entries"][0]["path"] == shown
    assert (await ws.ok("GET", "/files?after=caf%E8.txt"))["entries"][0]["path"] == shown
    changes = (await ws.ok("GET", "/diff?path=caf%E9.txt"))["changes"]
    assert [one["path"] for one in changes] == [shown]
    await ws.ok("POST", "/restore", content=b'{"revision": "2", "path": "caf\\udce9.txt"}')
    assert await ws.ok("GET", "/file?path=caf%E9.txt") == b"old"
    lost = await ws.call("GET", "/file?path=caf%E8.txt")
    assert (lost.status_code, lost.json()["code"]) == (404, "NOT_FOUND")
    assert (await ws.call("GET", "/file?path=a&revision=caf%E9")).status_code == 400  # only paths may


async def test_a_diff_tells_what_changed_and_how(ws: Any) -> None:
    text = b"".join(b"line %d\n" % n for n in range(50))
    await ws.push({"same": b"s", "changed": text, "gone": b"g", "old/name": b"n" * 5000, "binary": b"\0\1"})
    await ws.push(
        {
            "changed": text.replace(b"line 7\n", b"seven\n"),
            "gone": None,
            "old/name": None,
            "new": b"n" * 5000,
            "added": b"+\n",
            "binary": b"\0\2",
        }
    )
    found = await ws.ok("GET", "/diff?from=HEAD~1&to=HEAD")
    answers.DiffAnswer.model_validate(found)
    assert not found["truncated"]
    changes = {one["path"]: one for one in found["changes"]}
    kinds = {path: one["change"] for path, one in changes.items()}
    assert kinds == {"added": "added", "binary": "changed", "changed": "changed", "gone": "deleted", "new": "renamed"}
    assert changes["new"]["from"] == "old/name"
    assert "-line 7\n" in changes["changed"]["text"] and "+seven\n" in changes["changed"]["text"]
    assert changes["binary"]["binary"] is True and "text" not in changes["binary"]
    assert changes["added"]["after"] == {"size": 2, "mode": 0o644} and "before" not in changes["added"]
    back = await ws.ok("GET", "/diff?from=HEAD&to=HEAD~1&path=gone&text=false")
    assert [(one["path"], one["change"], "text" in one) for one in back["changes"]] == [("gone", "added", False)]
    assert (await ws.ok("GET", "/diff?from=HEAD&to=HEAD"))["changes"] == []


async def test_a_restore_is_a_revision_and_can_be_undone(ws: Any) -> None:
    await ws.push({"a.txt": b"1", "b.txt": b"b"})
    await ws.push({"a.txt": b"2"})
    answer = await ws.ok("POST", "/restore", json={"revision": "HEAD~1"})
    answers.RestoredAnswer.model_validate(answer)
    assert (answer["revision"]["number"], answer["revision"]["reason"]) == (4, "restore")
    assert (answer["before"]["number"], answer["changed"], answer["restored"]["entries"]) == (3, True, 3)
    assert await ws.files() == {"a.txt": b"1", "b.txt": b"b"}
    for again in ({"revision": "2"}, {"revision": "2", "path": "a.txt"}):
        same = await ws.ok("POST", "/restore", json=again)
        assert (same["revision"], same["changed"]) == (answer["revision"], False)
        assert same["restored"] == {"entries": 0, "bytes": 0}
    undone = await ws.ok("POST", "/undo")
    answers.UndoneAnswer.model_validate(undone)
    assert (undone["revision"]["reason"], undone["before"]["number"], undone["changed"]) == ("undo", 4, True)
    assert await ws.files() == {"a.txt": b"2", "b.txt": b"b"}


async def test_one_path_can_be_restored(ws: Any) -> None:
    await ws.push({"a/x": b"1", "a/y": b"1", "b": b"1"})
    await ws.push({"a/x": b"2", "a/y": None, "b": b"2"})
    await ws.ok("POST", "/restore", json={"revision": "2", "path": "a"})
    assert await ws.files() == {"a/x": b"1", "a/y": b"1", "b": b"2"}
    assert (await ws.call("POST", "/restore", json={"revision": "2", "path": "nothing"})).status_code == 404


async def test_snapshots_are_kept_listed_and_deleted(ws: Any) -> None:
    await ws.push({"a.txt": b"1234"})
    plain = await ws.ok("POST", "/snapshots")
    named = await ws.ok("POST", "/snapshots", json={"name": "named", "ownKey": True, "keep": True})
    answers.SnapshotAnswer.model_validate(named)
    assert (named["ownKey"], named["keep"], named["bytes"]) == (True, True, 4)
    assert (plain["ownKey"], plain["keep"], "name" in plain) == (False, False, False)
    assert plain["id"] != named["id"]
    assert (await ws.ok("GET", "/snapshots"))["snapshots"] == [named, plain]
    assert (await ws.call("POST", "/snapshots", json={"name": "named"})).status_code == 409
    await ws.push({"a.txt": b"lost"})
    await ws.ok("POST", "/restore", json={"revision": "named"})
    assert await ws.files() == {"a.txt": b"1234"}
    assert await ws.ok("DELETE", "/snapshots/named") == {"deleted": True}
    assert (await ws.call("DELETE", f"/snapshots/{named['id']}")).status_code == 404


F01 = [
    "..", "../x", "a/../../x", "./a", "/etc/passwd", "//etc/passwd", "%2e%2e/x", "..%2fx", "%252e%252e%252fx", "..\\x",
    "a%00b", "%c0%ae%c0%ae/x", "a//b", "a/", "x" * 256, "/".join(["x" * 200] * 21), "a/" * 300 + "a", "\u2024\u2024/x",
]  # fmt: skip


@pytest.mark.parametrize("path", F01)
async def test_f01_no_path_leads_out_of_the_tree(ws: Any, path: str) -> None:
    await ws.push({"a/b": b"inside"})
    before = await ws.head()
    for route in ("/files", "/file", "/diff", "/files?after="):
        query = f"{route}{path}" if route.endswith("=") else f"{route}?path={path}"
        answer = await ws.call("GET", query)
        assert answer.status_code in (200, 400, 404), (query, answer.text)
        assert b"root:" not in answer.content
        if route == "/file" and answer.status_code == 200:
            assert answer.content == b"inside"
    if "%" not in path:  # what a query decodes a body does not
        answer = await ws.call("POST", "/restore", json={"revision": "HEAD", "path": path})
        assert answer.status_code in (200, 400, 404), answer.text
    assert (await ws.head())["tree"] == before["tree"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b'{"revision": 1}', b'{"revision": "HEAD", "path": 1}', b'{"path": "a"}',
        b'{"revision": "\\ud800"}', b'{"revision": "HEAD", "x": "\\ud800"}', b'{"revision": "HEAD", "path": "\\ud800"}',
        b'{"revision": "HEAD", "path": "\\u0000"}', b'{"revision": "' + b"x" * 300 + b'"}', b"\xff", b"[" * 100_000,
        b'{"a": "\\u0041", "b": ' + b"[" * 100_000,
    ],
)  # fmt: skip
async def test_a_malformed_restore_is_refused(ws: Any, body: bytes) -> None:
    assert (await ws.call("POST", "/restore", content=body)).status_code in (400, 404)
