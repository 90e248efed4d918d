"""Export and import over HTTP: a tree goes out and comes back; bombs and broken archives leave nothing (F08, F11)."""

from __future__ import annotations

import io
import tarfile

import pytest
import zstandard

from tests.surfaces.workspaces.client import Client


def archive(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for member in members:
            info, data = (tarfile.TarInfo(member[0]), member[1]) if isinstance(member, tuple) else (member, b"")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return zstandard.compress(plain.getvalue())


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def sized(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


async def test_what_is_exported_comes_back_in_another_workspace(house: object, ws: Client) -> None:
    files = {"a/b.txt": b"b" * 70_000, "c": b"", "large": bytes(2_500_000)}
    await ws.push(files)
    answer = await ws.call("GET", "/export")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zstd")
    with tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().stream_reader(answer.content).read())) as tar:
        assert {name.removeprefix("./") for name in tar.getnames() if tar.getmember(name).isfile()} == set(files)
    made = await ws.call("POST", "/fork", json={"name": "other", "revision": "1"})
    other = Client(house, made.json()["id"], ws.key)
    revision = await other.call("POST", "/import?message=back", content=answer.content)
    assert revision.status_code == 201, revision.text
    assert (revision.json()["reason"], revision.json()["message"]) == ("import", "back")
    assert await other.files() == files
    old = await ws.call("GET", "/export?revision=1")
    with tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().stream_reader(old.content).read())) as tar:
        assert not [one for one in tar if one.isfile()]


async def test_an_import_replaces_the_tree_and_can_be_undone(ws: Client) -> None:
    await ws.push({"old": b"old"})
    answer = await ws.call("POST", "/import?strip=1", content=archive(("top/new", b"new")))
    assert answer.status_code == 201, answer.text
    assert await ws.files() == {"new": b"new"}
    await ws.ok("POST", "/undo")
    assert await ws.files() == {"old": b"old"}


BROKEN = {
    "nothing": b"",
    "no zstd": b"plain text that is no archive",
    "no tar": zstandard.compress(b"plain text that is no archive" * 100),
    "cut": archive(("a", b"x" * 100_000))[:-20],
    "appended": archive(("a", b"x")) + b"more",
    "a size that lies": zstandard.compress(sized("a", 2**40).tobuf() + bytes(2**27)),
    "traversal": archive(("../../escaped", b"x")),
    "absolute": archive(("/etc/cron.d/escaped", b"x")),
    "through a link": archive(special("link", tarfile.SYMTYPE, "/etc"), ("link/escaped", b"x")),
    "a hardlink out": archive(special("hard", tarfile.LNKTYPE, "/etc/passwd")),
    "a device": archive(special("null", tarfile.CHRTYPE)),
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=list(BROKEN))
async def test_a_broken_archive_changes_nothing(ws: Client, body: bytes) -> None:
    await ws.push({"kept": b"kept"})
    before = await ws.head()
    answer = await ws.call("POST", "/import", content=body)
    assert answer.status_code in (400, 413), answer.text
    assert await ws.head() == before
    assert await ws.files() == {"kept": b"kept"}


async def test_an_import_stops_at_the_quota(ws: Client) -> None:
    await ws.ok("PATCH", "", json={"quotaBytes": 2**20})
    before = await ws.head()
    answer = await ws.call("POST", "/import", content=archive(("big", b"x" * 2**24)))
    assert answer.status_code in (400, 413), answer.text
    assert await ws.head() == before
