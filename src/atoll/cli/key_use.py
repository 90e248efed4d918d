"""`atoll keys usage` and `atoll keys requests`: what keys were used for, and who asked for more than a plan gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli import amounts, options, output

if TYPE_CHECKING:
    from atoll.domain.account import KeyStats, QuotaRequest
    from atoll.records.base import Records


def usage(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, as atoll keys list shows it.")],
    since: Annotated[str | None, typer.Option("--since", help="Only of the last so much time, such as 24h.")] = None,
    data: options.DataFolder = None,
    as_json: output.Json = False,
) -> None:
    """How often a key was used, how often with success, and when last."""
    from datetime import UTC, datetime, timedelta

    from atoll.cli.keys import with_records
    from atoll.domain.errors import NotFound

    since_s = amounts.seconds(since, "--since")
    first = None if since_s is None else datetime.now(UTC) - timedelta(seconds=since_s)

    async def look(records: Records) -> KeyStats:
        if await records.get_key(key_id) is None:
            raise NotFound(f"key {key_id} not found")
        return await records.key_stats(key_id, first)

    found = with_records(data, look)
    told = {"requests": found.requests, "successful": found.successful, "last_at": found.last_at}
    if as_json:
        output.print_json(told)
    else:
        row = (str(found.requests), str(found.requests - found.successful), output.age(found.last_at))
        output.print_table(("REQUESTS", "FAILED", "USED"), [row], empty="")


def requests(data: options.DataFolder = None, as_json: output.Json = False) -> None:
    """Who asked for more at /v1/quota-requests, newest first."""
    from dataclasses import asdict

    from atoll.cli.keys import with_records

    async def look(records: Records) -> list[QuotaRequest]:
        return await records.list_quota_requests()

    found = with_records(data, look)
    if as_json:
        output.print_json([asdict(one) for one in found])
        return
    rows = [
        (str(one.id), _harmless(one.email), _harmless(one.detail.get("use_case", "")), output.age(one.created_at))
        for one in found
    ]
    output.print_table(("ID", "E-MAIL", "WHAT FOR", "AGE"), rows, empty="no requests")


def _harmless(text: object) -> str:
    """The beginning of what a stranger wrote, with nothing in it that a terminal obeys."""
    return "".join(char if char.isprintable() else " " for char in str(text)[:60])
