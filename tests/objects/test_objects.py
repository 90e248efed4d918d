"""Objects in and out of workspaces through the door, over fakes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os

import pytest

from .conftest import Store
from .signing import Client, code


async def test_what_was_put_is_there_and_is_listed(store: Store) -> None:
    alice = await store.alice()
    answer = await alice.put("proj-1/sub/b c.txt", b"two\n", **{"x-goog-meta-goog-reserved-file-mtime": "1700000000"})
    assert answer.status_code == 200, answer.text
    md5 = hashlib.md5(b"two\n", usedforsecurity=False)
    assert answer.headers["etag"] == f'"{md5.hexdigest()}"'
    got = await alice.call("GET", "proj-1/sub/b c.txt", query=f"?generation={answer.headers['x-goog-generation']}")
    assert (got.status_code, got.content) == (200, b"two\n")
    assert got.headers["x-goog-hash"] == f"md5={base64.b64encode(md5.digest()).decode()}"
    assert got.headers["x-goog-meta-goog-reserved-file-mtime"] == "1700000000"
    assert got.headers["x-goog-generation"] == answer.headers["x-goog-generation"]
    assert await alice.keys("prefix=proj-1/") == ["proj-1/sub/b c.txt"]
    assert int((await store.tree("proj-1") / "sub/b c.txt").stat().st_mtime) == 1_700_000_000


async def test_an_upload_in_place_of_a_file_keeps_its_mode(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/run.sh", b"one", **{"x-goog-meta-goog-reserved-posix-mode": "755"})
    await alice.put("p/run.sh", b"two")
    file = await store.tree("p") / "run.sh"
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"two", 0o755)


async def test_large_uploads_are_kept_aside_and_come_back_whole_and_in_parts(store: Store) -> None:
    alice = await store.alice()
    content = os.urandom(3 * 2**20 + 17)
    assert (await alice.put("p/big", content)).status_code == 200
    assert (await alice.call("GET", "p/big")).content == content
    part = await alice.call("GET", "p/big", range="bytes=1048570-2097160")
    assert (part.status_code, part.content) == (206, content[1048570:2097161])
    assert part.headers["content-range"] == f"bytes 1048570-2097160/{len(content)}"
    last = await alice.call("GET", "p/big", range="bytes=-5")
    assert last.content == content[-5:]
    beyond = await alice.call("GET", "p/big", range=f"bytes={len(content)}-")
    assert (beyond.status_code, code(beyond)) == (416, "InvalidRange")
    assert list(store.app.settings.folder.uploads.iterdir()) == []


async def test_head_tells_the_length_and_sends_nothing(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/a", b"hello")
    head = await alice.call("HEAD", "p/a")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "5", b"")
    empty = await alice.put("p/empty", b"")
    assert empty.status_code == 200
    assert (await alice.call("GET", "p/empty", range="bytes=0-")).content == b""


async def test_a_wrong_md5_is_refused_and_changes_nothing(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/a", b"hello")
    other = base64.b64encode(bytes(16)).decode()
    answer = await alice.put("p/a", b"changed", content_md5=other)
    assert (answer.status_code, code(answer)) == (400, "BadDigest")
    assert (await alice.call("GET", "p/a")).content == b"hello"


async def test_what_is_too_large_is_refused(store: Store) -> None:
    alice = await store.alice()
    answer = await alice.put("p/a", bytes(8 * 2**20 + 1))
    assert (answer.status_code, code(answer)) == (413, "EntityTooLarge")
    assert await alice.keys("prefix=p/") == []


async def test_a_removed_object_is_gone_once(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/d/a", b"1")
    assert (await alice.call("DELETE", "p/d/a")).status_code == 204
    again = await alice.call("DELETE", "p/d/a")
    assert (again.status_code, code(again)) == (404, "NoSuchKey")
    assert code(await alice.call("GET", "p/d/a")) == "NoSuchKey"
    assert await alice.keys("prefix=p/") == []


async def test_conditions_hold_on_generations(store: Store) -> None:
    alice = await store.alice()
    first = await alice.put("p/a", b"1", **{"x-goog-if-generation-match": "0"})
    assert first.status_code == 200, first.text
    again = await alice.put("p/a", b"2", **{"x-goog-if-generation-match": "0"})
    assert (again.status_code, code(again)) == (412, "PreconditionFailed")
    generation = first.headers["x-goog-generation"]
    assert (await alice.put("p/a", b"2", **{"x-goog-if-generation-match": generation})).status_code == 200
    old = await alice.call("GET", "p/a", query=f"?generation={generation}")
    assert (old.status_code, code(old)) == (404, "NoSuchKey")
    removed = await alice.call("DELETE", "p/a", query=f"?generation={generation}")
    assert (removed.status_code, code(removed)) == (412, "PreconditionFailed")


async def test_the_memory_of_agents_is_neither_shown_nor_touched(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/a", b"1")
    memory = await store.tree("p") / ".home/.atoll/threads/t1"
    memory.mkdir(parents=True)
    (memory / "rollout").write_bytes(b"remembered")
    await alice.put("p/b", b"2")
    assert await alice.keys("prefix=p/") == ["p/a", "p/b"]
    assert await alice.keys("prefix=p/.home/") == []
    assert await alice.keys("prefix=p/&delimiter=/") == ["p/a", "p/b"]
    key = "p/.home/.atoll/threads/t1/rollout"
    for method in ("GET", "HEAD", "DELETE"):
        answer = await alice.call(method, key)
        assert answer.status_code in (403, 404), (method, answer.status_code)
    assert (await alice.put(key, b"forged")).status_code == 403
    assert (await alice.put("p/.home", b"in the way")).status_code == 403
    assert (memory / "rollout").read_bytes() == b"remembered"


@pytest.mark.parametrize(
    "path",
    [
        "../q/a",
        "a/../../q/a",
        "a//b",
        "./a",
        "a/.",
        "a/",
        "",
        "x" * 256,
        "/".join(["d" * 200] * 30),
        "a\nb\x01",
        "\x7f/\0",
    ],
)
async def test_odd_names_are_refused_with_a_clear_error(store: Store, path: str) -> None:
    alice = await store.alice()
    await alice.put("q/a", b"mine")
    answer = await alice.put(f"p/{path}", b"x")
    assert (answer.status_code, code(answer)) == (400, "InvalidObjectName"), answer.text
    assert (await alice.call("GET", f"p/{path}")).status_code == 404
    assert (await alice.call("DELETE", f"p/{path}")).status_code == 404
    assert (await alice.call("GET", "q/a")).content == b"mine"


async def test_links_are_no_objects_and_lead_nowhere(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/a", b"1")
    tree = await store.tree("p")
    outside = tree.parent / "outside"
    (tree / "link").symlink_to("/etc/passwd")
    (tree / "up").symlink_to(tree.parent)
    (tree / "here").symlink_to("a")
    assert await alice.keys("prefix=p/") == ["p/a"]
    for key in ("p/link", "p/here", "p/up/outside"):
        assert (await alice.call("GET", key)).status_code == 404
        answer = await alice.put(key, b"x")
        assert (answer.status_code, code(answer)) == (409, "Conflict"), answer.text
        assert (await alice.call("DELETE", key)).status_code == 404
    assert not outside.exists()
    assert (tree / "link").is_symlink()


async def test_a_folder_with_something_in_it_is_never_replaced_by_a_file(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/d/a", b"1")
    answer = await alice.put("p/d", b"x")
    assert (answer.status_code, code(answer)) == (409, "Conflict")
    below = await alice.put("p/d/a/b", b"x")
    assert (below.status_code, code(below)) == (409, "Conflict")
    assert (await alice.call("GET", "p/d/a")).content == b"1"
    await alice.call("DELETE", "p/d/a")
    assert (await alice.put("p/d", b"x")).status_code == 200
    assert (await alice.call("GET", "p/d")).content == b"x"


async def test_case_and_unicode_make_different_objects(store: Store) -> None:
    alice = await store.alice()
    names = ["p/A", "p/a", "p/ä", "p/a\u0308", "p/%2e%2e", "p/a+b", "p/a b", "p/☃&<>\"'"]
    for number, name in enumerate(names):
        assert (await alice.put(name, str(number).encode())).status_code == 200
    assert await alice.keys("prefix=p/") == sorted(names, key=str.encode)
    for number, name in enumerate(names):
        assert (await alice.call("GET", name)).content == str(number).encode()


async def test_a_push_of_many_makes_few_revisions(store: Store) -> None:
    alice = await store.alice()
    for number in range(20):
        await alice.put(f"p/{number}", b"x")
    assert len(await alice.keys("prefix=p/")) == 20
    [workspace] = [one for one in store.records._workspaces.values() if one.name == "p"]
    assert len(await store.records.list_revisions(workspace=workspace.id, before=None, limit=100)) <= 4


async def test_a_list_reads_what_is_new_once(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/a", b"from here")
    await alice.keys("prefix=p/")
    assert store.objects.checksums.read_bytes == 0
    tree = await store.tree("p")
    (tree / "b").write_bytes(b"by an agent")
    await alice.put("p/c", b"")
    for _ in range(3):
        assert await alice.keys("prefix=p/") == ["p/a", "p/b", "p/c"]
        assert store.objects.checksums.read_bytes == len(b"by an agent")


async def test_a_file_that_is_larger_than_any_object_is_none(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/a", b"small")
    tree = await store.tree("p")
    (tree / "d").mkdir()
    (tree / "d" / "holes").touch()
    os.truncate(tree / "d" / "holes", 15 * 2**40)
    (tree / "b").hardlink_to(tree / "d" / "holes")
    await store.touched("p")
    assert await alice.keys("prefix=p/") == ["p/a"]
    assert await alice.keys("prefix=p/&delimiter=/") == ["p/a"]
    for name in ("p/d/holes", "p/b"):
        assert (await alice.call("GET", name)).status_code == 404
    assert store.objects.checksums.read_bytes == 0


async def test_deep_lists_come_in_pages(store: Store) -> None:
    alice = await store.alice()
    names = sorted(["p/a", "p/b/1", "p/b/2", "p/b.txt", "p/c/d/e", "p/z"], key=str.encode)
    for name in names:
        await alice.put(name, b"")
    found: list[str] = []
    while page := await alice.keys(f"prefix=p/&max-keys=2&marker={found[-1] if found else ''}"):
        assert len(page) <= 2
        found += page
    assert found == names
    top = ["p/a", "p/b.txt", "p/b/", "p/c/", "p/z"]
    assert sorted(await alice.keys("prefix=p/&delimiter=/")) == top
    grouped: list[str] = []
    while page := await alice.keys(f"prefix=p/&delimiter=/&max-keys=1&marker={grouped[-1] if grouped else ''}"):
        grouped += page
    assert grouped == top
    assert await alice.keys("prefix=p/b/") == ["p/b/1", "p/b/2"]
    assert await alice.keys("prefix=p/b") == ["p/b.txt", "p/b/1", "p/b/2"]


async def test_the_bucket_lists_workspaces(store: Store) -> None:
    alice = await store.alice()
    await alice.put("one/a", b"")
    await alice.put("two/b", b"")
    assert await alice.keys("delimiter=/") == ["one/", "two/"]
    assert await alice.keys("") == ["one/a", "two/b"]
    assert await alice.keys("marker=one/a") == ["two/b"]
    assert await alice.keys("prefix=t") == ["two/b"]
    assert await alice.keys("prefix=none/") == []


async def test_a_bucket_of_another_name_is_unknown(store: Store) -> None:
    alice = await store.alice()
    signed = alice.signed("GET", "/other/")
    answer = await alice.http.get(f"{alice.url}/other/", headers=signed)
    assert (answer.status_code, code(answer)) == (404, "NoSuchBucket")


async def test_what_objects_here_cannot_do_says_so(store: Store) -> None:
    alice: Client = await store.alice()
    await alice.put("p/a", b"1")
    path = "/testbase-workspaces/p/a"
    signed = alice.signed("PUT", path, "?acl")
    answer = await alice.http.put(f"{alice.url}{path}?acl", headers=signed, content=b"<x/>")
    assert (answer.status_code, code(answer)) == (501, "NotImplemented")
    copied = await alice.call("PUT", "p/b", **{"x-goog-copy-source": "testbase-workspaces/p/a"})
    assert (copied.status_code, code(copied)) == (501, "NotImplemented")
    post = await alice.call("POST", "p/a")
    assert (post.status_code, code(post)) == (405, "MethodNotAllowed")


async def test_uploads_that_come_together_go_in_together_each_with_its_own_answer(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/d/there", b"1")
    names = [f"p/n/{number}" for number in range(12)]
    calls = [
        *(alice.put(name, name.encode()) for name in names),
        alice.put("p/d", b"x"),
        alice.call("DELETE", "p/none"),
    ]
    answers = await asyncio.gather(*calls)
    assert [answer.status_code for answer in answers] == [200] * 12 + [409, 404]
    for name in names:
        assert (await alice.call("GET", name)).content == name.encode()
    first, second = await asyncio.gather(alice.put("p/x", b"file"), alice.put("p/x/below", b"folder"))
    assert sorted([first.status_code, second.status_code]) == [200, 409]
    kept, content = ("p/x", b"file") if first.status_code == 200 else ("p/x/below", b"folder")
    assert (await alice.call("GET", kept)).content == content


async def test_of_several_that_may_replace_nothing_one_does(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/other", b"")
    only_new = {"x-goog-if-generation-match": "0"}
    answers = await asyncio.gather(*(alice.put("p/a", b"%d" % number, **only_new) for number in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    [winner] = [number for number, answer in enumerate(answers) if answer.status_code == 200]
    assert (await alice.call("GET", "p/a")).content == b"%d" % winner
