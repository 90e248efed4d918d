"""Packages made by tests, and registries on the loopback that give them to the real pip and the real npm."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

NAME, VERSION = "atoll-test-agent", "1.2.3"
ANSWERS = "Registry._answer"  # the coroutine that has each connection
PROGRAM = b"#!/bin/sh\necho it runs\n"
FILES: Mapping[str, bytes] = {"agent/bin/program": PROGRAM, "agent/notes.txt": b"notes", "other/left.txt": b"out"}


def wheel(
    folder: Path, files: Mapping[str, bytes] = FILES, links: Mapping[str, str] | None = None, name: str = NAME
) -> Path:
    """A wheel as pip takes one; programs are those below bin/."""
    folder.mkdir(parents=True, exist_ok=True)
    flat = name.replace("-", "_")
    path = folder / f"{flat}-{VERSION}-py3-none-any.whl"
    about = {
        f"{flat}-{VERSION}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSION}\n".encode(),
        f"{flat}-{VERSION}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{flat}-{VERSION}.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for path_in, content in {**files, **about}.items():
            entry = zipfile.ZipInfo(path_in)
            entry.external_attr = (0o100755 if "/bin/" in path_in else 0o100644) << 16
            made.writestr(entry, content)
        for path_in, target in (links or {}).items():
            entry = zipfile.ZipInfo(path_in)
            entry.external_attr = 0o120777 << 16
            made.writestr(entry, target)
    return path


def tarball(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A package as npm packs one."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if "/bin/" in name else 0o644
            made.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            made.addfile(entry)
    return packed.getvalue()


def integrity(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


class Registry:
    """An npm registry of one package, or, with `hangs`, a server that takes connections and never answers."""

    def __init__(self, package: bytes = b"", *, hangs: bool = False) -> None:
        self.package, self.hangs = package, hangs
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.url = ""
        self.first = asyncio.Event()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head.split()[1])
            self.heads.append(head)
            self.first.set()
            if self.hangs:
                await asyncio.Event().wait()
            body = self.package if self.asked[-1].endswith(".tgz") else self._about()
            writer.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _about(self) -> bytes:
        packed = {"tarball": f"{self.url}/agent.tgz", "integrity": integrity(self.package)}
        about = {"name": NAME, "version": VERSION, "dist": packed}
        return json.dumps({"name": NAME, "dist-tags": {"latest": VERSION}, "versions": {VERSION: about}}).encode()


@asynccontextmanager
async def serving(registry: Registry) -> AsyncIterator[Registry]:
    server = await asyncio.start_server(registry._answer, "127.0.0.1", 0)
    registry.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield registry
        server.close()
        answers = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == ANSWERS]
        for task in answers:
            task.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
