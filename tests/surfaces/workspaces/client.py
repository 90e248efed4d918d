"""A small client of the sync protocol over HTTP, for these tests: what it says on the wire is written out by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import zstandard

from atoll.domain.tree import CHUNK_BYTES, Entry, EntryKind, chunk_id, decode_entry, encode_entry, text

HEAD = struct.Struct(">32sII")
ENTRIES = {"content-type": "application/vnd.atoll.entries+zstd"}


def frame(data: bytes, *, id: bytes | None = None, size: int | None = None, stored: bytes | None = None) -> bytes:
    """A chunk's frame; each part of it can lie."""
    stored = zstandard.compress(data) if stored is None else stored
    return HEAD.pack(id or chunk_id(data), len(data) if size is None else size, len(stored)) + stored


def file(path: str | bytes, data: bytes, mode: int = 0o644) -> Entry:
    raw = path.encode() if isinstance(path, str) else path
    ids = b"".join(chunk_id(data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES))
    return Entry(raw, EntryKind.FILE, mode, 10**18, size=len(data), chunks=ids)


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path.encode(), EntryKind.DIRECTORY, mode, 10**18)


def lines(changes: Iterable[Entry | bytes]) -> bytes:
    """A body of entries in the order in which they are given."""
    coded = [b'["%s"]' % one if isinstance(one, bytes) else encode_entry(one) for one in changes]
    return zstandard.compress(b"".join(line + b"\n" for line in coded))


@dataclass
class Client:
    """One workspace of somebody, on one server."""

    house: Any
    ws: str
    key: str | None

    async def call(self, method: str, path: str, **more: Any) -> Any:
        return await self.house.call(method, f"/v1/workspaces/{self.ws}{path}", self.key, **more)

    async def ok(self, method: str, path: str, **more: Any) -> Any:
        answer = await self.call(method, path, **more)
        assert answer.status_code < 300, (path, answer.status_code, answer.text)
        return answer.json() if answer.headers["content-type"] == "application/json" else answer.content

    async def head(self) -> dict[str, Any]:
        return (await self.ok("GET", "/sync/head"))["revision"]

    async def send(self, *chunks: bytes) -> dict[str, Any]:
        return await self.ok("POST", "/sync/chunks", content=b"".join(map(frame, chunks)))

    async def try_commit(self, changes: Iterable[Entry | bytes], base: str) -> Any:
        return await self.call("POST", f"/sync/commit?base={base}", content=lines(changes), headers=ENTRIES)

    async def push(self, files: Mapping[str, bytes | None], message: str = "") -> dict[str, Any]:
        """Write files, or with None take a path away; folders are made for new ones."""
        base = (await self.head())["id"]
        there = {entry.path for entry in await self.entries() if isinstance(entry, Entry)}
        changes: dict[bytes, Entry | bytes] = {}
        for path, data in files.items():
            parts = path.split("/")
            for depth in range(1, len(parts)):
                above = "/".join(parts[:depth])
                if above.encode() not in there:
                    changes[above.encode()] = folder(above)
            changes[path.encode()] = path.encode() if data is None else file(path, data)
            if data:
                await self.send(*(data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)))
        body = lines(changes[path] for path in sorted(changes))
        more = f"&message={message}" if message else ""
        return await self.ok("POST", f"/sync/commit?base={base}{more}", content=body, headers=ENTRIES)

    async def entries(self, query: str = "") -> list[Entry | bytes]:
        body = await self.ok("GET", f"/sync/entries{query}")
        found = zstandard.ZstdDecompressor().decompressobj().decompress(body).splitlines()
        return [line[2:-2] if line.count(b",") == 0 else decode_entry(line) for line in found]

    async def files(self, revision: str = "HEAD") -> dict[str, bytes]:
        """The contents of all files of a revision."""
        found = await self.entries(f"?revision={revision}")
        there = [entry for entry in found if isinstance(entry, Entry) and entry.kind is EntryKind.FILE]
        return {text(entry.path): await self.read(text(entry.path), revision) for entry in there}

    async def read(self, path: str, revision: str = "HEAD") -> bytes:
        answer = await self.call("GET", "/file", params={"path": path, "revision": revision})
        assert answer.status_code == 200, answer.text
        assert int(answer.headers["content-length"]) == len(answer.content)
        return answer.content
