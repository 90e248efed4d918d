"""Backup: the records beside the blobs in a store, so that an empty machine with the master key becomes this one.

A backup is `backups/<moment>/`: the dump of the records and the list of the objects that it needs, each with length and
hash, in sealed pieces; and `manifest.json`, which is written last and makes it one. The objects are copied before under
their own keys; they never change, so that each backup copies only what is new. `atoll backup` and `atoll restore` call
it, beside a running server or without one, and the job that keeps the second store.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from atoll.blobs.base import PIECE_BYTES, Blobs
from atoll.domain import crash
from atoll.domain.errors import Conflict, Corrupt, NotFound
from atoll.services.recovery.backup_format import (
    COPIED,
    FOLDER,
    INNER,
    MOMENT,
    OBJECTS,
    RECORDS,
    VERSION,
    Inventory,
    inventory_lines,
    key_context,
    moment_order,
    read_inventory,
    read_manifest,
)
from atoll.services.recovery.dump_folder import dump_folder
from atoll.services.recovery.sealed_pieces import SealedPieces, Stored
from atoll.services.recovery.verified_copying import Contents, contents, copy, differs, each, found_at
from atoll.vaults.base import OtherMasterKey, Vault

_log = structlog.get_logger()

TRIES = 3  # of a copy that the collector overtook
UNFINISHED_S = 24 * 3600.0  # after which a backup that is none yet will never be one
NAMED_MAX = 10  # damaged objects that an error names

Progress = Callable[[int, int], None]  # objects copied, bytes copied
Dump = Callable[[Path], Awaitable[Mapping[str, int]]]  # writes a dump there; the objects it refers to, with their bytes


@dataclass(frozen=True, slots=True)
class Made:
    """A backup as it lies in the store. `lost`: keys that the records name and neither store has."""

    moment: str
    records_bytes: int
    objects: int = 0  # copied now
    bytes: int = 0
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Opened:
    """A backup whose manifest is unsealed."""

    moment: str
    pieces: SealedPieces
    records: Stored
    objects: Stored
    owner_key: str | None


class Backup:
    """Between two stores and the vault, all started. `target` holds backups and may be `source` itself."""

    def __init__(self, source: Blobs, target: Blobs, vault: Vault, *, scratch: Path | None = None) -> None:
        """`scratch` is the folder for dumps on their way; None: the system's for temporary files."""
        self._scratch = scratch
        self._source = source
        self._target = target
        self._vault = vault

    async def make(
        self,
        dump: Dump,
        owner_key: str | None,
        *,
        known: Mapping[str, Contents] | None = None,
        progress: Progress | None = None,
    ) -> Made:
        """Back up the records with every object that they refer to. Errors of the dump; Unavailable, Conflict.

        `known`: what the target's objects held when they were copied; others are read.
        """
        known = {**(known or {}), **await self._known()}
        lacking: set[str] = set()
        for _ in range(TRIES):
            async with dump_folder(self._scratch) as folder:
                file = folder / "records.db"
                needed = await dump(file)
                inventory, copied, size = await self._copy_needed(needed, known, progress)
                crash.point("backup.blobs_copied")
                # What is nowhere was collected after the dump. When a later dump names it again, it is lost.
                before, lacking = lacking, needed.keys() - inventory.keys()
                if lacking <= before:
                    made = Made("", 0, copied, size, tuple(sorted(lacking)))
                    return await self._record(file, inventory, owner_key, made)
        raise Conflict("the blobs changed under each of the tries: try again")

    async def _record(self, dump: Path, inventory: Inventory, owner_key: str | None, made: Made) -> Made:
        moment = await self._new_moment()
        key = secrets.token_bytes(32)
        sealed = SealedPieces(self._target, f"{FOLDER}/{moment}", key)
        records = await sealed.write(RECORDS, _read(dump))
        objects = await sealed.write(OBJECTS, inventory_lines(inventory))
        crash.point("backup.records_stored")
        inner = {"records": asdict(records), "objects": asdict(objects), "owner_key": owner_key}
        manifest = {
            "version": VERSION,
            "moment": moment,
            "vault": self._vault.name,
            "key": base64.b64encode(await self._vault.wrap(key, key_context(moment))).decode(),
            "sealed": base64.b64encode(sealed.seal(INNER, json.dumps(inner).encode())).decode(),
        }
        await self._target.put(f"{FOLDER}/{moment}/manifest.json", json.dumps(manifest, indent=1).encode())
        return replace(made, moment=moment, records_bytes=records.bytes)

    async def _copy_needed(
        self, needed: Mapping[str, int], known: Mapping[str, Contents], progress: Progress | None
    ) -> tuple[Inventory, int, int]:
        """(what the target has of it then, objects and bytes copied)."""
        there = {blob.key: blob.bytes async for blob in self._target.list(COPIED)}
        inventory: Inventory = {}
        copied = size = 0

        async def take(key: str) -> None:
            nonlocal copied, size
            before = known.get(key)
            if before is not None and there.get(key) == before.bytes:
                inventory[key] = before
                return
            if key in there and (self._source is self._target or there[key] == needed[key]):
                inventory[key] = await contents(self._target, key)
                return
            try:
                inventory[key] = await copy(self._source, self._target, key)
            except NotFound:
                return
            copied, size = copied + 1, size + inventory[key].bytes
            if progress is not None:
                progress(copied, size)

        await each(needed, take)
        return inventory, copied, size

    async def _known(self) -> Inventory:
        """What the newest backup says of its objects: they need not be read again."""
        moment = await self.newest()
        try:
            return {} if moment is None else await self.inventory(moment)
        except (Corrupt, NotFound):
            return {}  # damaged: everything is read

    async def list(self) -> list[str]:
        """The moments of whole backups in the target, newest first."""
        found = [blob.key async for blob in self._target.list(f"{FOLDER}/") if blob.key.endswith("/manifest.json")]
        return sorted((key.split("/")[1] for key in found), key=moment_order, reverse=True)

    async def newest(self) -> str | None:
        """The moment of the newest whole one of this master key; others may lie beside it."""
        for moment in await self.list():
            if await self._is_ours(moment):
                return moment
        return None

    async def _is_ours(self, moment: str) -> bool:
        try:
            await self._open(moment)
        except OtherMasterKey as error:
            _log.warning("vault.other_key", backup=moment, error=error.message)
            return False
        except (Corrupt, NotFound):
            return False
        return True

    async def prune(self, keep: int) -> list[str]:
        """Remove whole backups but the newest `keep`, and what is left of those that were cut short; objects stay.

        Those of another master key, and those whose manifest is damaged, stay and do not count. The moments that went.
        """
        moments = await self.list()
        gone: list[str] = []
        if len(moments) > keep:
            gone = [moment for moment in moments if await self._is_ours(moment)][keep:]
        for moment in gone:
            await self._target.delete(f"{FOLDER}/{moment}/manifest.json")  # from here on it is none
        before = datetime.now(UTC) - timedelta(seconds=UNFINISHED_S)
        rest = [blob async for blob in self._target.list(f"{FOLDER}/")]
        for blob in rest:
            moment = blob.key.split("/")[1]
            if moment in gone or (moment not in moments and blob.modified_at < before):  # cut short long ago
                await self._target.delete(blob.key)
        return gone

    async def inventory(self, moment: str) -> Inventory:
        """The objects that a backup needs. NotFound, Corrupt."""
        opened = await self._open(moment)
        text = b"".join([data async for data in opened.pieces.read(OBJECTS, opened.objects)])
        return await asyncio.to_thread(read_inventory, text, moment)

    async def restore_records(self, moment: str | None, file: Path) -> tuple[str, str | None]:
        """Write the dump of that backup (None: the newest) to the new file: (its moment, the owner key's text).

        NotFound without such a backup, Corrupt when a byte is another, OtherMasterKey; then there is no file.
        """
        moments = await self.list()
        if not moments or (moment is not None and moment not in moments):
            there = ", ".join(moments[:5]) or "none"
            raise NotFound(f"there is no backup {moment or ''} here; there is {there}".replace("  ", " "))
        opened = await self._open(moment or moments[0])
        try:
            with await asyncio.to_thread(file.open, "xb") as out:
                async for data in opened.pieces.read(RECORDS, opened.records):
                    await asyncio.to_thread(out.write, data)
        except BaseException:
            await asyncio.to_thread(file.unlink, missing_ok=True)
            raise
        return opened.moment, opened.owner_key

    async def restore_blobs(self, moment: str, progress: Progress | None = None) -> tuple[int, int]:
        """Copy the objects of that backup back to the source: (objects, bytes) that were not there as they should be.

        Corrupt when one is missing or is not what the backup says; then nothing of this call stays in the source.
        """
        inventory = await self.inventory(moment)
        listed = {blob.key: blob.bytes async for blob in self._target.list(COPIED)}
        suspects = [key for key, wanted in inventory.items() if listed.get(key) != wanted.bytes]
        damaged = {key: await self._damage(key, inventory[key]) for key in suspects[:NAMED_MAX]}
        self._check(moment, damaged, len(suspects))
        placed: list[str] = []
        size = 0

        async def restore(key: str) -> None:
            nonlocal size
            wanted = inventory[key]
            if self._source is not self._target and await _found(self._source, key) == wanted:
                return
            try:
                if self._source is not self._target:
                    await copy(self._target, self._source, key, wanted)
                elif (why := await self._damage(key, wanted)) is not None:
                    raise Corrupt(why)
                else:
                    return
            except (Corrupt, NotFound) as error:
                damaged[key] = error.message
                return
            placed.append(key)
            size += wanted.bytes
            if progress is not None:
                progress(len(placed), size)

        await each(inventory, restore)
        if damaged:
            await each(placed, self._source.delete)
        self._check(moment, damaged, len(damaged))
        return len(placed), size

    async def _damage(self, key: str, wanted: Contents) -> str | None:
        try:
            return differs(await found_at(self._target, key), wanted)
        except Corrupt as error:
            return error.message

    def _check(self, moment: str, damaged: Mapping[str, str | None], count: int) -> None:
        if not count:
            return
        named = "; ".join(f"{key} {why or 'was changed just now'}" for key, why in list(damaged.items())[:NAMED_MAX])
        more = f"; and {count - NAMED_MAX} more" if count > NAMED_MAX else ""
        raise Corrupt(f"backup {moment} is damaged, nothing was restored: {named}{more}")

    async def _open(self, moment: str) -> _Opened:
        vault, wrapped, sealed = read_manifest(await self._target.get(f"{FOLDER}/{moment}/manifest.json"), moment)
        if vault != self._vault.name:
            raise Corrupt(f"backup {moment} needs the vault {vault!r}; this one is {self._vault.name!r}")
        pieces = SealedPieces(
            self._target, f"{FOLDER}/{moment}", await self._vault.unwrap(wrapped, key_context(moment))
        )
        inner = json.loads(pieces.open(INNER, sealed))
        return _Opened(moment, pieces, Stored(**inner["records"]), Stored(**inner["objects"]), inner["owner_key"])

    async def _new_moment(self) -> str:
        moments, now = await self.list(), datetime.now(UTC).strftime(MOMENT)
        name, number = now, 2
        while name in moments:
            name, number = f"{now}_{number}", number + 1
        return name


async def _found(blobs: Blobs, key: str) -> Contents | None:
    """What is there, as far as it is of use."""
    try:
        return await found_at(blobs, key)
    except Corrupt:
        return None


async def _read(file: Path) -> AsyncGenerator[bytes]:
    with await asyncio.to_thread(file.open, "rb") as source:
        while data := await asyncio.to_thread(source.read, PIECE_BYTES):
            yield data
