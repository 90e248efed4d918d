"""Files of a sandbox: `sandbox.files`. Paths are the sandbox's own; relative ones start at its working directory.

Uploads and downloads are streams: neither this side nor the server ever holds a whole file.
"""

# ruff: noqa: ASYNC230, ASYNC240 (opening and looking up a local file is quick; its bytes move in a thread)
from __future__ import annotations

import os
import stat as stat_bits
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from atoll.domain.errors import Internal, NotFound
from atoll.domain.process import FileEntry
from atoll.sdk._async.api import CALL_TIMEOUT_S, AsyncApi
from atoll.sdk._async.http import AsyncUpload
from atoll.sdk._async_io import async_write
from atoll.sdk.requests import target_of
from atoll.sdk.values import entry_of

Progress = Callable[[int], None]  # called with the number of bytes that moved since the last call
READ_BYTES_MAX = 256 * 2**20  # `read` and `read_bytes`; `download` has no limit


class AsyncFiles:
    """Errors: NotFound, InvalidInput (not a regular file, ...), Conflict when the sandbox does not run."""

    def __init__(self, api: AsyncApi, sandbox_id: str) -> None:
        self._api = api
        self._base = f"/v1/sessions/{sandbox_id}/files"

    async def read(self, path: str, encoding: str = "utf-8") -> str:
        """A file's text."""
        return (await self.read_bytes(path)).decode(encoding)

    async def read_bytes(self, path: str) -> bytes:
        """A file's bytes; TooLarge beyond READ_BYTES_MAX."""
        body = await self._api.stream(target_of(self._base, path=path), timeout_s=CALL_TIMEOUT_S)
        return await body.read(READ_BYTES_MAX)

    async def write(self, path: str, data: str | bytes | IO[bytes], *, mode: int | None = None) -> int:
        """Replace a file in one step, making its parents; returns its size. Text is written as UTF-8."""
        if isinstance(data, str):
            data = data.encode()
        body = data if isinstance(data, bytes) else AsyncUpload(data, None)
        return await self._put(path, body, mode)

    async def list(self, path: str = ".") -> Sequence[FileEntry]:
        """The entries of a directory, sorted by name."""
        answer = await self._api.call("GET", target_of(self._base, path=path, list=True))
        return [entry_of(entry) for entry in answer["entries"]]

    async def stat(self, path: str) -> FileEntry:
        """One entry; symlinks are not followed."""
        return entry_of(await self._api.call("GET", target_of(self._base, path=path, stat=True)))

    async def exists(self, path: str) -> bool:
        try:
            await self.stat(path)
        except NotFound:
            return False
        return True

    async def mkdir(self, path: str) -> None:
        """A directory with its parents; no error when it exists."""
        await self._api.call("POST", target_of(self._base, path=path, directory=True))

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """A file or an empty directory; `recursive` takes a full one."""
        await self._api.call("DELETE", target_of(self._base, path=path, recursive=recursive or None))

    async def move(self, source: str, destination: str) -> None:
        """Rename; replaces a file at the destination."""
        await self._api.call("POST", f"{self._base}/move", {"from": source, "to": destination})

    async def upload(self, local: str | os.PathLike[str], path: str, *, progress: Progress | None = None) -> int:
        """Copy a local file into the sandbox, permission bits included; returns its size."""
        with open(local, "rb") as file:
            status = os.fstat(file.fileno())
            size = status.st_size if stat_bits.S_ISREG(status.st_mode) else None
            body = AsyncUpload(_counted(file, progress), size)
            return await self._put(path, body, stat_bits.S_IMODE(status.st_mode) & 0o777)

    async def download(self, path: str, local: str | os.PathLike[str], *, progress: Progress | None = None) -> int:
        """Copy a file out of the sandbox; returns its size. The local file appears whole or not at all."""
        target = Path(local)
        if target.is_dir():
            target = target / Path(path).name
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with open(partial, "wb", buffering=0) as file:
                size = await self.download_into(path, file, progress=progress)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return size

    async def download_into(self, path: str, file: IO[bytes], *, progress: Progress | None = None) -> int:
        """Append a file of the sandbox to an open local one; returns its size."""
        size = 0
        async with await self._api.stream(target_of(self._base, path=path), timeout_s=CALL_TIMEOUT_S) as body:
            async for block in body.blocks():
                await async_write(file, block)
                size += len(block)
                if progress is not None:
                    progress(len(block))
        return size

    async def _put(self, path: str, body: bytes | AsyncUpload, mode: int | None) -> int:
        target = target_of(self._base, path=path, mode=None if mode is None else f"{mode:o}")
        answer: Any = await self._api.upload(target, body, timeout_s=CALL_TIMEOUT_S)
        if not isinstance(answer, dict) or "size" not in answer:
            raise Internal("the server's answer to an upload has no size")
        return int(answer["size"])  # type: ignore[arg-type]


class _Counted:
    """A file that tells how far it was read."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self._file = file
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._progress(len(data))
        return data


def _counted(file: IO[bytes], progress: Progress | None) -> Any:
    return file if progress is None else _Counted(file, progress)
