"""The netlink wire format, and what the socket makes of the kernel's answers; needs no privilege."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.runtimes.local import network_links as links
from atoll.runtimes.local.netlink import (
    ROUTE,
    Message,
    Netlink,
    attribute,
    attributes,
    be32,
    be64,
    children,
    nested,
    string,
    text,
    u32,
)


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40))))
def test_attributes_come_back_in_order(parts: list[tuple[int, bytes]]) -> None:
    assert children(b"".join(attribute(kind, value) for kind, value in parts)) == parts


@given(st.binary(max_size=64))
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    for kind, value in children(data):
        assert 0 <= kind <= 0x3FFF
        assert len(value) <= len(data)


def test_attributes_are_padded_to_four_bytes() -> None:
    assert attribute(3, b"abc") == struct.pack("=HH", 7, 3) + b"abc\0"


def test_values_have_the_byte_order_of_their_name() -> None:
    assert u32(1, 1)[4:] == struct.pack("=I", 1)
    assert be32(1, 1)[4:] == b"\0\0\0\1"
    assert be32(1, -3)[4:] == b"\xff\xff\xff\xfd"
    assert be64(1, 1)[4:] == b"\0" * 7 + b"\1"
    assert string(text(1, "lo")[4:]) == "lo"


def test_nested_attributes_are_marked_and_read_back() -> None:
    outer = nested(5, u32(1, 7), text(2, "x"))
    assert struct.unpack_from("=H", outer, 2)[0] == 0x8005
    assert attributes(attributes(outer)[5]) == {1: struct.pack("=I", 7), 2: b"x\0"}


@pytest.fixture
def netlink() -> Iterator[Netlink]:
    made = Netlink(ROUTE)
    yield made
    made.close()


def test_a_dump_lists_what_there_is(netlink: Netlink) -> None:
    found = [links.Link(entry) for entry in netlink.dump(links.LIST_LINKS, links.all_links(), "listing links")]
    assert {link.name: link.index for link in found} == {name: index for index, name in socket.if_nameindex()}
    assert all(link.mtu_bytes > 0 for link in found)


def test_an_error_says_what_was_tried_and_why_it_failed(netlink: Netlink) -> None:
    # ordinary users are refused before the name is looked up
    refusal = errno.ENODEV if os.geteuid() == 0 else errno.EPERM
    with pytest.raises(OSError, match=f"removing it: {os.strerror(refusal)}") as caught:
        netlink.request([links.delete_link("atoll-none")], "removing it")
    assert caught.value.errno == refusal


def test_an_unknown_request_is_an_error_and_the_socket_goes_on(netlink: Netlink) -> None:
    with pytest.raises(OSError, match="asking nonsense"):
        netlink.request([Message(0x3F0, links.all_links()), Message(0x3F0, links.all_links())], "asking nonsense")
    assert netlink.dump(links.LIST_LINKS, links.all_links(), "listing links")


def test_a_dump_that_is_refused_is_an_error(netlink: Netlink) -> None:
    with pytest.raises(OSError, match="listing nonsense"):
        netlink.dump(0x3F2, links.all_links(), "listing nonsense")


def test_a_kernel_that_does_not_answer_is_a_timeout(netlink: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    netlink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 20_000))
    monkeypatch.setattr(netlink, "_send", lambda *_: None)
    with pytest.raises(TimeoutError, match="did not answer"):
        netlink.request([links.link_up(1)], "waiting")


def test_answers_to_earlier_requests_are_passed_over(netlink: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(sequence: int, number: int) -> tuple[int, int, int, bytes]:
        return 2, 0, sequence, struct.pack("=i", -number)

    datagrams = [[answer(1, errno.EPERM)], [answer(8, 0), answer(9, errno.ESRCH)], [answer(10, 0)]]
    netlink._sequence = 7
    monkeypatch.setattr(netlink, "_send", lambda *_: None)
    monkeypatch.setattr(netlink, "_receive", lambda _what: datagrams.pop(0))
    with pytest.raises(ProcessLookupError):
        netlink.request([links.link_up(1)] * 3, "three")
    assert datagrams == []
