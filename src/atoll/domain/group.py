"""Group: principals that share what they own, each in a role that says what it may do with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from atoll.domain.key import Scope


class Role(StrEnum):
    """What a member of a group may do with what the group owns."""

    VIEWER = "viewer"  # look at it
    MEMBER = "member"  # look at it, run in it, change it, and make more
    ADMIN = "admin"  # likewise, delete it, and say who is a member

    @property
    def scopes(self) -> frozenset[Scope]:
        """The scopes that the role carries; a credential's own hold besides."""
        return frozenset({Scope.READ}) if self is Role.VIEWER else frozenset(Scope)

    @property
    def rank(self) -> int:
        """Each role includes those of a lower rank."""
        return tuple(Role).index(self)


@dataclass(frozen=True, slots=True)
class Group:
    """The record of one group; its id owns what the group has."""

    id: str
    name: str  # need not be unique: only those in it ever see it
    created_at: datetime
    updated_at: datetime
    description: str | None = None
    version: int = 1
    creator: str = ""  # a principal's id: it counts among their groups while it exists, whoever is in it


@dataclass(frozen=True, slots=True)
class Member:
    """That a principal belongs to a group."""

    group: str
    principal: str  # a user's id, or that of a key which belongs to nobody
    role: Role
    added_at: datetime


class Membership(NamedTuple):
    """A group as one of its members sees it."""

    group: Group
    role: Role
