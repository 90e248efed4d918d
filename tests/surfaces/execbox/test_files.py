"""Files over HTTP: streamed both ways, whatever their size; the same path rule at every door (F01, F06, F07)."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from atoll.domain.errors import Conflict

MIB = 2**20


@pytest.fixture
async def session(house: Any) -> dict[str, Any]:
    return await house.create(command=["sleep", "600"])


def files(session: Any, query: str = "") -> str:
    return f"/v1/sessions/{session['id']}/files{query}"


async def test_a_file_comes_back_as_it_went_in(house: Any, session: Any) -> None:
    data = bytes(range(256)) * 1000
    put = await house.call("POST", files(session, "?path=/tmp/deep/er/data.bin"), content=data)
    got = await house.call("GET", files(session, "?path=/tmp/deep/er/data.bin"))
    assert (put.status_code, put.json()) == (201, {"path": "/tmp/deep/er/data.bin", "size": 256_000})
    assert (got.status_code, got.content) == (200, data)
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-length"] == "256000"
    assert got.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_000_001])
async def test_any_size_goes_through(house: Any, session: Any, size: int) -> None:
    data = b"z" * size
    assert (await house.call("POST", files(session, "?path=a"), content=data)).json()["size"] == size
    assert (await house.call("GET", files(session, "?path=a"))).content == data


async def test_a_directory_is_listed_and_a_file_described(house: Any, session: Any) -> None:
    await house.call("POST", files(session, "?path=/tmp/d/a.txt&mode=600"), content=b"abc")
    await house.call("POST", files(session, "?path=/tmp/d/sub&directory=true"))
    listed = (await house.call("GET", files(session, "?path=/tmp/d&list=true"))).json()
    shown = [(e["name"], e["size"], e["isDir"], e["kind"]) for e in listed["entries"]]
    assert listed["path"] == "/tmp/d"
    assert shown == [("a.txt", 3, False, "file"), ("sub", 0, True, "directory")]
    assert listed["entries"][0]["mode"] == 0o600  # a decimal number
    stat = (await house.call("GET", files(session, "?path=/tmp/d/a.txt&stat=true"))).json()
    assert (stat["path"], stat["name"], stat["size"], stat["mode"]) == ("/tmp/d/a.txt", "a.txt", 3, 0o600)


async def test_files_are_moved_and_removed(house: Any, session: Any) -> None:
    await house.call("POST", files(session, "?path=/tmp/a"), content=b"x")
    moved = await house.call("POST", files(session, "/move"), json={"from": "/tmp/a", "to": "/tmp/b"})
    assert (moved.status_code, moved.json()) == (200, {"from": "/tmp/a", "to": "/tmp/b"})
    assert (await house.call("GET", files(session, "?path=/tmp/a"))).status_code == 404
    removed = await house.call("DELETE", files(session, "?path=/tmp/b"))
    assert (removed.status_code, removed.json()) == (200, {"path": "/tmp/b", "removed": True})
    await house.call("POST", files(session, "?path=/tmp/full/x"), content=b"x")
    assert (await house.call("DELETE", files(session, "?path=/tmp/full"))).status_code in (400, 409)
    assert (await house.call("DELETE", files(session, "?path=/tmp/full&recursive=true"))).status_code == 200


@pytest.mark.parametrize("path", ["", "a%00b", "x" * 4097])
@pytest.mark.parametrize("door", ["read", "list", "stat", "write", "mkdir", "remove", "move from", "move to"])
async def test_f01_a_path_that_breaks_the_rule_is_a_400_at_every_door(
    house: Any, session: Any, path: str, door: str
) -> None:
    plain = path.replace("%00", "\0")
    if door.startswith("move"):
        body = {"from": "/tmp/a", "to": "/tmp/a"} | {door.split()[1]: plain}
        answer = await house.call("POST", files(session, "/move"), json=body)
    else:
        more = {"list": "&list=true", "stat": "&stat=true", "mkdir": "&directory=true"}.get(door, "")
        method = {"write": "POST", "mkdir": "POST", "remove": "DELETE"}.get(door, "GET")
        answer = await house.call(method, files(session, f"?path={path}{more}"))
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST"), answer.text


@pytest.mark.parametrize(
    "path", ["../../../etc/passwd", "%2e%2e/%2e%2e/x", "..%5c..%5cx", "%252e%252e/x", "//etc/x", "/tmp/../x"]
)
async def test_f01_dots_and_slashes_stay_inside(house: Any, session: Any, path: str) -> None:
    put = await house.call("POST", files(session, f"?path={path}"), content=b"inside")
    assert put.status_code in (201, 400, 404)
    if put.status_code == 201:
        assert (await house.call("GET", files(session, f"?path={path}"))).content == b"inside"


async def test_f06_what_is_no_regular_file_is_refused(house: Any, session: Any) -> None:
    for path in ("/tmp", "/"):
        answer = await house.call("GET", files(session, f"?path={path}"))
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert (await house.call("GET", files(session, "?path=/none"))).json()["code"] == "NOT_FOUND"


@pytest.mark.parametrize("mode", ["8", "rwx", "77777", "-1", "0x1", "0o"])
async def test_a_mode_is_octal(house: Any, session: Any, mode: str) -> None:
    answer = await house.call("POST", files(session, f"?path=/tmp/a&mode={mode}"), content=b"")
    assert (answer.status_code, answer.json()["field"]) == (400, "mode")


async def test_f07_an_upload_that_breaks_off_leaves_the_old_file(house: Any, session: Any) -> None:
    await house.call("POST", files(session, "?path=/tmp/a"), content=b"old")

    async def broken() -> AsyncIterator[bytes]:
        yield b"new" * 1000
        await asyncio.sleep(0.1)
        raise ConnectionError("the client dies")

    async with httpx2.AsyncClient() as dying:
        with pytest.raises(ConnectionError):
            await dying.post(
                house.url + files(session, "?path=/tmp/a"),
                content=broken(),
                headers=house.headers("sk_" + "a1" * 32),
            )
    await asyncio.sleep(0.1)
    assert (await house.call("GET", files(session, "?path=/tmp/a"))).content == b"old"


async def test_f07_an_upload_beyond_any_disk_is_a_413(open_house: Any) -> None:
    tree = {"defaults": {"disk_bytes": MIB}, "maxima": {"disk_bytes": MIB}}
    async with open_house(limits=tree) as house:
        session = await house.create()

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(64):
                yield b"x" * 65_536

        told = await house.call("POST", files(session, "?path=/tmp/a"), content=b"x" * (MIB + 1))
        found = await house.call("POST", files(session, "?path=/tmp/a"), content=endless())
        assert [answer.json()["code"] for answer in (told, found)] == ["TOO_LARGE", "TOO_LARGE"]
        assert (await house.call("GET", files(session, "?path=/tmp/a"))).status_code == 404


async def test_a_download_that_breaks_inside_breaks_off_outside(
    house: Any, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.call("POST", files(session, "?path=/tmp/a"), content=b"x" * 1000)
    entry = await house.app.sandboxes.files.stat(house.keys.principals["sk_" + "a1" * 32], session["id"], "/tmp/a")
    closed = []

    async def read(*_: Any) -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"x" * 10
                raise Conflict("the sandbox has ended")
            finally:
                closed.append(True)

        return entry, pieces()

    monkeypatch.setattr(house.app.sandboxes.files, "read", read)
    with pytest.raises(httpx2.RemoteProtocolError):
        await house.call("GET", files(session, "?path=/tmp/a"))
    assert closed == [True]


async def test_a_large_file_streams_through_without_being_held(
    house: Any, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake holds files in memory, so the services' file calls are replaced by ones that count."""
    size, chunk = 256 * MIB, b"x" * 262_144

    async def write(*_: Any, mode: int | None = None) -> int:
        return sum([len(part) async for part in _[3]])

    async def read(*_: Any) -> Any:
        entry = await house.app.sandboxes.files.stat(*_[:2], "/tmp")

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(size // len(chunk)):
                yield chunk

        from dataclasses import replace

        return replace(entry, size=size), pieces()

    async def source() -> AsyncIterator[bytes]:
        for _ in range(size // len(chunk)):
            yield chunk

    monkeypatch.setattr(house.app.sandboxes.files, "write", write)
    monkeypatch.setattr(house.app.sandboxes.files, "read", read)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    put = await house.call("POST", files(session, "?path=/tmp/big"), content=source())
    assert put.json()["size"] == size
    seen = 0
    async with house.http.stream(
        "GET", house.url + files(session, "?path=/tmp/big"), headers=house.headers("sk_" + "a1" * 32)
    ) as got:
        async for part in got.aiter_raw():
            seen += len(part)
    assert seen == size
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 64 * 1024
