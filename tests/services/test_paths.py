"""The one rule about paths inside sandboxes (F01): what may be handed to a sidekick, which resolves it."""

from __future__ import annotations

import pytest

from atoll.domain.errors import InvalidInput
from atoll.services.paths import PATH_BYTES_MAX, absolute, check_path


@pytest.mark.parametrize(
    "path", ["a", "/", "..", "../..", "a\\b", "%2e%2e", "\u00e9" * 2048, "x" * PATH_BYTES_MAX, "a\nb"]
)
def test_f01_what_the_sandbox_is_to_resolve_goes_on_as_it_is(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (None, "must be text"),
        (b"a", "must be text"),
        ("", "must not be empty"),
        ("a\0b", "must not contain NUL"),
        ("\ud800", "must be valid UTF-8"),
        ("x" * (PATH_BYTES_MAX + 1), "must be at most 4096 bytes, not 4097"),
        ("\u00e9" * 2049, "must be at most 4096 bytes, not 4098"),
    ],
)
def test_f01_anything_else_is_refused_by_the_name_of_its_field(path: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"^from {said}$") as refused:
        check_path(path, field="from")
    assert refused.value.field == "from"


def test_a_bound_may_be_narrower() -> None:
    assert check_path("abc", bytes_max=3) == "abc"
    with pytest.raises(InvalidInput):
        check_path("abcd", bytes_max=3)


@pytest.mark.parametrize(
    ("path", "work_dir", "found"),
    [("/a", "/w", "/a"), ("a", "/w", "/w/a"), ("a", "/w/", "/w/a"), ("../a", "/w", "/w/../a"), ("a", "/", "/a")],
)
def test_a_relative_path_is_below_the_work_directory(path: str, work_dir: str, found: str) -> None:
    assert absolute(path, work_dir) == found
