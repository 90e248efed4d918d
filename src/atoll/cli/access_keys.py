"""`atoll keys hmac`: pairs with which clients of object stores, gsutil for one, sign for an API key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from atoll.cli import options, output
from atoll.cli.failure import say

if TYPE_CHECKING:
    from atoll.records.base import Records
    from atoll.services.objects.access_keys import AccessKeys

T = TypeVar("T")
KEY = Annotated[str, typer.Argument(metavar="KEY", help="The API key's id, as atoll keys list shows it.")]


def add_to(keys: typer.Typer) -> None:
    group = typer.Typer(help="Make, list and end pairs that sign at the object-store door.", no_args_is_help=True)
    group.command("create", no_args_is_help=True)(create)
    group.command("list")(list_)
    group.command("revoke", no_args_is_help=True)(revoke)
    keys.add_typer(group, name="hmac")


def create(
    key_id: KEY,
    boto: Annotated[bool, typer.Option("--boto", help="As a configuration file for gsutil.")] = False,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Make a pair that may what the API key may, and ends with it. Its secret is shown now and never again."""
    from atoll.domain.errors import NotFound
    from atoll.services.objects.access_keys import NewAccessKey
    from atoll.settings import load

    async def make(keys: AccessKeys, records: Records) -> NewAccessKey:
        key = await records.get_key(key_id)
        if key is None:
            raise NotFound(f"key {key_id} not found")
        return await keys.create_for(key, actor="cli")

    made = _with_access_keys(data, make)
    if as_json:
        output.print_json({"id": made.access.id, "secret": made.secret, "key": made.access.key})
    elif boto:
        own = load(overrides={"data": data}).objects
        typer.echo(_boto(made.access.id, made.secret, own.host, own.port))
        if own.port != 80:
            say(f"gsutil cannot download at port {own.port}: let the door stand at port 80 (docs/object-store.md)")
    else:
        typer.echo(f"{made.access.id} {made.secret}")


def list_(
    key_id: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only those of one API key.")] = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """List pairs: ids and API keys, never the secrets."""
    found = _with_access_keys(data, lambda _, records: records.list_access_keys(key=key_id))
    if as_json:
        output.print_json([{"id": one.id, "key": one.key, "created_at": one.created_at} for one in found])
        return
    output.print_table(("ID", "KEY", "CREATED"), [(one.id, one.key, output.age(one.created_at)) for one in found])


def revoke(
    access_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As atoll keys hmac list shows them.")],
    data: options.DataFolder = None,
) -> None:
    """End pairs; a running server refuses what they sign within seconds."""
    from atoll.services.objects.access_keys import NoAccessKey

    async def end(keys: AccessKeys, records: Records) -> None:
        for access_id in access_ids:  # told one by one: after an error it is clear which are done
            found = await records.get_access_key(access_id)
            if found is None:
                raise NoAccessKey(f"access key {access_id} not found")
            await keys.end(found, actor="cli")
            typer.echo(access_id)

    _with_access_keys(data, end)


def _with_access_keys(data: str | None, work: Callable[[AccessKeys, Records], Awaitable[T]]) -> T:
    """What `work` makes of the access keys of the installation in `data`."""
    from atoll.adapters import open_vault
    from atoll.cli.keys import with_records
    from atoll.services.keys import Keys
    from atoll.services.objects.access_keys import AccessKeys
    from atoll.settings import load

    settings = load(overrides={"data": data})

    async def run(records: Records) -> T:
        vault = open_vault(settings)
        try:
            await vault.start()
            return await work(AccessKeys(records, vault, Keys(records)), records)
        finally:
            await vault.close()

    return with_records(data, run)


def _boto(access_id: str, secret: str, host: str, port: int) -> str:
    """The settings that gsutil takes; with a port in them it cannot download, so that 80 is left out."""
    host = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(host, host)  # nobody connects to every address
    lines = [
        "[Credentials]",
        f"gs_access_key_id = {access_id}",
        f"gs_secret_access_key = {secret}",
        f"gs_host = {host}",
    ]
    lines += [] if port == 80 else [f"gs_port = {port}"]
    lines += ["", "[Boto]", "is_secure = False", "https_validate_certificates = False"]
    return "\n".join([*lines, "", "[GSUtil]", "prefer_api = xml"])
