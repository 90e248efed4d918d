"""The master key in a file of this machine: 32 random bytes, mode 0600, made at the first start.

A wrapped key is: version (1 byte), id of the master key (8), nonce (12), AES-256-GCM of the key with the context as
associated data. Who loses the file loses every workspace: it belongs into the backup, apart from the blobs.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from atoll.domain.errors import Corrupt, InvalidInput, Unavailable
from atoll.vaults.base import KEY_BYTES_MAX, KEY_BYTES_MIN, OtherMasterKey, Vault

MASTER_KEY_BYTES = 32
VERSION = b"\x01"
ID_BYTES, NONCE_BYTES, TAG_BYTES = 8, 12, 16
_HEAD_BYTES = len(VERSION) + ID_BYTES + NONCE_BYTES


class LocalKey(Vault):
    name: ClassVar[str] = "local"

    def __init__(self, file: Path) -> None:
        self._file = file
        self._master: bytes | None = None

    async def start(self) -> None:
        self._master = await asyncio.to_thread(_read_or_make, self._file)

    async def close(self) -> None:
        self._master = None

    async def wrap(self, key: bytes, context: str) -> bytes:
        if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
            raise InvalidInput(f"a data key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes, not {len(key)}", field="key")
        master = self._key()
        nonce = secrets.token_bytes(NONCE_BYTES)
        return VERSION + _id(master) + nonce + AESGCM(master).encrypt(nonce, key, context.encode())

    async def unwrap(self, wrapped: bytes, context: str) -> bytes:
        master = self._key()
        if not wrapped.startswith(VERSION) or len(wrapped) < _HEAD_BYTES + KEY_BYTES_MIN + TAG_BYTES:
            raise Corrupt("this is no key that a local vault has wrapped")
        used, mine = wrapped[1 : 1 + ID_BYTES], _id(master)
        if used != mine:
            raise OtherMasterKey(
                f"wrapped by the master key {used.hex()}, but the one in vault.key_file is {mine.hex()}: put the right "
                "file back"
            )
        try:
            return AESGCM(master).decrypt(wrapped[1 + ID_BYTES : _HEAD_BYTES], wrapped[_HEAD_BYTES:], context.encode())
        except InvalidTag:
            raise Corrupt("the wrapped key is damaged, or not of this context") from None

    def _key(self) -> bytes:
        if self._master is None:
            raise Unavailable("the vault is not started")
        return self._master


def _id(master: bytes) -> bytes:
    """Tells master keys apart and tells nothing about them."""
    return hashlib.blake2b(master, digest_size=ID_BYTES, person=b"atoll master id").digest()


def _read_or_make(path: Path) -> bytes:
    try:
        if not path.exists():
            _make(path)
        master = _read(path)
        for leftover in path.parent.glob(f".{path.name}.*"):
            leftover.unlink(missing_ok=True)
        return master
    except OSError as error:
        raise InvalidInput(f"no master key can be kept in {path}: {error.strerror}", field="vault.key_file") from error


def _make(path: Path) -> None:
    """A new key under that name, in one step; somebody else's who was first stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, secrets.token_bytes(MASTER_KEY_BYTES))
        os.fsync(file)
        os.link(partial, path)
    except (FileExistsError, FileNotFoundError):
        pass  # somebody else was first, and may have tidied up after us
    finally:
        os.close(file)
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(f"{path} is not a file: remove it, or name another one as vault.key_file")
        if status.st_uid not in (os.geteuid(), 0):
            raise _refused(f"{path} belongs to somebody else (uid {status.st_uid}): chown {os.geteuid()} {path}")
        if status.st_mode & 0o077:
            raise _refused(f"others may read {path} (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600 {path}")
        if status.st_size != MASTER_KEY_BYTES:
            raise _refused(
                f"{path} has {status.st_size} bytes, a master key has {MASTER_KEY_BYTES}: put the right file back from "
                "its backup; remove it only if there is no workspace yet"
            )
        return os.read(file, MASTER_KEY_BYTES)
    finally:
        os.close(file)


def _refused(message: str) -> InvalidInput:
    return InvalidInput(message, field="vault.key_file")
