"""Principal: who asks. Surfaces make one from a credential; every service call takes it first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.domain.errors import Forbidden
from atoll.domain.group import Role
from atoll.domain.key import KeyKind, Scope


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
    resources: frozenset[str] | None = None  # the ids that this credential reaches; None: all of its owner's
    plan: str = ""  # whose quotas hold, where `kind` has any; empty: a key's
    admin: bool = False  # whether it may administer this server: users, everybody's keys, groups and quotas

    def __post_init__(self) -> None:
        if not self.credential:
            object.__setattr__(self, "credential", self.id)

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

    def sees(self, owner: str, resource: str) -> bool:
        """Whether a thing of `owner`'s exists for it; what does not, is to be answered as an unknown id is."""
        if self.resources is not None and resource not in self.resources:
            return False
        return owner == self.id or owner in self.groups


def _listed(scopes: frozenset[Scope]) -> str:
    return ", ".join(sorted(scopes)) or "none"
