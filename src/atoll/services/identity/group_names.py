"""Group names: which group somebody means by what its members call it; every service that takes a group asks here."""

from __future__ import annotations

from atoll.domain.errors import Conflict
from atoll.domain.ids import GROUP_ID
from atoll.domain.principal import Principal
from atoll.records.base import Records

IDS_SHOWN = 5


async def groups_called(records: Records, principal: Principal, name: str) -> list[str]:
    """The ids of the groups of the principal's that go by that name."""
    if GROUP_ID.match(principal.id):
        own = await records.get_group(principal.id)
        return [principal.id] if own is not None and own.name == name else []
    found = await records.list_memberships(principal.id) if principal.groups else []
    return [one.group.id for one in found if one.group.name == name and one.group.id in principal.groups]


async def group_meant(records: Records, principal: Principal, text: str | None) -> str | None:
    """The id for an id or a name; what no group of the principal's is called stays as it is, for the caller to refuse.

    Conflict when several are called so: anybody may add one to a group of any name, and nothing is guessed.
    """
    if text is None or text == principal.id or GROUP_ID.match(text):
        return text
    found = await groups_called(records, principal, text)
    if len(found) > 1:
        raise Conflict(f"{len(found)} groups of yours are called {text!r}: use an id ({', '.join(found[:IDS_SHOWN])})")
    return found[0] if found else text
