"""Lists of names: what may stand on one, and what it then allows."""

from __future__ import annotations

import time
from ipaddress import IPv4Address

import pytest

from atoll.domain.egress import allow_list, clean_name
from atoll.domain.errors import InvalidInput


def test_a_name_is_itself_and_a_star_is_what_lies_below() -> None:
    allow = allow_list(["PyPI.org.", "*.example.org"])
    for name in ("pypi.org", "a.example.org", "a.b.example.org"):
        assert allow.allows_name(name), name
    for name in ("example.org", "evilexample.org", "pypi.org.evil.example", "a.pypi.org", "org"):
        assert not allow.allows_name(name), name
    assert not allow.allows_address(IPv4Address("1.1.1.1"))


def test_addresses_are_reached_by_address_only() -> None:
    allow = allow_list(["1.1.1.1", "8.8.8.0/24"])
    assert allow.allows_address(IPv4Address("1.1.1.1")) and allow.allows_address(IPv4Address("8.8.8.255"))
    assert not allow.allows_address(IPv4Address("1.1.1.2"))
    assert not allow.allows_name("one.one.one.one")


@pytest.mark.parametrize("entry", ["0.0.0.0/0", "192.0.0.0/8", "8.0.0.0/7"])
def test_a_network_with_anything_public_in_it_may_stand_there(entry: str) -> None:
    assert allow_list([entry]).networks


def test_a_name_has_at_most_253_characters() -> None:
    longest = ".".join(["x" * 63] * 3 + ["y" * 61])
    assert clean_name(longest) == longest and clean_name(longest + "y") is None


def test_a_star_alone_is_everything() -> None:
    allow = allow_list(["*"])
    assert allow.allows_name("any.example") and allow.allows_address(IPv4Address("9.9.9.9"))


@pytest.mark.parametrize(
    "entry",
    [
        "10.0.0.0/8", "127.0.0.1", "169.254.169.254", "192.168.0.0/16", "198.18.0.1", "224.0.0.0/4", "100.64.0.0/10",
        "::1", "2001:db8::1", "1.1.1.1/33", "8.8.8.8/8", "0x7f.1", "127.1", "1", "a.b.1", "localhost", "", " ", "*.",
        "**.org", "*x.org", "a.*.org", "http://pypi.org", "pypi.org:443", "pypi.org/simple", "a..b", "-a.org",
        "a b.org", "x" * 260 + ".org",
    ],
)  # fmt: skip
def test_what_is_no_public_name_or_address_is_refused(entry: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        allow_list([entry])
    assert caught.value.field == "network.allow"


def test_a_text_too_long_for_a_name_is_not_looked_at() -> None:
    """Names in other scripts are turned into ASCII, at a cost that grows with the square of their length."""
    begun = time.monotonic()
    for text in ("\xe9" * 100_000, "\xe9." * 50_000, "a.\xe9" * 30_000):
        assert clean_name(text) is None
    assert time.monotonic() - begun < 0.1


def test_names_are_compared_in_one_form() -> None:
    assert clean_name("BÜCHER.example.") == "xn--bcher-kva.example" == clean_name("xn--bcher-kva.EXAMPLE")
    assert clean_name("1.2.3.4") is None and clean_name("a.0x1") is None and clean_name("a\n.org") is None


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (["a.example.org"], ["b.example.org", "a.example.org"], True),
        (["a.example.org"], ["*.example.org"], True),
        (["*.a.example.org"], ["*.example.org"], True),
        (["a.example.org"], ["*"], True),
        (["*"], ["*.example.org"], True),
        (["*.example.org"], ["*"], True),
        (["a.example.org"], ["b.example.org", "1.1.1.1"], False),
        (["example.org"], ["*.example.org"], False),
        (["*.a.example.org"], ["*.b.example.org"], False),
        (["a.example.org"], [], False),
    ],
)
def test_two_lists_meet_where_a_name_is_on_both(one: list[str], other: list[str], both: bool) -> None:
    assert allow_list(one).meets(allow_list(other)) is allow_list(other).meets(allow_list(one)) is both
