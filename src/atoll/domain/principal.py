"""Principal: who asks. Surfaces make one from a credential; every service call takes it first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.domain.errors import Forbidden, NotFound
from atoll.domain.group import Role
from atoll.domain.ids import KEY_ID
from atoll.domain.key import KeyKind, Scope
from atoll.domain.rate import Rate


@dataclass(frozen=True, slots=True)
class Principal:
    """`id` owns what the principal makes: a user's id, or that of a key which belongs to nobody; `credential` is the
    key or token that it came with, `kind` and `plan` decide about quotas."""

    id: str
    kind: KeyKind
    scopes: frozenset[Scope]
    name: str = ""
    credential: str = ""  # empty: `id` itself
    groups: Mapping[str, Role] = field(default_factory=dict[str, Role], hash=False)  # that it belongs to, by id
    resources: frozenset[str] | None = None  # ids of things, or of owners with all they have, that the credential
    # reaches; None: all that is its owner's and its groups'
    plan: str = ""  # whose quotas hold, where `kind` has any; empty: a key's
    rate: Rate | None = None  # of its credential; None: as the settings say
    admin: bool = False  # whether it may administer this server: users, everybody's keys, groups and quotas
    lineage: tuple[str, ...] = ()  # the key that it came with, or from, and those that this one comes from: what is
    # set for one of them bounds it too
    rated_as: str = ""  # under whose name its requests count; empty: its credential's

    def __post_init__(self) -> None:
        if not self.credential:
            object.__setattr__(self, "credential", self.id)
        if not self.lineage and KEY_ID.match(self.credential):
            object.__setattr__(self, "lineage", (self.credential,))

    @property
    def owners(self) -> tuple[str, ...]:
        """Under whose ids it finds things: its own and its groups'."""
        return (self.id, *self.groups)

    def require(self, scope: Scope, owner: str | None = None) -> None:
        """Forbidden when the credential does not carry `scope`, or its role in the group `owner` does not."""
        if scope not in self.scopes:
            raise Forbidden(f"this credential may not {scope}: its scopes are {_listed(self.scopes)}")
        role = None if owner is None else self.groups.get(owner)
        if role is not None and scope not in role.scopes:
            raise Forbidden(f"a {role} of the group {owner} may not {scope}")

    def reaches(self, owner: str, resource: str) -> bool:
        """Whether the credential's bounds leave it a thing of `owner`'s: they name the thing, or its owner."""
        return self.resources is None or resource in self.resources or owner in self.resources

    def sees(self, owner: str, resource: str) -> bool:
        """Whether a thing of `owner`'s exists for it; what does not, is to be answered as an unknown id is."""
        return self.reaches(owner, resource) and (owner == self.id or owner in self.groups)

    def covers(self, before: Principal) -> bool:
        """Whether it may still do all that it might `before`: what was begun then may go on."""
        return (
            self.id == before.id
            and self.scopes >= before.scopes
            and (self.admin or not before.admin)
            and (self.resources is None or (before.resources is not None and self.resources >= before.resources))
            and all(self._rank(group) >= role.rank for group, role in before.groups.items())
        )

    def _rank(self, group: str) -> int:
        role = self.groups.get(group)
        return -1 if role is None else role.rank

    def owning(self, scope: Scope, group: str | None = None) -> str:
        """Whose a thing is that it makes: its own, or the group's that it names. Needs `scope`, of the role too.

        NotFound for a group that it does not belong to. Forbidden where its bounds name single things: those it may
        change, and make no others.
        """
        self.require(scope, group)
        if group is None or group == self.id:
            if not self.reaches(self.id, self.id):
                raise Forbidden("this credential reaches single things only: it may make no others")
            return self.id
        if group not in self.groups or not self.reaches(group, group):
            raise NotFound("group not found")
        return group


def _listed(scopes: frozenset[Scope]) -> str:
    return ", ".join(sorted(scopes)) or "none"
