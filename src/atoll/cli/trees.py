"""Folders into and out of a sandbox as a tar stream through the sandbox's own tar; `atoll cp` calls it.

What comes out of a sandbox is not trusted: its archive is only read, never obeyed. Every path is checked, links are
made last so that nothing is written through them, and links that lead outside are left out.
"""

from __future__ import annotations

import asyncio
import io
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from atoll.cli.failure import Failed
from atoll.sdk.errors import ConnectionFailed

if TYPE_CHECKING:
    from atoll.sdk import AsyncProcess, AsyncSandbox

    Start = Callable[[str, int | None], Callable[[int], None]]

BLOCK_BYTES = 262_144
NO_TAR = 127
_MESSAGE_BYTES_MAX = 2_000


async def send_tree(sandbox: AsyncSandbox, local: Path, path: str, progress: Start) -> None:
    """Copy a local folder to `path`, which is made."""
    await sandbox.files.mkdir(path)
    moved = progress(local.name, await asyncio.to_thread(_tree_bytes, local))
    process = await sandbox.exec(["tar", "-xpf", "-", "-C", path])
    process.reconnect_s = 0  # bytes lost on the way in would spoil the archive
    async with process:
        messages = asyncio.create_task(_messages(process))
        sink = _Sink(process, asyncio.get_running_loop(), moved)
        try:
            with suppress(ConnectionFailed):  # if tar did not just end, the messages fail for it too
                await asyncio.to_thread(_pack, local, sink)
                await process.close_stdin()
        finally:
            text = await messages
    _check(process, text)


async def fetch_tree(sandbox: AsyncSandbox, path: str, target: Path, progress: Start) -> int:
    """Copy the folder `path` to `target`, which may exist; how many links and special files were left out."""
    moved = progress(PurePosixPath(path).name or path, None)
    process = await sandbox.exec(["tar", "-C", path, "-cf", "-", "."], stdin=False)
    process.reconnect_s = 0
    # Beside the target, so that moving it there is one step; with a name of its own, so that nobody waits in it.
    await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
    fresh = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=f".{target.name}.", dir=target.parent))
    try:
        async with process:
            source = _Source(process, asyncio.get_running_loop(), moved)
            unpacking = _Unpacking(fresh)
            await asyncio.to_thread(unpacking.run, source)
            await process.wait()
        _check(process, bytes(source.messages))
        await asyncio.to_thread(_move_in, fresh, target)
    finally:
        await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
    return unpacking.skipped


def _check(process: AsyncProcess, text: bytes) -> None:
    if process.exit_code == NO_TAR:
        raise Failed("the sandbox has no tar, which copying a folder needs")
    if process.exit_code:
        raise Failed(f"tar in the sandbox exited with {process.exit_code}: {text.decode(errors='replace').strip()}")


async def _messages(process: AsyncProcess) -> bytes:
    text = bytearray()
    async for chunk in process:
        text += chunk.data[: _MESSAGE_BYTES_MAX - len(text)]
    return bytes(text)


class _Sink(io.RawIOBase):
    """A file whose bytes go to a process's input; used from a thread."""

    def __init__(self, process: AsyncProcess, loop: asyncio.AbstractEventLoop, moved: Callable[[int], None]) -> None:
        self._process = process
        self._loop = loop
        self._moved = moved

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        block = bytes(data)
        asyncio.run_coroutine_threadsafe(self._process.write(block), self._loop).result()
        self._moved(len(block))
        return len(block)


class _Source(io.RawIOBase):
    """A file whose bytes are a process's output; used from a thread. What it says on stderr is kept in `messages`."""

    def __init__(self, process: AsyncProcess, loop: asyncio.AbstractEventLoop, moved: Callable[[int], None]) -> None:
        self._process = process
        self._loop = loop
        self._moved = moved
        self._rest = b""
        self.messages = bytearray()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        pieces: list[bytes] = []
        left = size
        while left:
            if not self._rest:
                chunk = asyncio.run_coroutine_threadsafe(self._process.read(), self._loop).result()
                if chunk is None:
                    break
                if chunk.stream == "stderr":
                    self.messages += chunk.data[: _MESSAGE_BYTES_MAX - len(self.messages)]
                    continue
                self._moved(len(chunk.data))
                self._rest = chunk.data
            piece, self._rest = self._rest[:left], self._rest[left:]
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


def _tree_bytes(root: Path) -> int:
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def _pack(root: Path, sink: _Sink) -> None:
    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member if member.isreg() or member.isdir() or member.issym() or member.islnk() else None

    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=BLOCK_BYTES) as archive:
        for name in sorted(os.listdir(root)):
            archive.add(root / name, arcname=name, filter=anonymous)


class _Unpacking:
    """Makes the members of an archive below a folder that nobody else writes to."""

    def __init__(self, root: Path) -> None:
        self.skipped = 0
        self._root = root
        self._links: list[tuple[str, str]] = []
        self._modes: list[tuple[str, int]] = []

    def run(self, source: _Source) -> None:
        try:
            with tarfile.open(fileobj=source, mode="r|", bufsize=BLOCK_BYTES) as archive:
                for member in archive:
                    self._take(archive, member)
        except tarfile.ReadError:
            if source.read(1):
                raise Failed("the sandbox's tar wrote something that is no archive") from None
            return  # nothing came: its exit code and messages say why
        for name, target in self._links:
            self._link(name, target)
        for name, mode in reversed(self._modes):  # a folder that nobody may write to is closed when it is full
            os.chmod(self._root / name, mode)

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = posixpath.normpath(member.name)
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise Failed(f"the sandbox's archive has an entry outside of it: {member.name!r}")
        path = self._root / name
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            self._modes.append((name, member.mode & 0o777 | 0o700))
        elif member.isreg():
            path.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
                shutil.copyfileobj(content, file, BLOCK_BYTES)
                os.fchmod(file.fileno(), member.mode & 0o777)
            os.utime(path, (member.mtime, member.mtime))
        elif member.issym():
            self._links.append((name, member.linkname))
        elif member.islnk():
            self._copy(name, posixpath.normpath(member.linkname))
        else:
            self.skipped += 1

    def _link(self, name: str, target: str) -> None:
        """A symbolic link, if it stays inside."""
        lands = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if target.startswith("/") or lands == ".." or lands.startswith("../") or os.path.lexists(self._root / name):
            self.skipped += 1
            return
        (self._root / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, self._root / name)

    def _copy(self, name: str, target: str) -> None:
        """A second name of a file that came before; no link exists yet, so that the path leads where it says."""
        inside = not target.startswith("/") and ".." not in target.split("/")
        if not inside or not (self._root / target).is_file():
            self.skipped += 1
            return
        (self._root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(self._root / target, self._root / name, follow_symlinks=False)


def _move_in(fresh: Path, target: Path) -> None:
    """In one step where nothing is there yet; else file by file into what is there."""
    os.chmod(fresh, 0o755)
    if not os.path.lexists(target):
        os.rename(fresh, target)
        return
    for folder, folders, names in os.walk(fresh):
        place = target / os.path.relpath(folder, fresh)
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise Failed(f"{place} is in the way")
        place.mkdir(exist_ok=True)
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]:
            os.replace(os.path.join(folder, name), place / name)
