"""Owners of keys, for `atoll keys`: whom one can be made for, and what is left behind when an owner's last one ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.domain.key import ApiKey
    from atoll.records.base import Records


async def named(records: Records, text: str) -> str:
    """The id, or that of the user of that name. Failed for one that nobody has and that owns nothing."""
    from atoll.cli.failure import Failed
    from atoll.services.identity.principals import Principals, user_meant

    owner = await user_meant(records, text)
    if await Principals(records).name_of(owner) is None and not await _owned(records, owner):
        raise Failed(f"--for: nobody has the id or name {owner!r}, and it owns nothing")
    return owner


async def left_behind(records: Records, ended: Iterable[ApiKey]) -> list[str]:
    """For each owner that nobody can act for any more, what it owns and how to get at it."""
    from atoll.services.identity.principals import Principals

    notes: list[str] = []
    for owner in dict.fromkeys(key.owner for key in ended):
        if await Principals(records).has_ended(owner) and (owned := await _owned(records, owner)):
            notes.append(f"{owner} still owns {owned}: `atoll keys create --name NAME --for {owner}` gets at that")
    return notes


async def _owned(records: Records, owner: str) -> str:
    from atoll.domain.sandbox import ENDED

    workspaces = await records.list_workspaces(owner=owner)
    sandboxes = [one for one in await records.list_sandboxes(owner=owner) if one.state not in ENDED]
    counts = {"workspaces": len(workspaces), "sandboxes": len(sandboxes)}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)
