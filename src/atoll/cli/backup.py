"""`atoll backup` and `atoll restore`: this server into a store of blobs, and out of it on an empty machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote, urlsplit

import typer

from atoll.cli import options, output
from atoll.cli.failure import Failed

if TYPE_CHECKING:
    from atoll.services.recovery.backup import Backup, Made
    from atoll.settings import Settings

MASTER_KEY_BYTES = 32  # in a file of the local vault
LOCAL = "local"  # the vault whose master key is a file here

To = Annotated[
    str | None,
    typer.Option(
        "--to", help="A folder, or s3://, gs:// or az://; default: blobs.copy_url, else the blobs' own store."
    ),
]
From = Annotated[
    str | None, typer.Option("--from", help="The store that the backup is in; default: as of `atoll backup`.")
]


def add_to(app: typer.Typer) -> None:
    app.command("backup", rich_help_panel="Server")(backup)
    app.command("restore", rich_help_panel="Server")(restore)


def backup(
    to: To = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many backups stay in the store.")] = 7,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Back up records and workspaces; the server may run meanwhile.

    What a mounted workspace changed since its last revision is in the next backup. The master key is in none: keep a
    copy of that file elsewhere, without it nothing can be read.
    """
    import asyncio

    from atoll.settings import load

    settings = load(overrides={"data": data})
    place = _url(to) if to else settings.blobs.copy_url or settings.blobs_url
    made, gone = asyncio.run(_back_up(settings, to, keep))
    if (beside := _beside(settings, place)) is not None:
        typer.echo(f"warning: {beside}: what takes the one takes the other; --to names a place elsewhere", err=True)
    if as_json:
        key_file = str(settings.master_key_file) if settings.vault.kind == LOCAL else None
        output.print_json({**_plain(made), "to": place, "removed": gone, "master_key_file": key_file})
        return
    typer.echo(f"backup {made.moment} in {place}: {output.size(made.records_bytes)} of records, {made.objects} new "
               f"objects of {output.size(made.bytes)}")  # fmt: skip
    if made.lost:
        typer.echo(f"{len(made.lost)} objects are in no store, and so not in the backup; `atoll workspace verify` says "
                   f"what they held: {', '.join(made.lost[:5])}", err=True)  # fmt: skip
    if settings.vault.kind == LOCAL:
        typer.echo(f"keep a copy of {settings.master_key_file} elsewhere: it is not in the backup", err=True)
    else:
        typer.echo(f"it can be read with the vault {settings.vault.kind} alone, as the settings have it now", err=True)


