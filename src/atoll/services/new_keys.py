"""New keys: how the record of a key is made, whoever makes it: an administrator, another key, a user, a stranger.

What it may be like `key_rules.py` says; whether somebody may make it is for the service that asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from atoll.domain.ids import new_key_id
from atoll.domain.key import DEFAULT_SCOPES, KEY_PREFIX_CHARS, ApiKey, KeyKind, Scope, hash_key, new_key_text
from atoll.domain.rate import Rate

PREFIX = "sk_"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its text, which nobody can ask for a second time."""

    key: ApiKey
    text: str


class KeyTerms(TypedDict, total=False):
    """What a key is like, and for how long; what is left out is as of any standard key."""

    kind: KeyKind
    scopes: frozenset[Scope]
    expires_in_days: float | None
    prefix: str
    plan: str
    description: str
    metadata: Mapping[str, Any] | None
    rate: Rate | None


class OwnedKeyTerms(KeyTerms, total=False):
    """Besides, whose it is, what it comes from, and what it reaches of that."""

    owner: str
    parent: str | None
    resources: frozenset[str] | None
    budget_micro_usd: int | None


def new_key(
    name: str, at: datetime, *, text: str | None = None, key_id: str | None = None, **terms: Unpack[OwnedKeyTerms]
) -> NewKey:
    """A key that is made at that moment; `text` and `key_id` are for one that was drawn before."""
    text = text or new_key_text(terms.get("prefix", PREFIX))
    days = terms.get("expires_in_days")
    key = ApiKey(
        id=key_id or new_key_id(),
        hash=hash_key(text),
        prefix=text[:KEY_PREFIX_CHARS],
        name=name,
        kind=terms.get("kind", KeyKind.STANDARD),
        scopes=terms.get("scopes", DEFAULT_SCOPES),
        created_at=at,
        expires_at=None if days is None else at + timedelta(days=days),
        owner=terms.get("owner", ""),
        parent=terms.get("parent"),
        resources=terms.get("resources"),
        budget_micro_usd=terms.get("budget_micro_usd"),
        plan=terms.get("plan", ""),
        description=terms.get("description", ""),
        metadata=dict(terms.get("metadata") or {}),
        rate=terms.get("rate"),
    )
    return NewKey(key, text)
