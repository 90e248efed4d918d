"""Heads: what of a request's head goes on to a port, and what of an answer's comes back; nothing of it is ours.

Hop-by-hop headers (RFC 9110, 7.6.1) go no further, and neither do the credentials that open the preview.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from atoll.gateway.previews.upstream import Headers

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
FORWARDED = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
TOKEN_HEADER = b"x-preview-token"
OURS = b"atoll_"  # what the names of all our cookies begin with, after __Host- and __Secure-
_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"x-computesdk-api-key", TOKEN_HEADER})
SUBPROTOCOL = b"atoll.token."  # and a credential, among those that a WebSocket's client offers
_OFFERED = b"sec-websocket-protocol"
# What of a request's head is not simply passed on; the administrator's key never.
_NOTED = HOP_BY_HOP | FORWARDED | _CREDENTIALS | {
    b"host", b"expect", b"content-length", b"cookie", b"origin", b"x-admin-key", _OFFERED
}  # fmt: skip
_USUAL = frozenset({b"keep-alive", b"close", b"upgrade", b""})
# `date` is written by whoever sends the answer on; a worker's scope is its own path.
_NOT_TOLD = HOP_BY_HOP | {b"date", b"service-worker-allowed"}
# What holds for a whole origin, which is no program's that shares it with others.
_OF_ORIGINS = frozenset(
    {
        b"accept-ch",
        b"alt-svc",
        b"clear-site-data",
        b"critical-ch",
        b"expect-ct",
        b"nel",
        b"public-key-pins",
        b"public-key-pins-report-only",
        b"report-to",
        b"reporting-endpoints",
        b"sec-session-challenge",
        b"sec-session-registration",
        b"secure-session-challenge",
        b"secure-session-registration",
        b"set-login",
        b"shared-storage-write",
        b"strict-transport-security",
        b"use-as-dictionary",
    }
)
_SPECIAL = _NOT_TOLD | _OF_ORIGINS | {b"set-cookie", b"location", b"content-length"}
_MARKS = (b"__host-", b"__secure-", b"__http-")


@dataclass(slots=True)
class Asking:
    """A request's head, read once: what goes on as it is, and what was found besides."""

    lines: list[bytes]
    host: bytes = b""
    length: bytes | None = None
    chunked: bool = False
    cookie: bytes = b""
    connection: bytes = b""
    credentials: tuple[tuple[bytes, bytes], ...] = ()
    hops: tuple[bytes, ...] = ()  # what proxies say of the client
    origin: bool = False  # whether it names one


def read_head(headers: Headers) -> Asking:
    """The parser has let nothing through that could end a line."""
    lines: list[bytes] = []
    asking = Asking(lines)
    for name, value in headers:
        if name not in _NOTED:
            # Many programs read an underscore as a dash: what stood beside a header of ours would be taken for it.
            if b"_" not in name or name.replace(b"_", b"-") not in _NOTED:
                lines.append(b"%b: %b\r\n" % (name, value))
        elif name == b"host":
            asking.host = value
        elif name == b"cookie":
            asking.cookie = asking.cookie + b"; " + value if asking.cookie else value
        elif name in _CREDENTIALS:
            asking.credentials += ((name, value),)
        elif name in FORWARDED:
            asking.hops += (name, value)
        elif name == b"content-length":
            asking.length = value.strip()
        elif name == b"transfer-encoding":
            asking.chunked = True
        elif name == b"origin":
            asking.origin = True
            lines.append(b"origin: %b\r\n" % value)
        elif name == b"connection":
            asking.connection = asking.connection + b"," + value if asking.connection else value
        elif name == _OFFERED and SUBPROTOCOL not in value:
            lines.append(b"%b: %b\r\n" % (name, value))
    if asking.chunked:
        asking.length = None
    return asking


@dataclass(frozen=True, slots=True)
class Asked:
    """Where requests go, and what stands in their heads besides their own."""

    port: int
    prefix: str  # the path below which it is previewed; empty: the preview has a host of its own
    host: bytes  # as the client knows it
    scheme: str
    peer: str
    owner: str = ""  # whose share of the connections it takes
    stripped: frozenset[bytes] = frozenset()  # headers that carried a credential of ours

    @property
    def forwarded(self) -> bytes:
        """What the program is told of the client."""
        told = f"x-forwarded-for: {self.peer}\r\nx-forwarded-proto: {self.scheme}\r\n"
        told += f"x-forwarded-prefix: {self.prefix}\r\n" if self.prefix else ""
        return b"%bx-forwarded-host: %b\r\n" % (told.encode("latin-1", "replace"), self.host)


