"""Principal: who asks. Surfaces make one from a credential; every service call takes it first."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.domain.errors import Forbidden
from atoll.domain.key import KeyKind, Scope


@dataclass(frozen=True, slots=True)
class Principal:
    """`id` is the API key's id and owns what the principal makes; `kind` decides about quotas."""

    id: str
    kind: KeyKind
    scopes: frozenset[Scope]
    name: str = ""

    def require(self, scope: Scope) -> None:
        """Forbidden when the credential does not carry `scope`."""
        if scope not in self.scopes:
            raise Forbidden(f"this credential may not {scope}: its scopes are {_listed(self.scopes)}")


def _listed(scopes: frozenset[Scope]) -> str:
    return ", ".join(sorted(scopes)) or "none"
