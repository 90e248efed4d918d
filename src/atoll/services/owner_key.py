"""The owner key: made on the first start, kept in a file that only its owner reads, found again on later starts.

The composition root calls `prepare` before the server listens.
"""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from atoll.domain import crash
from atoll.domain.errors import Conflict, Unauthenticated, Unavailable
from atoll.domain.key import KeyKind, new_key_text
from atoll.services.keys import Keys

FILE_BYTES_MAX = 1_024


@dataclass(frozen=True, slots=True)
class OwnerKey:
    """The owner key's text; `minted` when this start made it."""

    text: str
    minted: bool


async def prepare(keys: Keys, path: Path, *, may_mint: bool, administered: bool = False) -> OwnerKey | None:
    """The key in the file, if it is good; else a new one, in the file before it can open anything.

    `may_mint` is False where others can reach the server: then None, or Conflict when no key exists at all. A server
    that is `administered` has one in its settings, which makes others.
    """
    text = await asyncio.to_thread(_read, path)
    if text is not None and await _opens(keys, text):
        return OwnerKey(text, minted=False)
    if not may_mint:
        if administered or await keys.any_usable():
            return None
        raise Conflict(
            "no API key exists, and none is made by itself on an address that others can reach: "
            "make one with `atoll keys create --name NAME`, set admin.api_key, or start once on 127.0.0.1"
        )
    text = new_key_text()
    # First the file: a start that is cut short here leaves a text that opens nothing, and the next makes another.
    await asyncio.to_thread(_write, path, text)
    crash.point("keys.mint.written")
    await keys.create("owner", kind=KeyKind.OWNER, text=text)
    return OwnerKey(text, minted=True)


async def _opens(keys: Keys, text: str) -> bool:
    try:
        principal = await keys.authenticate(text)
    except Unauthenticated:
        return False
    return principal.kind is KeyKind.OWNER


def _read(path: Path) -> str | None:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"cannot read the owner key {path}: {error.strerror}") from error
    try:
        if stat.S_IMODE(os.fstat(opened).st_mode) & 0o077:
            os.fchmod(opened, 0o600)
        return os.read(opened, FILE_BYTES_MAX).decode(errors="replace").strip()
    finally:
        os.close(opened)


def _write(path: Path, text: str) -> None:
    """In one step: a reader sees the old file or the new one, whole, and never with another mode."""
    partial = path.with_name(f".{path.name}.new")
    try:
        partial.unlink(missing_ok=True)
        opened = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(opened, text.encode())
            os.fsync(opened)
        finally:
            os.close(opened)
        os.replace(partial, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise Unavailable(f"cannot write the owner key {path}: {error.strerror}") from error
