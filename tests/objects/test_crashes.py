"""C01: an upload that is cut anywhere leaves the file as it was or as it is to be, and the next list knows which."""

from __future__ import annotations

import asyncio

import pytest

from atoll.domain import crash
from atoll.domain.errors import Unavailable
from tests.services.conftest import ALICE

from .conftest import Store


def _fails(name: str) -> None:
    raise Unavailable(f"cut at {name}")


@pytest.mark.parametrize("point", sorted(one for one in crash.POINTS if one.startswith("objects.")))
async def test_c01_a_cut_upload_is_all_or_nothing(store: Store, point: str) -> None:
    alice = await store.alice()
    before = await alice.put("p/a", b"before")
    assert await alice.keys("prefix=p/") == ["p/a"]
    with crash.armed(point, _fails):
        cut = await alice.put("p/a", b"after")
    assert cut.status_code == 503
    got = await alice.call("GET", "p/a")
    assert got.content == (b"after" if point == "objects.put.written" else b"before")
    assert (got.headers["x-goog-generation"] == before.headers["x-goog-generation"]) is (got.content == b"before")
    assert (await alice.put("p/a", b"again")).status_code == 200
    assert (await alice.call("GET", "p/a")).content == b"again"


async def test_an_upload_that_breaks_off_changes_nothing(store: Store) -> None:
    alice = await store.alice()
    await alice.put("p/a", b"before")
    path = "/testbase-workspaces/p/a"
    host, port = alice.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    headers = {"host": host, "content-length": "4000000"} | alice.signed("PUT", path)
    head = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    writer.write(f"PUT {path} HTTP/1.1\r\n{head}\r\n".encode() + bytes(3_000_000))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    assert (await alice.call("GET", "p/a")).content == b"before"
    async with asyncio.timeout(5), store.objects.upload(ALICE, "p"):
        assert list(store.app.settings.folder.uploads.iterdir()) == []
