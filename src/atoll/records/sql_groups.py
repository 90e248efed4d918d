"""Groups and their members in SQL: a part of `SqlRecords`.

Whoever changes who belongs to a group, or adds what it owns, holds the group's row first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Membership, Role
from atoll.domain.sandbox import ENDED
from atoll.domain.user import USER_ID
from atoll.records.groups import GROUP_PREFIX, GroupRecords
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.schema import api_keys, group_members, groups, sandboxes, secrets, users, workers, workspaces
from atoll.records.sql_chain import append_event
from atoll.records.sql_leavings import forget_leavings
from atoll.records.sql_store import (
    SqlStore,
    event_values,
    lock_owner,
    put,
    storable,
    swap,
)

_ADD = Prepared(insert(groups).inline())
_GET = Prepared(select(groups).where(groups.c.id == bindparam("wanted")))
_HOLD = Prepared(select(groups).where(groups.c.id == bindparam("wanted")).with_for_update())
_HOLD_USER = Prepared(
    select(users.c.id).where(users.c.id == bindparam("wanted")).with_for_update(read=True, key_share=True)
)
_HOLD_SHARED = Prepared(select(groups).where(groups.c.id == bindparam("wanted")).with_for_update(read=True))
_SWAP = swap(groups, {"created_at", "creator"})
_MEMBER = group_members.c.group == bindparam("of"), group_members.c.principal == bindparam("who")
_GET_MEMBER = Prepared(select(group_members).where(*_MEMBER))
_PUT_MEMBER = put(group_members, "role")
_DELETE_MEMBER = Prepared(delete(group_members).where(*_MEMBER))


class SqlGroups(SqlStore, GroupRecords):
    """See `GroupRecords` for what each method does."""

    async def add_group(self, group: Group, first: Member, event: Event, *, quota: int | None = None) -> None:
        row, member, happened = storable(_group_row(group)), storable(_member_row(first)), event_values(event)

        def add(connection: Connection) -> None:
            _check_made(connection, group.creator, quota)
            try:
                _ADD.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"group {group.id} exists already") from error
            _PUT_MEMBER.run(connection, member)
            append_event(connection, happened)

        await self._commit(add)

    async def swap_group(self, group: Group, event: Event) -> Group:
        after = replace(group, version=group.version + 1)
        await self._swap(_SWAP, groups, "group", _group_row(after), event)
        return after

    async def get_group(self, group_id: str) -> Group | None:
        return await self._one(_GET, _group_of, wanted=group_id)

    async def delete_group(self, group_id: str, event: Event) -> None:
        happened = event_values(event)

        def forget(connection: Connection) -> None:
            _hold(connection, group_id)
            if theirs := owned(connection, group_id):
                raise Conflict(f"the group still owns {theirs}: end, delete or revoke those first")
            forget_leavings(connection, group_id)
            connection.execute(delete(group_members).where(group_members.c.group == group_id))
            connection.execute(delete(groups).where(groups.c.id == group_id))
            append_event(connection, happened)

        await self._commit(forget)

    async def put_member(
        self,
        member: Member,
        event: Event,
        *,
        new: bool = False,
        members_max: int | None = None,
        groups_max: int | None = None,
    ) -> None:
        row, happened = storable(_member_row(member)), event_values(event)

        def change(connection: Connection) -> None:
            _hold(connection, member.group)
            before = _GET_MEMBER.first(connection, {"of": member.group, "who": member.principal})
            if new and before is not None:
                raise Conflict(f"{member.principal} is a member already")
            if before is None:
                if members_max is not None and (there := _count(connection, member.group)) >= members_max:
                    raise QuotaExceeded(f"the group has its maximum of members ({there}/{members_max})")
                _check_joined(connection, member.principal, groups_max)
            _PUT_MEMBER.run(connection, row)
            _check_admin(connection, member.group)
            append_event(connection, happened)

        await self._commit(change)

    async def delete_member(self, group_id: str, principal: str, event: Event) -> bool:
        happened = event_values(event)

        def remove(connection: Connection) -> bool:
            if _HOLD.first(connection, {"wanted": group_id}) is None:
                return False
            if _DELETE_MEMBER.run(connection, {"of": group_id, "who": principal}) != 1:
                return False
            _check_admin(connection, group_id)
            append_event(connection, happened)
            return True

        return await self._commit(remove)

    async def get_member(self, group_id: str, principal: str) -> Member | None:
        return await self._one(_GET_MEMBER, _member_of, of=group_id, who=principal)

    async def list_members(self, group_id: str) -> list[Member]:
        query = select(group_members).where(group_members.c.group == group_id)
        return await self._all(query.order_by(group_members.c.added_at, group_members.c.principal), _member_of)

    async def list_memberships(self, principal: str) -> list[Membership]:
        query = (
            select(groups, group_members.c.role)
            .join(group_members, group_members.c.group == groups.c.id)
            .where(group_members.c.principal == principal)
            .order_by(groups.c.created_at, groups.c.id)
        )
        return await self._all(query, lambda row: Membership(_group_of(row), Role(row["role"])))


def hold_owner(connection: Connection, owner: str) -> None:
    """Keep an owner that is a group or a user from being deleted until the transaction ends. NotFound: it is gone."""
    if owner.startswith(GROUP_PREFIX) and _HOLD_SHARED.first(connection, {"wanted": owner}) is None:
        raise NotFound(f"group {owner} does not exist")
    if USER_ID.match(owner) and _HOLD_USER.first(connection, {"wanted": owner}) is None:
        raise NotFound(f"user {owner} does not exist")


def leave_groups(connection: Connection, principal: str) -> None:
    """Take somebody out of every group. Conflict where a group would be left without an admin."""
    theirs = select(group_members.c.group).where(group_members.c.principal == principal)
    for group_id in connection.execute(theirs.order_by(group_members.c.group)).scalars().all():
        _hold(connection, group_id)
        _DELETE_MEMBER.run(connection, {"of": group_id, "who": principal})
        _check_admin(connection, group_id)


def _hold(connection: Connection, group_id: str) -> None:
    if _HOLD.first(connection, {"wanted": group_id}) is None:
        raise NotFound(f"group {group_id} does not exist")


def owned(connection: Connection, group_id: str, *, keys: bool = True) -> str:
    """What a group or a user owns, in words."""
    unended = sandboxes.c.state.not_in([state.value for state in ENDED])
    counts = {
        "sandboxes": select(func.count()).select_from(sandboxes).where(sandboxes.c.owner == group_id, unended),
        "workspaces": (
            select(func.count())
            .select_from(workspaces)
            .where(workspaces.c.owner == group_id, workspaces.c.deleted_at.is_(None))
        ),
        "keys": (
            select(func.count())
            .select_from(api_keys)
            .where(api_keys.c.owner == group_id, api_keys.c.revoked_at.is_(None))
        ),
        "secrets": select(func.count()).select_from(secrets).where(secrets.c.owner == group_id),
        "workers": select(func.count()).select_from(workers).where(workers.c.author == group_id),
    }
    if not keys:
        del counts["keys"]
    found = {what: connection.execute(query).scalar_one() for what, query in counts.items()}
    return ", ".join(f"{count} {what}" for what, count in found.items() if count)


def _check_admin(connection: Connection, group_id: str) -> None:
    admin = group_members.c.role == Role.ADMIN.value
    if not connection.execute(
        select(group_members.c.principal).where(group_members.c.group == group_id, admin)
    ).first():
        raise Conflict("a group keeps at least one admin: make another member admin first, or delete the group")


def _check_made(connection: Connection, creator: str, most: int | None) -> None:
    if most is None:
        return
    lock_owner(connection, Lock.MEMBERS, creator)
    query = select(func.count()).select_from(groups).where(groups.c.creator == creator)
    if (there := connection.execute(query).scalar_one()) >= most:
        raise QuotaExceeded(f"{creator} has made its maximum of groups ({there}/{most})")


def _check_joined(connection: Connection, principal: str, most: int | None) -> None:
    if most is None:
        return
    lock_owner(connection, Lock.MEMBERS, principal)
    query = (
        select(func.count())
        .select_from(group_members.join(groups, groups.c.id == group_members.c.group))
        .where(group_members.c.principal == principal, groups.c.creator != principal)
    )
    if (there := connection.execute(query).scalar_one()) >= most:
        raise QuotaExceeded(f"{principal} belongs to its maximum of groups that others made ({there}/{most})")


def _count(connection: Connection, group_id: str) -> int:
    query = select(func.count()).select_from(group_members).where(group_members.c.group == group_id)
    return connection.execute(query).scalar_one()


def _group_row(group: Group) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.name,
        "created_at": group.created_at,
        "updated_at": group.updated_at,
        "description": group.description,
        "version": group.version,
        "creator": group.creator,
    }


def _group_of(row: Mapping[Any, Any]) -> Group:
    return Group(**{name: row[name] for name in Group.__dataclass_fields__})


def _member_row(member: Member) -> dict[str, Any]:
    return {
        "group": member.group,
        "principal": member.principal,
        "role": member.role.value,
        "added_at": member.added_at,
    }


def _member_of(row: Mapping[Any, Any]) -> Member:
    return Member(row["group"], row["principal"], Role(row["role"]), row["added_at"])