def restore(
    source: From = None,
    at: Annotated[str | None, typer.Option("--at", help="Which backup, as 20261121T120000Z; default: newest.")] = None,
    master_key: Annotated[
        Path | None, typer.Option("--master-key", help="A copy of the master key's file, to be put in its place.")
    ] = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Put a backup into a data folder that has no records yet. Start the server afterwards."""
    import asyncio

    from atoll.records.data_folder import DataFolderLock
    from atoll.settings import load
    from atoll.vaults.base import OtherMasterKey

    settings = load(overrides={"data": data})
    key = None if master_key is None else _read_master_key(master_key)
    lock = DataFolderLock(settings.folder)
    lock.acquire()
    try:
        moment, objects, size = asyncio.run(_restore(settings, source, at, key))
    except OtherMasterKey:
        file = master_key or settings.master_key_file
        which = at or "the newest there; --at names another one"
        raise Failed(f"{file} is not the master key of that backup ({which})") from None
    finally:
        lock.release()
    if as_json:
        output.print_json({"moment": moment, "objects": objects, "bytes": size})
    else:
        typer.echo(f"restored {moment}: {objects} objects of {output.size(size)}; start the server with `atoll up`")


async def _back_up(settings: Settings, to: str | None, keep: int) -> tuple[Made, list[str]]:
    from atoll.adapters import dump_of

    owner_key = settings.folder.owner_key
    text = owner_key.read_text() if owner_key.exists() else None
    async with _stores(settings, to) as backing:
        made = await backing.make(dump_of(settings), text)
        return made, await backing.prune(keep)


async def _restore(
    settings: Settings, source: str | None, at: str | None, master_key: bytes | None
) -> tuple[str, int, int]:
    from atoll.records.dump import check_empty, load_records

    await check_empty(settings.database_url)
    mark = settings.folder.half_restored
    cut_before, loading, placed = mark.exists(), False, False
    mark.touch(mode=0o600)
    try:
        placed = _place_master_key(settings, master_key)
        async with _stores(settings, source, read_only=True) as backing:
            file = settings.folder.root / "restored.partial"
            file.unlink(missing_ok=True)
            try:
                moment, owner_key = await backing.restore_records(at, file)
                objects, size = await backing.restore_blobs(moment)
                # The records come last: what was cut short before can be done again.
                loading = True
                await load_records(file, settings.database_url)
            finally:
                file.unlink(missing_ok=True)
    except BaseException:
        if placed and not loading:  # it may be the wrong one; records that may be there are not left without theirs
            settings.master_key_file.unlink()
        if not loading and not cut_before:
            mark.unlink()
        raise
    if owner_key is not None and not settings.folder.owner_key.exists():
        settings.folder.owner_key.touch(mode=0o600)
        settings.folder.owner_key.write_text(owner_key)
    mark.unlink()
    return moment, objects, size


@asynccontextmanager
async def _stores(settings: Settings, url: str | None, *, read_only: bool = False) -> AsyncGenerator[Backup]:
    """A backup between the settings' store and the one at `url`, which may be one that is only read."""
    from contextlib import AsyncExitStack

    from atoll.adapters import open_blob_store, open_copy_store, open_vault
    from atoll.services.recovery.backup import Backup

    async with AsyncExitStack() as stack:
        vault, source = open_vault(settings), open_blob_store(settings)
        target = open_copy_store(settings, url and _url(url), read_only=read_only)
        for part in (vault, source, *([target] if target is not None else [])):
            stack.push_async_callback(part.close)
            await part.start()
        yield Backup(source, target or source, vault, scratch=settings.folder.dumps)


def _url(place: str) -> str:
    return place if "://" in place else Path(place).expanduser().absolute().as_uri()


def _beside(settings: Settings, place: str) -> str | None:
    """What is wrong with a place that is lost together with what is backed up; None for any other."""
    if place == settings.blobs_url:
        return f"{place} is the store of the blobs itself"
    parts = urlsplit(place)
    if parts.scheme == "file" and _disk_of(Path(unquote(parts.path))) == _disk_of(settings.data):
        return f"{place} lies on the same disk as {settings.data}"
    return None


def _disk_of(folder: Path) -> int:
    return folder.stat().st_dev


def _read_master_key(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            text = opened.read(MASTER_KEY_BYTES + 1)
    except OSError as error:
        raise Failed(f"--master-key {file} cannot be read: {error.strerror}") from None
    if len(text) != MASTER_KEY_BYTES:
        raise Failed(f"--master-key {file} is no master key: one has {MASTER_KEY_BYTES} bytes")
    return text


def _place_master_key(settings: Settings, given: bytes | None) -> bool:
    """Whether it was not there before. Other vaults than the local one have theirs elsewhere."""
    if settings.vault.kind != LOCAL:
        if given is not None:
            raise Failed(f"--master-key is for the local vault, and vault.kind is {settings.vault.kind}")
        return False
    place = settings.master_key_file
    if given is None:
        if not place.exists():
            raise Failed(f"the master key is needed: --master-key FILE, or put it at {place}")
        return False
    if place.exists():
        if place.read_bytes() != given:
            raise Failed(f"{place} is another master key already")
        return False
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.touch(mode=0o600)
    place.write_bytes(given)
    return True


def _plain(made: Made) -> dict[str, object]:
    return {name: getattr(made, name) for name in ("moment", "records_bytes", "objects", "bytes", "lost")}
