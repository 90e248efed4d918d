"""The tools that read, write and list files of a sandbox."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Annotated, Any, Literal, cast

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations
from pydantic import Field

from atoll.domain.errors import InvalidInput
from atoll.mcp.answers import EntriesOut, EntryOut, FileOut, WrittenOut
from atoll.mcp.calling import Caller, Ctx, Server, told
from atoll.mcp.sandbox_tools import SandboxRef
from atoll.sdk import AsyncSandbox

READ_BYTES, READ_BYTES_MAX = 64 * 1024, 2**20
OFFSET_MAX = 256 * 2**20  # bytes before it travel too
WRITE_CHARS_MAX = 4_000_000
ENTRIES_MAX = 2_000
Path = Annotated[str, Field(min_length=1, max_length=4_096, description="absolute, or below the working directory")]


def add_to(mcp: MCPServer, server: Server) -> None:
    @mcp.tool(annotations=ToolAnnotations(read_only_hint=True))
    @told
    async def read_file(
        ctx: Ctx,
        path: Path,
        sandbox: SandboxRef = None,
        offset: Annotated[int, Field(ge=0, le=OFFSET_MAX, description="the first byte wanted")] = 0,
        max_bytes: Annotated[int, Field(ge=1, le=READ_BYTES_MAX)] = READ_BYTES,
    ) -> FileOut:
        """Read a file of a sandbox: as text, or as base64 where it is none."""
        found = await Caller(server, ctx).sandbox(sandbox)
        data, size = await _part(found, path, offset, max_bytes)
        text = _text(data)
        next_offset = offset + (len(data) if text is None else len(text.encode()))
        return FileOut(
            path=path,
            size=size,
            content=base64.b64encode(data).decode() if text is None else text,
            encoding="base64" if text is None else "utf-8",
            next_offset=next_offset if next_offset < size else None,
        )

    @mcp.tool(annotations=ToolAnnotations(destructive_hint=True, idempotent_hint=True))
    @told
    async def write_file(
        ctx: Ctx,
        path: Path,
        content: Annotated[str, Field(max_length=WRITE_CHARS_MAX)],
        sandbox: SandboxRef = None,
        encoding: Literal["utf-8", "base64"] = "utf-8",
    ) -> WrittenOut:
        """Write a file in a sandbox, in one step; folders above it are made."""
        found = await Caller(server, ctx).sandbox(sandbox)
        size = await found.files.write(path, _bytes(content, encoding))
        return WrittenOut(path=path, size=size)

    @mcp.tool(annotations=ToolAnnotations(read_only_hint=True))
    @told
    async def list_files(
        ctx: Ctx,
        path: Path = ".",
        sandbox: SandboxRef = None,
        limit: Annotated[int, Field(ge=1, le=ENTRIES_MAX)] = 500,
    ) -> EntriesOut:
        """What is in a folder of a sandbox, one level of it, by name."""
        found = await (await Caller(server, ctx).sandbox(sandbox)).files.list(path)
        entries = [EntryOut(name=one.name, kind=cast("Any", one.kind), size=one.size) for one in found[:limit]]
        return EntriesOut(path=path, entries=entries, truncated=len(found) > limit)


class _Enough(Exception):
    """As much of the file as was asked for has come."""


class _Window(io.BytesIO):
    """Takes the bytes of a file from `first` on, `most` of them, and then refuses more."""

    def __init__(self, first: int, most: int) -> None:
        super().__init__()
        self.data = bytearray()
        self._skip, self._most = first, most

    def write(self, block: Any) -> int:
        skipped = min(self._skip, len(block))
        self._skip -= skipped
        self.data += block[skipped : skipped + self._most - len(self.data)]
        if len(self.data) >= self._most:
            raise _Enough
        return len(block)


async def _part(sandbox: AsyncSandbox, path: str, offset: int, most: int) -> tuple[bytes, int]:
    """The bytes wanted, and how many the whole file has."""
    window = _Window(offset, most)
    try:
        size = await sandbox.files.download_into(path, window)
    except _Enough:
        size = max((await sandbox.files.stat(path)).size, offset + len(window.data))
    return bytes(window.data), size


def _text(data: bytes) -> str | None:
    """As text, without the half of a character at the end of a part; None when it is none."""
    for cut in range(4):
        try:
            return data[: len(data) - cut].decode() if cut < len(data) or not data else None
        except UnicodeDecodeError:
            continue
    return None


def _bytes(content: str, encoding: str) -> bytes:
    if encoding == "utf-8":
        return content.encode("utf-8", "surrogateescape")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("content is not valid base64") from None
