"""Archives: a folder of a running sandbox as a tar stream, and a tar stream unpacked into one.

Both happen inside the sandbox, by its own `tar`, as its own user: no name in an archive is ever resolved out here.
Surfaces that offer snapshots of a sandbox's folder call it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from atoll.domain.errors import Conflict, InvalidInput, TooLarge, Unavailable, Unsupported
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.process import Exit, ProcessSpec
from atoll.services.files import Files
from atoll.services.paths import check_path
from atoll.services.processes import Processes
from atoll.sidekick.client import ProcessStream
from atoll.sidekick.protocol import STDERR, STDOUT

ARCHIVE_S = 600.0  # an archive that takes longer is given up
EXCLUDES_MAX = 1_024
COMPLAINT_BYTES = 4_096  # of tar's own words that an error repeats
CHANGED_MEANWHILE = 1  # tar's exit for files that changed while it read them: the archive is whole


class Archives:
    """Both: Conflict unless the sandbox runs, Unsupported where its image has no `tar`."""

    def __init__(self, processes: Processes, files: Files, bytes_max: int) -> None:
        """`bytes_max` bounds an archive, either way."""
        self._processes = processes
        self._files = files
        self._bytes_max = bytes_max

    async def pack(
        self, principal: Principal, sandbox_id: str, folder: str, excludes: Sequence[str] = ()
    ) -> AsyncIterator[bytes]:
        """The folder as tar, its names below `./`, without the relative paths in `excludes`. Needs `read`, `execute`.

        InvalidInput (`excludes`, `path`), TooLarge once it has become larger than the bound.
        """
        principal.require(Scope.READ)
        words = [f"--exclude=./{_excluded(path)}" for path in _few(excludes)]
        argv = ("tar", "--anchored", "--no-wildcards", *words, "-cf", "-", "-C", check_path(folder), ".")
        stream = await self._processes.start(principal, sandbox_id, ProcessSpec(argv, timeout_s=ARCHIVE_S))
        return self._packed(principal, sandbox_id, stream)

    async def unpack(self, principal: Principal, sandbox_id: str, folder: str, chunks: AsyncIterator[bytes]) -> None:
        """Unpack a tar into the folder, which is made; what is there stays unless a member has its name.

        Needs `write` and `execute`. InvalidInput for what is no tar, or holds what the sandbox's user may not make
        (devices, names that lead out): what came before it in the archive is there then. TooLarge.
        """
        principal.require(Scope.WRITE)
        principal.require(Scope.EXECUTE)
        await self._files.make_dir(principal, sandbox_id, folder)
        argv = ("tar", "--no-same-owner", "-p", "-xf", "-", "-C", folder)
        spec = ProcessSpec(argv, stdin=True, timeout_s=ARCHIVE_S)
        stream = await self._processes.start(principal, sandbox_id, spec)
        feeding = asyncio.ensure_future(self._feed(stream, chunks))
        reading = asyncio.ensure_future(_complaint(stream))
        try:
            await asyncio.wait((feeding, reading), return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()  # a body that broke off, or is too large, is no bad archive; tar waits for more
            complaint = await reading
            _check_unpacked(stream.exit, complaint)
        finally:
            feeding.cancel()  # when tar stopped reading, its exit has said why
            reading.cancel()
            await asyncio.gather(feeding, reading, return_exceptions=True)
            await self._processes.leave(principal, sandbox_id, stream)

    async def _packed(self, principal: Principal, sandbox_id: str, stream: ProcessStream) -> AsyncIterator[bytes]:
        size, complaint = 0, bytearray()
        try:
            async for kind, data in stream:
                if kind == STDERR:
                    complaint += data[: COMPLAINT_BYTES - len(complaint)]
                    continue
                assert kind == STDOUT
                size += len(data)
                if size > self._bytes_max:
                    raise TooLarge(f"the archive is larger than {self._bytes_max} bytes")
                yield data
            end = _ended(stream.exit)
            if end.code not in (0, CHANGED_MEANWHILE):
                raise Conflict(f"the folder cannot be packed: {_first_line(bytes(complaint))}")
        finally:
            await self._processes.leave(principal, sandbox_id, stream)

    async def _feed(self, stream: ProcessStream, chunks: AsyncIterator[bytes]) -> None:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > self._bytes_max:
                raise TooLarge(f"the archive is larger than {self._bytes_max} bytes")
            await stream.write_stdin(chunk)
        await stream.close_stdin()


async def _complaint(stream: ProcessStream) -> bytes:
    """All that it says until it ends, of which the beginning is kept."""
    complaint = bytearray()
    async for _, data in stream:
        complaint += data[: COMPLAINT_BYTES - len(complaint)]
    return bytes(complaint)


def _few(excludes: Sequence[str]) -> Sequence[str]:
    if len(excludes) > EXCLUDES_MAX:
        raise InvalidInput(f"excludes must be at most {EXCLUDES_MAX} paths", field="excludes")
    return excludes


def _excluded(path: str) -> str:
    """A path below the folder; nothing that could mean another one."""
    check_path(path, field="excludes")
    parts = path.removeprefix("./").rstrip("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidInput("excludes must be paths below the folder, without . and ..", field="excludes")
    return "/".join(parts)


def _check_unpacked(end: Exit | None, complaint: bytes) -> None:
    if _ended(end).code != 0:
        raise InvalidInput(f"the archive cannot be unpacked: {_first_line(complaint)}", field="body")


def _ended(end: Exit | None) -> Exit:
    if end is None:
        raise Unavailable("the end of tar was not told")
    if end.timed_out:
        raise TooLarge(f"the archive takes longer than {ARCHIVE_S:g} s")
    if end.code == 127:
        raise Unsupported("the sandbox's image has no tar")
    return end


def _first_line(complaint: bytes) -> str:
    """What tar said first: its last line only says that there was something before it."""
    lines = [line for line in complaint.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[0][:300] if lines else "tar did not say why"
