"""Group: principals that share what they own, each in a role that says what it may do with it."""

from __future__ import annotations

from enum import StrEnum

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
