"""The name in the first bytes of a connection: read whole, or not passed on."""

from __future__ import annotations

import ssl

import pytest

from atoll.gateway.inspection import HEAD_BYTES_MAX, LINES_MAX, PIECES_MAX, Inspected, NameRefused, named


def hello(name: str | None) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


class Pieces:
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    async def read(self, n: int = -1, /) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def test_tls_and_http_say_their_host_and_others_say_none() -> None:
    assert named(hello("Good.example")) == "good.example"
    assert named(hello(None)) == ""
    assert named(b"GET / HTTP/1.1\r\nHost: Good.example:8080\r\n\r\n") == "good.example"
    assert named(b"get /" + b"a" * 9000 + b" HTTP/1.1\nHost: bad.example\n\n") == "bad.example"
    assert named(b"GET http://good.example:80/ HTTP/1.1\r\nHost: good.example\r\n\r\n") == "good.example"
    for words in (b"SSH-2.0-x\r\n", b"\x00\x01\x02", b"EHLO me\r\n", b"hello"):
        assert named(words) == ""


@pytest.mark.parametrize("size", [1, 5, 20, 200])
def test_more_is_awaited_while_a_name_may_come(size: int) -> None:
    assert named(hello("good.example")[:size]) is None
    assert named(b"GET / HTTP/1.1\r\nHost: good.example\r\n"[:size]) is None
    assert named(b"M-SEARCH /" + b"a" * 9000) is None


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
        b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET http://a.example@b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET /a b\tHTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
    ],
)
def test_what_hides_its_name_is_refused(words: bytes) -> None:
    with pytest.raises(NameRefused):
        assert named(words) is not None


@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["unended", "ended"])
def test_a_head_of_more_lines_than_any_has_is_not_read(end: bytes) -> None:
    begun = b"POST / HTTP/1.1\r\nHost: good.example\r\n"
    most = b"a:b\r\n" * (LINES_MAX - 2)
    assert named(begun + most + b"\r\n" + b"\n" * 1000) == "good.example"  # what follows is none of it
    with pytest.raises(NameRefused, match="too many lines"):
        named(begun + most + b"a:b\r\n" * 2 + end)


async def test_nothing_passes_before_the_name_is_allowed() -> None:
    words = hello("bad.example")
    asked: list[str] = []
    with pytest.raises(NameRefused):
        await Inspected(Pieces(words[:100], words[100:]), lambda name: bool(asked.append(name))).read(10)
    assert asked == ["bad.example"]
    reader = Inspected(Pieces(words[:100], words[100:], b"rest"), lambda _name: True)
    assert await reader.read(50) + await reader.read(1000) + await reader.read(1000) == words + b"rest"


async def test_a_head_without_an_end_is_refused() -> None:
    endless = Pieces(b"GET / HTTP/1.1\r\n", *[b"X: " + b"y" * 8000 + b"\r\n"] * (HEAD_BYTES_MAX // 8000 + 2))
    with pytest.raises(NameRefused):
        await Inspected(endless, lambda _name: True).read(10)


async def test_a_name_that_comes_byte_by_byte_is_refused_before_it_costs_much() -> None:
    slow = Pieces(*[b"G"] + [b"E"] * 20 + [b" "] + [b"x"] * PIECES_MAX * 2)
    with pytest.raises(NameRefused):
        await Inspected(slow, lambda _name: True).read(10)
    assert len(slow.pieces) > PIECES_MAX
