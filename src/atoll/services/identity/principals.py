"""Principals: whom somebody means by an id or a name, and by what name an owner is shown.

Groups and shares ask it; it never tells of groups that the asker does not belong to.
"""

from __future__ import annotations

from atoll.domain.errors import Conflict, InvalidInput
from atoll.domain.ids import GROUP_ID, KEY_ID
from atoll.domain.key import KeyKind
from atoll.domain.principal import Principal
from atoll.domain.user import USER_ID, USERNAME
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.admin_key import ADMIN_ID
from atoll.services.identity.group_names import groups_called

CHARS_MAX = 128  # of one that nobody has, in the error


class Principals:
    """Looks into the records."""

    def __init__(self, records: Records, clock: Clock = utc_now) -> None:
        self._records = records
        self._clock = clock

    async def named(self, asker: Principal, text: str, *, groups: bool = False, field: str = "principal") -> str:
        """The id of the principal that can be used now: of a user by id or username, of a key by id (of its owner),
        and with `groups` of a group of the asker's by id or name. InvalidInput, naming `field`, for anything else;
        Conflict when several go by that name."""
        found = await self._find(asker, text, groups) if len(text) <= CHARS_MAX and _plain(text) else None
        called = await groups_called(self._records, asker, text) if groups and not GROUP_ID.match(text) else []
        if len(called) + (found is not None) > 1:
            raise Conflict(f"{field} {text!r} may mean a user or a group, or several groups, of yours: use an id")
        found = found or next(iter(called), None)
        if found is None:
            kinds = "a user or a group of yours" if groups else "a user"
            raise InvalidInput(
                f"{field} must be the name or id of {kinds}, or the id of a key, on this server, "
                f"not {text[:CHARS_MAX]!r}",
                field=field,
            )
        return found

    async def _find(self, asker: Principal, text: str, groups: bool) -> str | None:
        if GROUP_ID.match(text):
            return text if groups and (text == asker.id or text in asker.groups) else None
        key = await self._records.get_key(text) if KEY_ID.match(text) else None
        if key is not None:
            return key.owner if key.usable(self._clock()) and not GROUP_ID.match(key.owner) else None
        if USER_ID.match(text):
            user = await self._records.get_user(text)
        else:
            user = await self._records.find_user(text) if USERNAME.fullmatch(text) and not KEY_ID.match(text) else None
        return user.id if user is not None and user.usable else None

    async def has_ended(self, owner: str) -> bool:
        """Whether nothing is to be done in an owner's name any more: a group that is gone, a user who is disabled, or a
        key that is dead and has no successor; keys that it made are none."""
        if GROUP_ID.match(owner):
            return await self._records.get_group(owner) is None
        if USER_ID.match(owner):
            user = await self._records.get_user(owner)
            return user is None or not user.usable
        now = self._clock()
        key = await self._records.get_key(owner)
        if key is not None and key.usable(now):
            return False
        keys = await self._records.list_keys(owner=owner, include_revoked=True)
        known = bool(keys) or KEY_ID.match(owner) is not None  # a key can be deleted: what it owned stays
        return known and not any(one.usable(now) and one.parent is None for one in keys)

    async def administers(self, owner: str) -> bool:
        """Whether an owner may administer this server now: a user with that flag, or whoever has an owner key."""
        if owner == ADMIN_ID:  # the settings keep that one
            return True
        if USER_ID.match(owner):
            user = await self._records.get_user(owner)
            return user is not None and user.usable and user.admin
        now, keys = self._clock(), await self._records.list_keys(owner=owner)
        return any(key.kind is KeyKind.OWNER and key.parent is None and key.usable(now) for key in keys)

    async def id_of(self, name: str) -> str | None:
        """Of a user by username, or of a key's owner by the key's id, whether they can be used or not."""
        key = await self._records.get_key(name) if KEY_ID.match(name) else None
        if key is not None:
            return key.owner
        user = await self._records.find_user(name) if USERNAME.fullmatch(name) else None
        return None if user is None else user.id

    async def name_of(self, owner: str) -> str | None:
        """What an owner is called: a group's name, a user's username, a key's name; None for one that is gone."""
        if GROUP_ID.match(owner):
            group = await self._records.get_group(owner)
            return None if group is None else group.name
        if USER_ID.match(owner):
            user = await self._records.get_user(owner)
            return None if user is None else user.username
        key = await self._records.get_key(owner)
        return None if key is None else key.name


async def user_meant(records: Records, text: str) -> str:
    """The id of the user of that name; an id, or what no user is called, stays as it is. For who administers."""
    if not USERNAME.fullmatch(text) or any(known.match(text) for known in (USER_ID, KEY_ID, GROUP_ID)):
        return text
    user = await records.find_user(text)
    return text if user is None else user.id


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable()
