"""Where a credential is read: in which order, from which part of the query, and that nothing of it is left there."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.surfaces.credentials import MAX_CREDENTIAL_CHARS, NO_QUERY, QueryWays, TwoCredentials, credential
from atoll.surfaces.ways import Ways

BOTH = QueryWays(api_key=True, token=True)
BEARER = (b"authorization", b"Bearer one")


def scope(*headers: tuple[bytes, bytes], query: bytes = b"", kind: str = "http") -> dict[str, Any]:
    return {"type": kind, "headers": list(headers), "query_string": query}


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ((), None),
        ((BEARER,), "one"),
        (((b"x-api-key", b" one "),), "one"),
        (((b"x-computesdk-api-key", b"one"),), "one"),
        ((BEARER, (b"x-api-key", b"one"), (b"x-computesdk-api-key", b"one")), "one"),
        (((b"authorization", b"Basic b25l"), (b"x-api-key", b"one")), "one"),
        (((b"authorization", b"Bearer "), (b"x-api-key", b"one")), "one"),
        (((b"x-api-key", b""), BEARER), "one"),
        (((b"x-api-key", b"\xff"),), None),
        (((b"x-api-key", b"a" * MAX_CREDENTIAL_CHARS),), "a" * MAX_CREDENTIAL_CHARS),
        (((b"x-api-key", b"a" * (MAX_CREDENTIAL_CHARS + 1)),), None),
        (((b"cookie", b"api_key=one"),), None),
        (((b"x-admin-key", b"one"),), None),
        (((b"x-api-key-2", b"one"),), None),
    ],
)
def test_a_header_holds_a_credential(headers: tuple[tuple[bytes, bytes], ...], found: str | None) -> None:
    assert credential(scope(*headers)) == found


@pytest.mark.parametrize(
    "headers",
    [
        (BEARER, (b"x-api-key", b"two")),
        ((b"x-api-key", b"one"), (b"x-api-key", b"two")),
        (BEARER, (b"authorization", b"Bearer two")),
        ((b"x-computesdk-api-key", b"one"), BEARER, (b"x-api-key", b"two")),
    ],
)
def test_different_ones_are_refused(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(TwoCredentials):
        credential(scope(*headers))


def test_a_routes_own_header_comes_first_and_counts_on_no_other_route() -> None:
    both = ((b"x-admin-key", b"admin"), BEARER)
    assert credential(scope(*both), ways=Ways(b"x-admin-key")) == "admin"
    assert credential(scope(*both)) == "one"


def test_it_is_read_once() -> None:
    one = scope(BEARER)
    assert credential(one) == "one"
    one["headers"] = [(b"x-api-key", b"two")]
    assert credential(one) == "one"


@pytest.mark.parametrize(
    ("query", "kind", "found", "rest"),
    [
        (b"api_key=one", "http", "one", b""),
        (b"a=1&api_key=one&b=%2F%ff+c", "http", "one", b"a=1&b=%2F%FF+c"),
        (b"api_key=o%6ee", "http", "one", b""),
        (b"api_key=&a=1", "http", None, b"a=1"),
        (b"api_key=one&api_key=one", "http", "one", b""),
        (b"token=one", "http", None, b"token=one"),
        (b"token=one&cmd=a&cmd=b", "websocket", "one", b"cmd=a&cmd=b"),
        (b"api_key=one&token=one", "websocket", "one", b""),
        (b"api_key=\xff", "http", None, b"api_key=\xff"),
        (b"API_KEY=one", "http", None, b"API_KEY=one"),
        (b"a=%20&b=~%7e", "websocket", None, b"a=%20&b=~%7e"),  # without one, its bytes stay as they came
    ],
)
def test_the_query_holds_one_where_it_may_and_is_rid_of_it(query: bytes, kind: str, found: str, rest: bytes) -> None:
    one = scope(query=query, kind=kind)
    assert credential(one, query=BOTH) == found
    assert one["query_string"] == rest
    closed = scope(query=query, kind=kind)
    assert credential(closed, query=NO_QUERY) is None
    assert closed["query_string"] == query


def test_a_query_that_says_something_else_than_the_header_is_refused() -> None:
    for query in (b"api_key=two", b"api_key=one&api_key=two"):
        with pytest.raises(TwoCredentials):
            credential(scope(BEARER, query=query), query=BOTH)
