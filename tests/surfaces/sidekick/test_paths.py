"""Paths in addresses of the sidekick API: every spelling that clients have means one file."""

from __future__ import annotations

from typing import Any, cast

import pytest
from starlette.requests import Request

from atoll.domain.errors import Forbidden, InvalidInput, NotFound
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.surfaces.sidekick.paths import meant, path_in

ALICE = Principal("key_a11ce0000000", KeyKind.STANDARD, frozenset(Scope))


def asked(raw: bytes | None, path: str = "") -> str:
    return path_in(Request({"type": "http", "raw_path": raw, "path_params": {"path": path}, "headers": []}))


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/sb/x/files//tmp/a%20b", "/tmp/a b"),
        (b"/sb/x/files/%2Ftmp%2Fa", "/tmp/a"),
        (b"/sb/x/files///tmp", "/tmp"),
        (b"/SB/x/Files/tmp/a", "tmp/a"),
        (b"/sb/x/files/", "/"),
        (b"/sb/x/files/%252e", "%2e"),  # decoded once
        (b"/sb/x/files/a+b", "a+b"),
        (b"/sb/x/files/%2e%2e/a", "../a"),
        (b"/sb/x/files/a/sb/y/files/b", "a/sb/y/files/b"),
    ],
)
def test_f01_a_path_is_decoded_once_and_any_number_of_slashes_is_one(raw: bytes, path: str) -> None:
    assert asked(raw, "something else") == path


@pytest.mark.parametrize("raw", [b"/files/a", None])
def test_at_a_sandboxs_own_host_the_path_is_what_was_taken_from_it(raw: bytes | None) -> None:
    assert [asked(raw, path) for path in ("a", "//a", "")] == ["a", "/a", "/"]


def test_f01_what_is_no_utf8_is_refused() -> None:
    with pytest.raises(InvalidInput, match="UTF-8") as refused:
        asked(b"/sb/x/files/%ff")
    assert refused.value.field == "path"


class Files:
    """Which paths there are; whether the sandbox is there."""

    def __init__(self, *there: str, seen: bool = True) -> None:
        self._there, self._seen = there, seen

    async def stat(self, _: Principal, __: str, path: str) -> str:
        if path not in self._there:
            raise NotFound(path)
        return path

    async def check(self, _: Principal, __: str, scope: Scope) -> None:
        assert scope is Scope.READ
        if not self._seen:
            raise Forbidden


@pytest.mark.parametrize(
    ("path", "there", "found"),
    [
        ("/tmp/a", ("/tmp/a",), ("/tmp/a", "/tmp/a")),
        ("/tmp/a", ("tmp/a", "/"), ("/tmp/a", None)),
        ("tmp/a", ("/tmp/a", "tmp/a"), ("/tmp/a", "/tmp/a")),
        ("tmp/a", ("tmp/a",), ("tmp/a", "tmp/a")),
        ("tmp/a", ("/tmp",), ("/tmp/a", None)),
        ("tmp/a", (), ("tmp/a", None)),
        ("a", ("/",), ("a", None)),
        ("a", ("/a",), ("/a", "/a")),
    ],
)
async def test_a_path_without_a_slash_is_from_the_root_where_something_is(
    path: str, there: tuple[str, ...], found: tuple[str, str | None]
) -> None:
    assert await meant(cast(Any, Files(*there)), ALICE, "sess_1", path) == found


async def test_a_sandbox_that_is_not_there_is_no_file_that_is_not_there() -> None:
    with pytest.raises(Forbidden):
        await meant(cast(Any, Files(seen=False)), ALICE, "sess_1", "/a")
