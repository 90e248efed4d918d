"""`atoll vault`: who has wrapped the keys here, and moving them to another vault, or to a newer master key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli import options, output
from atoll.cli.failure import Failed

if TYPE_CHECKING:
    from atoll.records.base import Records
    from atoll.settings import Settings
    from atoll.vaults.base import Vault


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Who keeps the master key: look, and move to another.", no_args_is_help=True)
    group.command("status")(status)
    group.command("rewrap")(rewrap)
    app.add_typer(group, name="vault", rich_help_panel="Server")


def status(data: options.DataFolder = None, as_json: output.Json = False) -> None:
    """How many keys each vault has wrapped, and which one the settings name."""
    import asyncio

    from atoll.adapters import open_store

    settings = _settings(data)

    async def count() -> Mapping[str, int]:
        records = open_store(settings)
        try:
            await records.start()
            return await records.count_wrapped_keys()
        finally:
            await records.close()

    counts = asyncio.run(count())
    if as_json:
        output.print_json({"vault": settings.vault.kind, "keys": dict(counts)})
        return
    names = sorted({settings.vault.kind, *counts})
    rows = [(name, counts.get(name, 0), "in use" if name == settings.vault.kind else "") for name in names]
    output.print_table(("VAULT", "KEYS", ""), rows)


def rewrap(
    old_key_file: Annotated[
        Path | None,
        typer.Option("--old-key-file", help="The master key's file until now, when vault.key_file is a new one."),
    ] = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Move every key here to the vault of the settings, or to its newest master key. The server must be down.

    The settings of the vault before stay in place until it is done. Cut short, it can be run again.
    """
    import asyncio

    from atoll.records.data_folder import DataFolderLock

    if old_key_file is not None and not old_key_file.is_file():
        raise Failed(f"there is no file {old_key_file}")
    settings = _settings(data)
    lock = DataFolderLock(settings.folder)
    lock.acquire()
    try:
        moved = asyncio.run(_rewrap(settings, old_key_file))
    finally:
        lock.release()
    if as_json:
        output.print_json({"vault": settings.vault.kind, "keys": dict(moved)})
        return
    kinds = ", ".join(output.count(count, kind, f"{kind}s") for kind, count in moved.items()) or "no keys"
    typer.echo(f"wrapped by the vault {settings.vault.kind}: {kinds}")
    typer.echo("make a backup now: those before need the vault, or the master key, from before", err=True)


async def _rewrap(settings: Settings, old_key_file: Path | None) -> Mapping[str, int]:
    from atoll.adapters import open_copy_store
    from atoll.services.recovery.ownership import hand_over
    from atoll.services.rewrapping import Rewrapping

    async with _opened(settings, old_key_file) as (records, target, vaults, older):
        moved = await Rewrapping(records, target, vaults.get, older).run()
        second = open_copy_store(settings)
        if second is not None:
            await second.start()
            try:
                await hand_over(second, vaults.get, target, older)
            finally:
                await second.close()
        return moved


class _Vaults:
    """Opens each vault that keys need, once."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._open: dict[str, Vault] = {}

    async def get(self, name: str) -> Vault:
        from atoll.adapters import open_vault

        if name not in self._open:
            self._open[name] = await _started(self._stack, open_vault(self._settings, name))
        return self._open[name]


@asynccontextmanager
async def _opened(
    settings: Settings, old_key_file: Path | None
) -> AsyncGenerator[tuple[Records, Vault, _Vaults, Vault | None]]:
    from atoll.adapters import open_store
    from atoll.vaults.local_key import LocalKey

    async with AsyncExitStack() as stack:
        records = open_store(settings)
        stack.push_async_callback(records.close)
        await records.start()
        vaults = _Vaults(settings, stack)
        target = await vaults.get(settings.vault.kind)
        older = None if old_key_file is None else await _started(stack, LocalKey(old_key_file))
        yield records, target, vaults, older


async def _started(stack: AsyncExitStack, vault: Vault) -> Vault:
    stack.push_async_callback(vault.close)
    await vault.start()
    return vault


def _settings(data: str | None) -> Settings:
    from atoll.settings import load

    settings = load(overrides={"data": data})
    if not settings.folder.root.is_dir():
        raise Failed(f"there is no data folder {settings.folder.root}")
    return settings
