"""Inspection: the name that a program tells its server in the first bytes, read before a server gets any of them.

TLS says it in the clear (SNI), HTTP in its Host header; what is neither tells none, and passes.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from functools import lru_cache

import h11

from atoll.domain.egress import clean_name
from atoll.services.joining import Readable

HEAD_BYTES_MAX = 64 * 1024
PIECE_BYTES = 16_384
LINES_MAX = 256  # of a head: short ones take more time to be read than their bytes say
PIECES_MAX = 1024  # in which they may come: with each, all that is held is read again
_TLS = 0x16  # the first byte of a handshake
_BEGUN = re.compile(rb"[A-Z][A-Z_-]{0,31}([ \t][^\n]*)?\r?")
_HEAD_END = re.compile(rb"\n\r?\n")  # as h11 looks for it
_VERSION = re.compile(rb"[ \t]HTTP/", re.IGNORECASE)


class NameRefused(ConnectionError):
    """The first bytes name a host that is not allowed, or hide which one they mean."""


class Inspected:
    """A reader that passes on nothing before `allowed` has agreed to the name; NameRefused when it does not."""

    def __init__(self, reader: Readable, allowed: Callable[[str], bool]) -> None:
        self._reader = reader
        self._allowed = allowed
        self._held: bytes | None = None
        self.refused = False

    async def read(self, n: int = -1, /) -> bytes:
        if self._held is None:
            try:
                self._held = await self._first()
            except NameRefused:
                self.refused = True
                raise
        if self._held:
            given = self._held if n < 0 else self._held[:n]
            self._held = self._held[len(given) :]
            return given
        return await self._reader.read(n)

    async def _first(self) -> bytes:
        held, pieces = b"", 0
        while piece := await self._reader.read(PIECE_BYTES):
            held, pieces = held + piece, pieces + 1
            said = named(held)
            if said is None and len(held) <= HEAD_BYTES_MAX and pieces < PIECES_MAX:
                continue
            if said is None or (said and not self._allowed(said)):
                raise NameRefused(f"the first bytes name {said!r}")
            break
        return held


def named(held: bytes) -> str | None:
    """The name that the first bytes tell; empty for what tells none, None while more has to be seen."""
    if held[0] == _TLS:
        return _server_name(held)
    text = held.lstrip(b"\r\n")  # servers overlook empty lines before a request; h11 refuses them
    if _BEGUN.fullmatch(text):
        return None
    line, ended, _ = text.partition(b"\n")
    return _host(held) if ended and _VERSION.search(line) else ""


def _host(held: bytes) -> str | None:
    """The Host of a request. HTTP/2 without TLS hides it, and what h11 does not take means two things; so does a whole
    URL that names another one."""
    if crowded(held):
        raise NameRefused("an HTTP request with too many lines")
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
    try:
        connection.receive_data(held)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        raise NameRefused("an HTTP request that cannot be read") from None
    if event is h11.NEED_DATA:
        return None
    if not isinstance(event, h11.Request):
        raise NameRefused("an HTTP request that cannot be read")
    said = [value for name, value in event.headers if name == b"host"]
    if not event.target.startswith(b"/") and event.target != b"*":
        said.append(event.target.rpartition(b"://")[2].partition(b"/")[0])
    hosts = {clean_host(one.decode("latin-1")) for one in said}
    if len(hosts) != 1 or (host := hosts.pop()) is None:
        raise NameRefused("an HTTP request without a host name, or with two")
    return host


def crowded(held: bytes) -> bool:
    """Whether the head that this begins with has too many lines, however much of it is there."""
    end = _HEAD_END.search(held)
    return held.count(b"\n", 0, end.start() if end else len(held)) > LINES_MAX


def clean_host(authority: str) -> str | None:
    """The name in `name` or `name:port`; None for an address."""
    name, _, port = authority.partition(":")
    return clean_name(name) if not port or port.isdecimal() else None


def _server_name(held: bytes) -> str | None:
    """The SNI of a ClientHello, as OpenSSL reads it; empty when it has none."""
    told: list[str] = []
    incoming = ssl.MemoryBIO()
    incoming.write(held)
    handshake = _tls().wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    _LISTENERS[id(handshake)] = told
    try:
        handshake.do_handshake()
    except ssl.SSLWantReadError:
        return None
    except ssl.SSLError:
        pass  # it has no certificate: it only listens
    finally:
        del _LISTENERS[id(handshake)]
    if not told:
        raise NameRefused("a TLS handshake that cannot be read")
    if told[0] == "":
        return ""
    name = clean_name(told[0])
    if name is None:
        raise NameRefused("a TLS handshake without a host name")
    return name


_LISTENERS: dict[int, list[str]] = {}


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def heard(handshake: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int:
        _LISTENERS[id(handshake)].append(name or "")
        return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE

    context.sni_callback = heard  # type: ignore[assignment]
    return context
