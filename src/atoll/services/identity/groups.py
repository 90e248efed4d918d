"""Groups: the service for groups and who belongs to them; what a group owns is for the services of those things.

Every method takes the Principal first, raises Forbidden without the scope or the role, and NotFound for a group that is
unknown or not the principal's: the same message for both.
"""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from atoll.domain.errors import Forbidden, InvalidInput, NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Membership, Role
from atoll.domain.ids import GROUP_ID, new_id
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.memberships import Memberships
from atoll.services.identity.principals import Principals

NAME_CHARS_MAX = 128
TEXT_CHARS_MAX = 4_096
SWAPS_MAX = 8


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """How many there may be."""

    groups_max: int = 100  # that one principal made
    joined_max: int = 1_000  # made by others, that one principal belongs to: whoever adds one asks nobody
    members_max: int = 1_000  # of one group


class Groups:
    """Use cases of groups. `left` is told of somebody whose role in groups became less, or ended."""

    def __init__(
        self,
        records: Records,
        memberships: Memberships,
        principals: Principals,
        *,
        limits: GroupLimits | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._records = records
        self._memberships = memberships
        self._principals = principals
        self._limits = limits or GroupLimits()
        self._clock = clock
        self.left: Callable[[str], Awaitable[None]] = _nobody

    async def create(self, principal: Principal, name: str, description: str | None = None) -> Membership:
        """Make one, with the principal as its admin. Needs `write`. InvalidInput names the field; QuotaExceeded."""
        owner = principal.owning(Scope.WRITE)
        if GROUP_ID.match(owner):
            raise Forbidden("a group belongs to no other group: use the credential of one of its members")
        now = self._clock()
        group = Group(new_id("grp"), name, now, now, description or None, creator=owner)
        _check(group)
        member = Member(group.id, owner, Role.ADMIN, now)
        event = self._event("group.created", group.id, principal, name=name)
        await self._records.add_group(group, member, event, quota=self._limits.groups_max)
        self._memberships.forget(owner)
        return Membership(group, Role.ADMIN)

    async def list(self, principal: Principal) -> list[Membership]:
        """Those that it belongs to, oldest first. Needs `read`."""
        principal.require(Scope.READ)
        found = await self._records.list_memberships(principal.id)
        return [one for one in found if principal.reaches(one.group.id, one.group.id)]

    async def get(self, principal: Principal, group_id: str) -> Membership:
        """Needs `read`."""
        return await self._find(principal, group_id, Scope.READ, Role.VIEWER)

    async def change(
        self, principal: Principal, group_id: str, *, name: str | None = None, description: str | None = None
    ) -> Membership:
        """Rename or describe it; None leaves it, an empty description takes it away. Needs `write`, as an admin."""
        found = await self._find(principal, group_id, Scope.WRITE, Role.ADMIN)
        for _ in range(SWAPS_MAX):
            before = found.group
            after = replace(
                before,
                name=before.name if name is None else name,
                description=before.description if description is None else description or None,
            )
            _check(after)
            if after == before:
                return found
            after = replace(after, updated_at=self._clock())
            try:
                event = self._event("group.changed", group_id, principal, name=after.name)
                return Membership(await self._records.swap_group(after, event), found.role)
            except StaleVersion:
                found = await self._find(principal, group_id, Scope.WRITE, Role.ADMIN)
        raise StaleVersion

    async def delete(self, principal: Principal, group_id: str) -> None:
        """Needs `write`, as an admin. Conflict, saying what, while the group owns something."""
        found = await self._find(principal, group_id, Scope.WRITE, Role.ADMIN)
        members = await self._records.list_members(group_id)
        event = self._event("group.deleted", group_id, principal, name=found.group.name)
        await self._gone(self._records.delete_group(group_id, event))
        for member in members:
            await self._lost(member.principal)

    async def members(self, principal: Principal, group_id: str) -> builtins.list[Member]:
        """In the order in which they came. Needs `read`."""
        await self._find(principal, group_id, Scope.READ, Role.VIEWER)
        return await self._records.list_members(group_id)

    async def name_of(self, member: Member) -> str | None:
        """What a member that these methods gave is called."""
        return await self._principals.name_of(member.principal)

    async def add(self, principal: Principal, group_id: str, who: str, role: Role) -> Member:
        """Make a user, or a key's owner, a member. Needs `write`, as an admin. Conflict when it is one already."""
        await self._find(principal, group_id, Scope.WRITE, Role.ADMIN)
        target = await self._principals.named(principal, who)
        return await self._put(principal, group_id, target, role, "member.added", new=True)

    async def set_role(self, principal: Principal, group_id: str, who: str, role: Role) -> Member:
        """Needs `write`, as an admin. NotFound for somebody who is no member; Conflict for the last admin."""
        await self._find(principal, group_id, Scope.WRITE, Role.ADMIN)
        before = await self._member(group_id, who)
        if before.role is role:
            return before
        changed = await self._put(principal, group_id, before.principal, role, "member.changed")
        if role.rank < before.role.rank:
            await self._lost(before.principal)
        return changed

    async def remove(self, principal: Principal, group_id: str, who: str) -> None:
        """Needs `write`, and to be an admin, but for leaving by oneself. Conflict for the last admin."""
        oneself = who == principal.id or await self._principals.id_of(who) == principal.id
        await self._find(principal, group_id, Scope.WRITE, Role.VIEWER if oneself else Role.ADMIN)
        member = await self._member(group_id, principal.id if oneself else who)
        event = self._event("member.removed", group_id, principal, principal=member.principal)
        if not await self._records.delete_member(group_id, member.principal, event):
            raise _no_member(who)
        await self._lost(member.principal)

    async def _find(self, principal: Principal, group_id: str, scope: Scope, need: Role) -> Membership:
        principal.require(scope)
        role = Role.MEMBER if principal.id == group_id else principal.groups.get(group_id)
        group = None
        if role is not None and GROUP_ID.match(group_id) and principal.reaches(group_id, group_id):
            group = await self._records.get_group(group_id)
        if group is None or role is None:
            raise NotFound("group not found")
        if role.rank < need.rank:
            raise Forbidden(f"a {role} of the group may not do that: it takes an {need}")
        return Membership(group, role)

    async def _member(self, group_id: str, who: str) -> Member:
        member = await self._records.get_member(group_id, who)
        if member is None and (user := await self._records.find_user(who)) is not None:
            member = await self._records.get_member(group_id, user.id)
        if member is None:
            raise _no_member(who)
        return member

    async def _put(
        self, principal: Principal, group_id: str, target: str, role: Role, action: str, *, new: bool = False
    ) -> Member:
        member = Member(group_id, target, role, self._clock())
        event = self._event(action, group_id, principal, principal=target, role=role.value)
        limits = self._limits
        put = self._records.put_member(
            member, event, new=new, members_max=limits.members_max, groups_max=limits.joined_max
        )
        await self._gone(put)
        self._memberships.forget(target)
        return await self._records.get_member(group_id, target) or member

    async def _gone(self, change: Awaitable[None]) -> None:
        try:
            await change
        except NotFound:
            raise NotFound("group not found") from None

    async def _lost(self, principal_id: str) -> None:
        self._memberships.forget(principal_id)
        await self.left(principal_id)

    def _event(self, action: str, group_id: str, who: Principal, **detail: object) -> Event:
        return Event(action, group_id, group_id, who.id, detail=detail, at=self._clock())


async def _nobody(_principal_id: str) -> None:
    """Nobody is told."""


def _no_member(who: str) -> NotFound:
    return NotFound(f"no such member of the group: {who[:NAME_CHARS_MAX]!r}")


def _check(group: Group) -> None:
    name, text = group.name, group.description or ""
    if not name.strip() or len(name) > NAME_CHARS_MAX or not name.isprintable() or "/" in name:
        raise InvalidInput(f"name must be 1 to {NAME_CHARS_MAX} printable characters without '/'", field="name")
    if GROUP_ID.match(name):
        raise InvalidInput("name must not look like an id", field="name")
    if len(text) > TEXT_CHARS_MAX:
        raise InvalidInput(f"description must be at most {TEXT_CHARS_MAX} characters", field="description")
