"""The part of the records contract about groups; `Records` includes it. See `Records` for what holds of all."""

from __future__ import annotations

from abc import ABC, abstractmethod

from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Membership

GROUP_PREFIX = "grp_"  # of an owner's id that is a group's: what it gets, it gets only while it exists


class GroupRecords(ABC):
    """Groups and who belongs to them.

    Once a group is deleted nothing can be added that it owns: `add_sandbox`, `add_workspace` and `add_secret`
    are NotFound then.
    """

    @abstractmethod
    async def add_group(self, group: Group, first: Member, event: Event, *, quota: int | None = None) -> None:
        """Insert it with its first member. Conflict when the id exists; QuotaExceeded when its creator has made
        `quota` groups that still exist, counted in the same atomic step."""

    @abstractmethod
    async def swap_group(self, group: Group, event: Event) -> Group:
        """As `swap_sandbox`."""

    @abstractmethod
    async def get_group(self, group_id: str) -> Group | None: ...

    @abstractmethod
    async def delete_group(self, group_id: str, event: Event) -> None:
        """Forget it with its memberships, shares, webhooks and quotas. NotFound when it is gone; Conflict, saying
        what, while it owns sandboxes that have not ended, workspaces that are not deleted, keys that are not revoked,
        or secrets."""

    @abstractmethod
    async def put_member(
        self,
        member: Member,
        event: Event,
        *,
        new: bool = False,
        members_max: int | None = None,
        groups_max: int | None = None,
    ) -> None:
        """Insert or replace. NotFound when the group is gone; Conflict when that would leave it without an admin, or
        for a `new` one who is a member already;
        QuotaExceeded for a new one, when the group has `members_max` already, or the principal belongs to
        `groups_max` groups that others made."""

    @abstractmethod
    async def delete_member(self, group_id: str, principal: str, event: Event) -> bool:
        """Whether it was there; no event if not. Conflict when that would leave the group without an admin."""

    @abstractmethod
    async def get_member(self, group_id: str, principal: str) -> Member | None: ...

    @abstractmethod
    async def list_members(self, group_id: str) -> list[Member]:
        """In the order in which they were added."""

    @abstractmethod
    async def list_memberships(self, principal: str) -> list[Membership]:
        """The groups that a principal belongs to, oldest first."""
