"""`atoll users`: make, list, change and delete users and set their passwords, straight in the database.

A password comes from a prompt, from stdin or from the dice: never from the command line, which others can read.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from atoll.cli import options, output

if TYPE_CHECKING:
    from atoll.domain.user import User
    from atoll.services.identity.users import UserChanges, Users

T = TypeVar("T")
GENERATED_BYTES = 18  # 24 characters
STDIN_CHARS_MAX = 4_096

UserName = Annotated[str, typer.Argument(metavar="USER", help="The username, or the id.")]
UserNames = Annotated[list[str], typer.Argument(metavar="USER...", help="Usernames or ids.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin: its first line.")]
Generate = Annotated[bool, typer.Option("--generate", help="Draw a password, and print it once.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Make, list, disable and delete users.", no_args_is_help=True)
    group.command("create", no_args_is_help=True)(create)
    group.command("list")(list_)
    group.command("passwd", no_args_is_help=True)(passwd)
    group.command("disable", no_args_is_help=True)(disable)
    group.command("enable", no_args_is_help=True)(enable)
    group.command("promote", no_args_is_help=True)(promote)
    group.command("demote", no_args_is_help=True)(demote)
    group.command("delete", no_args_is_help=True)(delete)
    group.command("rotate-key")(rotate_key)
    app.add_typer(group, name="users", rich_help_panel="Server")


def create(
    username: Annotated[
        str, typer.Argument(metavar="USERNAME", help="What they log in as; an address of mail is fine.")
    ],
    name: Annotated[str, typer.Option("--name", help="To show.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="Let them administer the server.")] = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Set one later: nobody logs in till then.")
    ] = False,
    from_stdin: FromStdin = False,
    generate: Generate = False,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """Make a user; the password is asked for."""
    from atoll.services.identity.users import OPERATOR

    password = None if no_password else _password(from_stdin, generate)

    async def make(users: Users) -> User:
        return await users.create(OPERATOR, username, password, name=name, admin=admin)

    made = _with_users(data, make)
    if as_json:
        output.print_json(_shown(made) | ({"password": password} if generate else {}))
        return
    typer.echo(made.id)
    _show_generated(password, generate)


def list_(data: options.DataFolder = None, as_json: output.Json = False) -> None:
    """List users by name."""
    from atoll.services.identity.users import LISTED_MAX, OPERATOR

    async def look(users: Users) -> list[User]:
        found: list[User] = []
        while page := await users.list(OPERATOR, after=found[-1].username if found else ""):
            found += page
            if len(page) < LISTED_MAX:
                break
        return found

    found = _with_users(data, look)
    if as_json:
        output.print_json([_shown(user) for user in found])
        return
    rows = [
        (
            user.id,
            user.username,
            user.name,
            "admin" if user.admin else "",
            user.issuer or ("password" if user.password_hash else "no password"),
            user.subject or "",
            output.age(user.created_at),
            "active" if user.usable else "disabled",
        )
        for user in found
    ]
    output.print_table(
        ("ID", "USERNAME", "NAME", "ROLE", "LOGS IN BY", "SUBJECT", "AGE", "STATE"), rows, empty="no users"
    )


def passwd(
    user: UserName,
    from_stdin: FromStdin = False,
    generate: Generate = False,
    data: options.DataFolder = None,
) -> None:
    """Set a user's password; every login of theirs ends."""
    from atoll.services.identity.users import OPERATOR

    password = _password(from_stdin, generate)

    async def change(users: Users) -> User:
        return await users.set_password(OPERATOR, user, password)

    typer.echo(_with_users(data, change).id)
    _show_generated(password, generate)


def disable(names: UserNames, data: options.DataFolder = None) -> None:
    """Keep users out: their logins end, and their keys open nothing. A server that runs does so within seconds."""
    from atoll.services.identity.users import UserChanges

    _change(names, data, UserChanges(disabled=True))


def enable(names: UserNames, data: options.DataFolder = None) -> None:
    """Let disabled users in again; their keys open what they did."""
    from atoll.services.identity.users import UserChanges

    _change(names, data, UserChanges(disabled=False))


def promote(names: UserNames, data: options.DataFolder = None) -> None:
    """Let users administer the server."""
    from atoll.services.identity.users import UserChanges

    _change(names, data, UserChanges(admin=True))


def demote(names: UserNames, data: options.DataFolder = None) -> None:
    """Let users no longer administer the server. A server that runs does so within seconds."""
    from atoll.services.identity.users import UserChanges

    _change(names, data, UserChanges(admin=False))


def delete(names: UserNames, data: options.DataFolder = None) -> None:
    """Delete users that own nothing any more and are no group's only admin."""
    from atoll.services.identity.users import OPERATOR

    async def remove(users: Users) -> None:
        for name in names:  # told one by one: after an error it is clear which are done
            typer.echo((await users.delete(OPERATOR, name)).id)

    _with_users(data, remove)


def rotate_key(
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Refuse what the keys before have signed, at once: one got out.")
    ] = False,
    data: options.DataFolder = None,
) -> None:
    """Let another key sign access tokens from now on. The server does so by itself every auth.key_days."""
    import asyncio

    from atoll.adapters import open_store, open_vault
    from atoll.services.identity.signing_keys import SigningKeys
    from atoll.settings import load

    settings = load(overrides={"data": data})

    async def run() -> str:
        records, vault = open_store(settings), open_vault(settings)
        try:
            await records.start()
            await vault.start()
            keys = SigningKeys(records, vault, algorithm=settings.auth.algorithm, outlived_s=settings.auth.access_ttl_s)
            return (await keys.rotate("cli", revoke=revoke)).id
        finally:
            await vault.close()
            await records.close()

    typer.echo(asyncio.run(run()))


def _change(names: list[str], data: str | None, changes: UserChanges) -> None:
    from atoll.services.identity.users import OPERATOR

    async def change(users: Users) -> None:
        for name in names:  # told one by one: after an error it is clear which are done
            typer.echo((await users.change(OPERATOR, name, changes)).id)

    _with_users(data, change)


def _password(from_stdin: bool, generate: bool) -> str:
    from atoll.cli.failure import MISUSED, Failed

    if generate:
        import secrets

        return secrets.token_urlsafe(GENERATED_BYTES)
    if from_stdin:
        return sys.stdin.readline(STDIN_CHARS_MAX).rstrip("\r\n")
    if sys.stdin is None or not sys.stdin.isatty():
        raise Failed("no terminal to ask for a password: --password-stdin, --generate or --no-password", MISUSED)
    return typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)


def _show_generated(password: str | None, generate: bool) -> None:
    if generate:
        typer.echo(password)
        typer.echo("keep the password above, it cannot be shown again", err=True)


def _with_users(data: str | None, work: Callable[[Users], Awaitable[T]]) -> T:
    import asyncio

    from atoll.adapters import open_store
    from atoll.services.identity.passwords import Passwords
    from atoll.services.identity.users import Users
    from atoll.settings import load

    settings = load(overrides={"data": data})
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def run() -> T:
        records = open_store(settings)
        try:
            await records.start()
            return await work(Users(records, Passwords(chars_min=settings.auth.password_chars)))
        finally:
            await records.close()

    return asyncio.run(run())


def _shown(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "username": user.username,
        "name": user.name,
        "admin": user.admin,
        "disabled": not user.usable,
        "issuer": user.issuer,
        "subject": user.subject,
        "created_at": user.created_at,
    }
