"""The fake sandbox's `tar`: packs and unpacks files and folders, as far as the archives service asks it to."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from atoll.domain.errors import AtollError
from atoll.domain.process import FileEntry
from atoll.testing.fake_files import FakeFiles

if TYPE_CHECKING:
    from atoll.testing.fake_programs import Context

FAILED = 2  # as the real one's fatal errors


async def fake_tar(context: Context, args: list[str]) -> int:
    """`tar [--exclude=./PATH] -cf - -C FOLDER .` and `tar -xf - -C FOLDER`."""
    folder = context.path(args[args.index("-C") + 1])
    if not context.files.is_dir(folder):
        await context.process.complain(f"tar: {folder}: Cannot open: No such file or directory")
        return FAILED
    if "-cf" in args:
        left_out = {arg.removeprefix("--exclude=") for arg in args if arg.startswith("--exclude=")}
        await context.out(_packed(context.files, folder, left_out))
        return 0
    data = b""
    while piece := await context.process.read():
        data += piece
    try:
        _unpack(context.files, folder, data)
    except (tarfile.TarError, AtollError) as error:
        await context.process.complain(f"tar: {error}")
        return FAILED
    return 0


def _packed(files: FakeFiles, folder: str, left_out: set[str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, entry in _walk(files, folder, "."):
            if any(name == path or name.startswith(f"{path}/") for path in left_out):
                continue
            member = tarfile.TarInfo(name)
            member.mode, member.mtime = entry.mode, int(entry.modified_at)
            if entry.kind == "directory":
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            elif entry.kind == "file":
                member.size = entry.size
                tar.addfile(member, io.BytesIO(files.read(f"{folder}/{name}")[1]))
    return made.getvalue()


def _walk(files: FakeFiles, folder: str, at: str) -> Iterator[tuple[str, FileEntry]]:
    for entry in files.list(f"{folder}/{at}"):
        name = f"{at}/{entry.name}"
        yield name, entry
        if entry.kind == "directory":
            yield from _walk(files, folder, name)


def _unpack(files: FakeFiles, folder: str, data: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            parts = member.name.lstrip("/").split("/")
            if ".." in parts:
                raise tarfile.TarError(f"{member.name}: Member name contains '..'")
            path = f"{folder}/{'/'.join(parts)}"
            if member.isdir():
                files.make_dir(path)
            elif member.isfile() and (source := tar.extractfile(member)) is not None:
                files.write(path, source.read(), member.mode)
            else:
                raise tarfile.TarError(f"{member.name}: Cannot mknod: Operation not permitted")
