"""Backup: the records beside the blobs in a store, so that an empty machine with the master key becomes this one.

A backup is `backups/<moment>/`: the dump of the records in sealed pieces, and `manifest.json`, which is written last
and makes it one. The blobs it needs are copied before under their own keys; they never change, so that each backup
copies only what is new. `atoll backup` and `atoll restore` call it, beside a running server or without one.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from atoll.blobs.base import Blobs
from atoll.domain import crash
from atoll.domain.errors import Corrupt, NotFound
from atoll.vaults.base import Vault

FOLDER = "backups"
COPIED = "lineages/"  # what of the blobs a backup needs
PIECE_BYTES = 8 * 2**20
AT_ONCE = 8  # objects copied at a time
NONCE_BYTES = 12
VERSION = 1
INNER = -1  # the number under which the manifest's own sealed part goes

Progress = Callable[[int, int], None]  # objects copied, bytes copied


@dataclass(frozen=True, slots=True)
class Made:
    """A backup as it lies in the store."""

    moment: str
    records_bytes: int
    objects: int = 0  # copied now
    bytes: int = 0


class Backup:
    """Between two stores and the vault, all started. `target` holds backups and may be `source` itself."""

    def __init__(self, source: Blobs, target: Blobs, vault: Vault) -> None:
        self._source = source
        self._target = target
        self._vault = vault

    async def make(
        self, dump: Path, owner_key: str | None, *, needed: Collection[str] = (), progress: Progress | None = None
    ) -> Made | None:
        """Back up a dump of the records, taken before this call, with every blob that it may refer to.

        None when an object of `needed` was removed meanwhile: take a new dump then.
        """
        objects, size = await copy_blobs(self._source, self._target, COPIED, progress)
        crash.point("backup.blobs_copied")
        if not {blob.key async for blob in self._target.list(COPIED)}.issuperset(needed):
            return None
        moment = await self._new_moment()
        key = secrets.token_bytes(32)
        pieces, digest, total = 0, hashlib.sha256(), (await asyncio.to_thread(dump.stat)).st_size
        async for piece in _compressed(dump, digest):
            await self._target.put(f"{FOLDER}/{moment}/records-{pieces:05}", _seal(key, moment, pieces, piece))
            pieces += 1
        crash.point("backup.records_stored")
        inner = {"pieces": pieces, "bytes": total, "sha256": digest.hexdigest(), "owner_key": owner_key}
        manifest = {
            "version": VERSION,
            "moment": moment,
            "vault": self._vault.name,
            "key": base64.b64encode(await self._vault.wrap(key, _context(moment))).decode(),
            "sealed": base64.b64encode(_seal(key, moment, INNER, json.dumps(inner).encode())).decode(),
        }
        await self._target.put(f"{FOLDER}/{moment}/manifest.json", json.dumps(manifest, indent=1).encode())
        return Made(moment, total, objects, size)

    async def list(self) -> list[str]:
        """The moments of whole backups in the target, newest first."""
        found = [blob.key async for blob in self._target.list(f"{FOLDER}/") if blob.key.endswith("/manifest.json")]
        return sorted((key.split("/")[1] for key in found), key=_order, reverse=True)

    async def prune(self, keep: int) -> list[str]:
        """Remove whole backups but the newest `keep`; blobs stay. The moments that went."""
        gone = (await self.list())[keep:]
        for moment in gone:
            await self._target.delete(f"{FOLDER}/{moment}/manifest.json")  # from here on it is none
            keys = [blob.key async for blob in self._target.list(f"{FOLDER}/{moment}/")]
            for key in keys:
                await self._target.delete(key)
        return gone

    async def restore_records(self, moment: str | None, file: Path) -> tuple[str, str | None]:
        """Write the dump of that backup (None: the newest) to the new file: (its moment, the owner key's text).

        NotFound without such a backup, Corrupt when a byte or the master key is another; then there is no file.
        """
        moments = await self.list()
        if not moments or (moment is not None and moment not in moments):
            there = ", ".join(moments[:5]) or "none"
            raise NotFound(f"there is no backup {moment or ''} here; there is {there}".replace("  ", " "))
        moment = moment or moments[0]
        vault, wrapped, sealed = _manifest(await self._target.get(f"{FOLDER}/{moment}/manifest.json"), moment)
        if vault != self._vault.name:
            raise Corrupt(f"backup {moment} needs the vault {vault!r}; this one is {self._vault.name!r}")
        key = await self._vault.unwrap(wrapped, _context(moment))
        inner = json.loads(_open(key, moment, INNER, sealed))
        try:
            await self._unpack(moment, inner, key, file)
        except BaseException:
            await asyncio.to_thread(file.unlink, missing_ok=True)
            raise
        return moment, inner["owner_key"]

    async def restore_blobs(self, progress: Progress | None = None) -> tuple[int, int]:
        """Copy every blob from the target back to the source: (objects, bytes) that were not there."""
        return await copy_blobs(self._target, self._source, COPIED, progress)

    async def _unpack(self, moment: str, inner: dict[str, Any], key: bytes, file: Path) -> None:
        digest = hashlib.sha256()
        inflate = zstandard.ZstdDecompressor().decompressobj()
        written = 0
        with await asyncio.to_thread(file.open, "xb") as out:
            for number in range(inner["pieces"]):
                sealed = await self._target.get(f"{FOLDER}/{moment}/records-{number:05}")
                data = await asyncio.to_thread(inflate.decompress, _open(key, moment, number, sealed))
                digest.update(data)
                written += await asyncio.to_thread(out.write, data)
        if written != inner["bytes"] or digest.hexdigest() != inner["sha256"]:
            raise Corrupt(f"the records of backup {moment} are not what was stored")

    async def _new_moment(self) -> str:
        moments, now = await self.list(), datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        name, number = now, 2
        while name in moments:
            name, number = f"{now}_{number}", number + 1
        return name


async def copy_blobs(source: Blobs, target: Blobs, prefix: str, progress: Progress | None = None) -> tuple[int, int]:
    """Copy objects that the target has not, or has with another size: (objects, bytes) copied."""
    if source is target:
        return 0, 0
    there = {blob.key: blob.bytes async for blob in target.list(prefix)}
    missing = [blob async for blob in source.list(prefix) if there.get(blob.key) != blob.bytes]
    objects = size = 0
    gate = asyncio.Semaphore(AT_ONCE)

    async def copy(key: str) -> None:
        nonlocal objects, size
        async with gate:
            try:
                written = await target.write(key, source.read(key))
            except NotFound:
                return  # collected meanwhile: nothing refers to it
            objects, size = objects + 1, size + written
            if progress is not None:
                progress(objects, size)

    async with asyncio.TaskGroup() as group:
        for blob in missing:
            group.create_task(copy(blob.key))
    return objects, size


async def _compressed(file: Path, digest: Any) -> AsyncIterator[bytes]:
    """The file as one zstd stream, in pieces; its plain bytes go into the digest."""
    deflate = zstandard.ZstdCompressor(level=3).compressobj()
    waiting = b""
    with await asyncio.to_thread(file.open, "rb") as source:
        while data := await asyncio.to_thread(source.read, PIECE_BYTES):
            digest.update(data)
            waiting += await asyncio.to_thread(deflate.compress, data)
            if len(waiting) >= PIECE_BYTES:
                yield waiting
                waiting = b""
    yield waiting + deflate.flush()


def _context(moment: str) -> str:
    return f"backup {moment}"


def _seal(key: bytes, moment: str, number: int, data: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, f"{moment} {number}".encode())


def _open(key: bytes, moment: str, number: int, sealed: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], f"{moment} {number}".encode())
    except (InvalidTag, ValueError):
        raise Corrupt(f"piece {number} of backup {moment} is not what was stored") from None


def _manifest(data: bytes, moment: str) -> tuple[str, bytes, bytes]:
    """(the vault's name, the wrapped key, the sealed part). Corrupt."""
    try:
        value = json.loads(data)
        if value["version"] == VERSION and value["moment"] == moment:
            wrapped, sealed = (base64.b64decode(value[name], validate=True) for name in ("key", "sealed"))
            return str(value["vault"]), wrapped, sealed
    except (ValueError, KeyError, TypeError):
        pass
    raise Corrupt(f"the manifest of backup {moment} is damaged or of a later version")


def _order(moment: str) -> tuple[str, int]:
    stem, _, number = moment.partition("_")
    return stem, int(number or 1)