def passed_lines(asking: Asking, stripped: Collection[bytes]) -> list[bytes]:
    """What of the request's own headers goes on, each with the end of its line."""
    lines = asking.lines
    for name, value in asking.credentials:
        if name != TOKEN_HEADER and name not in stripped:
            lines = [*lines, b"%b: %b\r\n" % (name, value)]
    if asking.cookie and (theirs := without_ours(asking.cookie)):
        lines = [*lines, b"cookie: %b\r\n" % theirs]
    if asking.connection:
        named = {word.strip() for word in asking.connection.lower().split(b",")} - _USUAL
        if named:
            lines = [line for line in lines if line.partition(b":")[0] not in named]
    return lines


def request_head(method: str, path: bytes, asked: Asked, asking: Asking, forwarded: bytes) -> bytes:
    """Ready to be sent."""
    if asking.chunked:
        framing = b"transfer-encoding: chunked\r\n\r\n"
    elif asking.length is not None:
        framing = b"content-length: %b\r\n\r\n" % asking.length
    else:
        framing = b"\r\n"
    first = b"%b %b HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % (method.encode("latin-1"), path, asked.port)
    return b"".join((first, *passed_lines(asking, asked.stripped), forwarded, framing))


def passed_headers(asking: Asking, stripped: Collection[bytes], besides: Collection[bytes]) -> Headers:
    """The request's own headers that go on, as pairs, without those of `besides`."""
    pairs = (line[:-2].partition(b": ") for line in passed_lines(asking, stripped))
    return [(name, value) for name, _, value in pairs if name not in besides]


def without_ours(cookies: bytes) -> bytes:
    """A Cookie header without the cookies of this server."""
    if OURS not in cookies.lower():
        return cookies
    kept = [one for one in cookies.split(b";") if not _is_ours(one.partition(b"=")[0])]
    return b";".join(kept).strip()


def _is_ours(name: bytes) -> bool:
    name = name.strip().lower()
    for mark in _MARKS:
        name = name.removeprefix(mark)
    return name.startswith(OURS)


def answer_headers(status: int, headers: Headers, prefix: str, extra: Headers) -> Headers:
    """What comes back: no hop-by-hop headers, no cookie of another host or path, none in the name of this server, and
    by path nothing that holds for the whole origin."""
    named: set[bytes] = set()
    found: Headers = []
    for one in headers:
        name = one[0]
        if name not in _SPECIAL:
            # As of requests: what reads an underscore as a dash takes it for the header that it is not.
            if b"_" not in name or name.replace(b"_", b"-") not in _SPECIAL:
                found.append(one)
        elif name == b"content-length":
            if status not in (204, 304):
                found.append(one)
        elif name == b"set-cookie":
            cookie = bounded_cookie(one[1], prefix)
            if cookie is not None:
                found.append((name, cookie))
        elif name == b"location":
            found.append((name, _below(one[1], prefix.encode("latin-1"))) if prefix else one)
        elif name in _OF_ORIGINS:
            if not prefix:
                found.append(one)
        elif name == b"connection" and one[1].lower() not in _USUAL:
            named |= {word.strip() for word in one[1].lower().split(b",")} - _USUAL
    if named:
        found = [one for one in found if one[0] not in named]
    return found + extra if extra else found


def bounded_cookie(value: bytes, prefix: str) -> bytes | None:
    """A Set-Cookie of the host that it came from and, where previews share one, of the path; None for one of ours."""
    first, *attributes = value.split(b";")
    name, equals, _ = first.partition(b"=")
    name = name.strip()
    if not name or not equals or _is_ours(name):  # one without a name is sent as its value, which may look like ours
        return None
    kept: list[bytes] = []
    path = b"/"
    for one in attributes:
        what, _, said = one.partition(b"=")
        what = what.strip().lower()
        if what == b"path" and said.strip().startswith(b"/"):
            path = said.strip()
        elif what not in (b"domain", b"path"):
            kept.append(one)
    if not prefix:
        return b";".join([first, *kept, b" Path=" + path])
    if name.lower().startswith(b"__host-"):
        return None  # it must be of the whole host
    return b";".join([first, *kept, b" Path=" + _below(path, prefix.encode("latin-1"))])


def _below(path: bytes, prefix: bytes) -> bytes:
    """An absolute path where the browser has it."""
    if not path.startswith(b"/") or path.startswith((b"//", b"/\\", prefix + b"/")):
        return path
    return prefix + path
