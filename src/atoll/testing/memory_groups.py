"""The groups' part of MemoryRecords, in dictionaries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Membership, Role
from atoll.domain.user import USER_ID
from atoll.records.groups import GROUP_PREFIX, GroupRecords


class MemoryGroups(GroupRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._groups: dict[str, Group] = {}
        self._members: dict[tuple[str, str], Member] = {}

    async def add_group(self, group: Group, first: Member, event: Event, *, quota: int | None = None) -> None:
        self._check()
        if group.id in self._groups:
            raise Conflict(f"group {group.id} exists already")
        made = sum(one.creator == group.creator for one in self._groups.values())
        if quota is not None and made >= quota:
            raise QuotaExceeded(f"{group.creator} has made its maximum of groups ({made}/{quota})")
        self._groups[group.id] = group
        self._members[group.id, first.principal] = first
        self._log(event)

    async def swap_group(self, group: Group, event: Event) -> Group:
        self._check()
        stored = self._group(group.id)
        if stored.version != group.version:
            raise StaleVersion()
        after = self._groups[group.id] = replace(group, version=group.version + 1)
        self._log(event)
        return after

    async def get_group(self, group_id: str) -> Group | None:
        self._check()
        return self._groups.get(group_id)

    async def delete_group(self, group_id: str, event: Event) -> None:
        self._check()
        self._group(group_id)
        if owned := ", ".join(f"{count} {what}" for what, count in self._owned(group_id) if count):
            raise Conflict(f"the group still owns {owned}: end, delete or revoke those first")
        self._forget_leavings(group_id)
        self._members = {key: one for key, one in self._members.items() if one.group != group_id}
        del self._groups[group_id]
        self._log(event)

    async def put_member(
        self,
        member: Member,
        event: Event,
        *,
        new: bool = False,
        members_max: int | None = None,
        groups_max: int | None = None,
    ) -> None:
        self._check()
        self._group(member.group)
        before = self._members.get((member.group, member.principal))
        if new and before is not None:
            raise Conflict(f"{member.principal} is a member already")
        if before is None:
            there = len(self._members_of(member.group))
            if members_max is not None and there >= members_max:
                raise QuotaExceeded(f"the group has its maximum of members ({there}/{members_max})")
            self._check_joined(member.principal, groups_max)
        after = member if before is None else replace(before, role=member.role)
        self._check_admin(member.group, [*self._members_of(member.group, but=member.principal), after])
        self._members[member.group, member.principal] = after
        self._log(event)

    async def delete_member(self, group_id: str, principal: str, event: Event) -> bool:
        self._check()
        if (group_id, principal) not in self._members:
            return False
        self._check_admin(group_id, self._members_of(group_id, but=principal))
        del self._members[group_id, principal]
        self._log(event)
        return True

    async def get_member(self, group_id: str, principal: str) -> Member | None:
        self._check()
        return self._members.get((group_id, principal))

    async def list_members(self, group_id: str) -> list[Member]:
        self._check()
        return sorted(self._members_of(group_id), key=lambda one: (one.added_at, one.principal))

    async def list_memberships(self, principal: str) -> list[Membership]:
        self._check()
        found = [
            Membership(self._groups[one.group], one.role)
            for one in self._members.values()
            if one.principal == principal
        ]
        return sorted(found, key=lambda one: (one.group.created_at, one.group.id))

    def _hold_owner(self, owner: str) -> None:
        if owner.startswith(GROUP_PREFIX):
            self._group(owner)
        users: Any = getattr(self, "_users", {})
        if USER_ID.match(owner) and owner not in users:
            raise NotFound(f"user {owner} does not exist")

    def _group(self, group_id: str) -> Group:
        if group_id not in self._groups:
            raise NotFound(f"group {group_id} does not exist")
        return self._groups[group_id]

    def _members_of(self, group_id: str, *, but: str | None = None) -> list[Member]:
        return [one for one in self._members.values() if one.group == group_id and one.principal != but]

    def _check_admin(self, group_id: str, members: Iterable[Member]) -> None:
        if all(one.role is not Role.ADMIN for one in members):
            raise Conflict("a group keeps at least one admin: make another member admin first, or delete the group")

    def _leave_groups(self, principal: str) -> None:
        groups = [one.group for one in self._members.values() if one.principal == principal]
        for group in groups:
            self._check_admin(group, self._members_of(group, but=principal))
        for group in groups:
            del self._members[group, principal]

    def _check_joined(self, principal: str, most: int | None) -> None:
        there = sum(
            one.principal == principal and self._groups[one.group].creator != principal
            for one in self._members.values()
        )
        if most is not None and there >= most:
            raise QuotaExceeded(f"{principal} belongs to its maximum of groups that others made ({there}/{most})")

    @abstractmethod
    def _check(self) -> None:
        """Unavailable while the records are down."""

    @abstractmethod
    def _log(self, event: Event | None) -> None:
        """Keep the event."""

    @abstractmethod
    def _owned(self, owner: str) -> list[tuple[str, int]]:
        """What is somebody's, and how many of each kind."""

    @abstractmethod
    def _forget_leavings(self, principal: str) -> None:
        """Forget the shares, webhooks and quotas of somebody."""
