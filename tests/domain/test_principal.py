"""Principals: which changes of what one may do take something away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from atoll.domain.group import Role
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal

BEFORE = Principal(
    "user_1",
    KeyKind.STANDARD,
    frozenset({Scope.READ, Scope.EXECUTE}),
    groups={"grp_1": Role.MEMBER},
    resources=frozenset({"sess_1", "sess_2"}),
    admin=True,
)
NO_LESS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "another name": {"name": "Ann"},
    "a scope more": {"scopes": frozenset({Scope.READ, Scope.EXECUTE, Scope.WRITE})},
    "a greater role": {"groups": {"grp_1": Role.ADMIN}},
    "a group more": {"groups": {"grp_1": Role.MEMBER, "grp_2": Role.VIEWER}},
    "wider bounds": {"resources": frozenset({"sess_1", "sess_2", "sess_3"})},
    "no bounds": {"resources": None},
}
LESS: dict[str, dict[str, Any]] = {
    "a scope less": {"scopes": frozenset({Scope.EXECUTE})},
    "other scopes": {"scopes": frozenset({Scope.WRITE, Scope.EXECUTE})},
    "a smaller role": {"groups": {"grp_1": Role.VIEWER}},
    "a group less": {"groups": {"grp_2": Role.ADMIN}},
    "narrower bounds": {"resources": frozenset({"sess_1"})},
    "other bounds": {"resources": frozenset({"sess_1", "sess_3"})},
    "no administrator": {"admin": False},
    "somebody else": {"id": "user_2"},
}


@pytest.mark.parametrize("how", NO_LESS)
def test_what_takes_nothing_away_covers_what_was(how: str) -> None:
    assert replace(BEFORE, **NO_LESS[how]).covers(BEFORE)


@pytest.mark.parametrize("how", LESS)
def test_what_takes_something_away_does_not_cover_what_was(how: str) -> None:
    assert not replace(BEFORE, **LESS[how]).covers(BEFORE)


def test_bounds_take_away_from_who_had_none() -> None:
    assert not BEFORE.covers(replace(BEFORE, resources=None))
