"""The ways in besides headers: which credentials an address, a subprotocol or a cookie may carry (W01, W02)."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.domain.errors import Forbidden
from atoll.surfaces.credentials import QueryWays, TwoCredentials, credential
from atoll.surfaces.ways import CHOSEN, Ways

SBT, JWT, KEY = "sbt_a_" + "1" * 64, "eyJhbGciOiJub25lIn0.e30.c2ln", "sk_" + "2" * 64
QUERY, PROTOCOL, COOKIE = Ways(token_in_query=True), Ways(subprotocol=True), Ways(cookie="atoll_sb")


def scope(kind: str = "websocket", method: str = "GET", **said: str) -> dict[str, Any]:
    """`query` and `protocols` are what they say; every other name is a header's."""
    query, protocols = said.pop("query", ""), said.pop("protocols", "")
    headers = [(name.encode(), value.encode()) for name, value in ({"host": "atoll.example:8080"} | said).items()]
    found: dict[str, Any] = {"type": kind, "headers": headers, "query_string": query.encode()}
    if kind == "websocket":
        return found | {"subprotocols": [one.strip() for one in protocols.split(",") if one]}
    return found | {"method": method}


@pytest.mark.parametrize("text", [SBT, JWT])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_what_ends_by_itself_may_stand_in_the_address_of_an_operation_that_says_so(text: str, kind: str) -> None:
    one = scope(kind, query=f"cols=80&token={text}")
    assert credential(one, ways=QUERY) == text
    assert one["query_string"] == b"cols=80"
    assert credential(scope(kind, query=f"token={text}")) is None


def test_a_key_in_the_address_counts_where_the_settings_allow_it() -> None:
    closed = scope(query=f"token={KEY}")
    assert credential(closed, ways=QUERY) is None
    assert closed["query_string"] == b""  # neither a handler nor a log sees it
    assert credential(scope(query=f"token={KEY}"), ways=QUERY, query=QueryWays(token=True)) == KEY
    assert credential(scope("http", query=f"token={KEY}"), ways=QUERY, query=QueryWays(token=True)) is None


def test_a_subprotocol_carries_a_credential_and_the_answer_names_another_one_where_it_can() -> None:
    one = scope(protocols=f"tty, atoll.token.{KEY}")
    assert credential(one, ways=PROTOCOL) == KEY
    assert one[CHOSEN] == "tty"
    only = scope(protocols=f"atoll.token.{JWT}")
    assert credential(only, ways=PROTOCOL) == JWT
    assert only[CHOSEN] == f"atoll.token.{JWT}"
    assert credential(scope(protocols=f"atoll.token.{KEY}")) is None
    assert CHOSEN not in scope(protocols="tty")


@pytest.mark.parametrize("offered", ["", "chat, terminal"])
def test_who_offers_no_credential_among_the_subprotocols_has_none_and_gets_none_of_them(offered: str) -> None:
    one = scope(protocols=offered)
    assert credential(one, ways=PROTOCOL) is None
    assert CHOSEN not in one


def test_two_credentials_are_refused_whichever_way_they_come() -> None:
    both = Ways(token_in_query=True, subprotocol=True)
    for one in (
        scope(query=f"token={SBT}&token={JWT}"),
        scope(query=f"token={SBT}", protocols=f"atoll.token.{KEY}"),
        scope(protocols=f"atoll.token.{KEY},atoll.token.{JWT}"),
        scope(protocols=f"atoll.token.{KEY}", authorization=f"Bearer {SBT}"),
    ):
        with pytest.raises(TwoCredentials):
            credential(one, ways=both)


SAME = ("http://atoll.example:8080", "https://atoll.example:8080")
FOREIGN = ("https://evil.example", "null", "http://atoll.example", "http://atoll.example:8080.evil.example", "", "//x")


@pytest.mark.parametrize(("kind", "method"), [("websocket", "GET"), ("http", "POST"), ("http", "DELETE")])
def test_w02_a_cookie_opens_changes_and_websockets_for_pages_of_this_server_alone(kind: str, method: str) -> None:
    for origin in SAME:
        assert credential(scope(kind, method, cookie=f"a=b; atoll_sb={SBT}", origin=origin), ways=COOKIE) == SBT
    for origin in FOREIGN:
        with pytest.raises(Forbidden):
            credential(scope(kind, method, cookie=f"atoll_sb={SBT}", origin=origin), ways=COOKIE)
    with pytest.raises(Forbidden):
        credential(scope(kind, method, cookie=f"atoll_sb={SBT}"), ways=COOKIE)


def test_w02_a_cookie_opens_safe_requests_without_an_origin() -> None:
    assert credential(scope("http", cookie=f"atoll_sb={SBT}"), ways=COOKIE) == SBT
    with pytest.raises(Forbidden):
        credential(scope("http", cookie=f"atoll_sb={SBT}", origin=FOREIGN[0]), ways=COOKIE)


def test_w02_a_header_is_not_asked_where_it_comes_from_and_goes_before_the_cookie() -> None:
    one = scope(cookie=f"atoll_sb={SBT}", authorization=f"Bearer {KEY}", origin=FOREIGN[0])
    assert credential(one, ways=COOKIE) == KEY


def test_no_cookie_counts_where_the_operation_names_none_or_another() -> None:
    assert credential(scope("http", cookie=f"atoll_sb={SBT}")) is None
    assert credential(scope("http", cookie=f"atoll_sbx={SBT}"), ways=COOKIE) is None


def test_a_cookie_is_what_stands_in_the_header_of_cookies() -> None:
    assert credential(scope("http", forwarded=f"atoll_sb={SBT}"), ways=COOKIE) is None
