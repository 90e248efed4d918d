"""Opening: who may look at a preview: anybody where it is public, else who has its token or the owner's credential.

The door of previews asks before it sends a byte on. A token in the address becomes a cookie of that preview alone.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NoBase64
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_plus, unquote_to_bytes, urlencode

from starlette.types import Scope

from atoll.domain.errors import AtollError, Forbidden, NotFound, Unauthenticated
from atoll.domain.ids import SANDBOX_ID
from atoll.domain.key import Scope as KeyScope
from atoll.domain.preview import Preview
from atoll.domain.principal import Principal
from atoll.gateway.previews.heads import TOKEN_HEADER
from atoll.services.previews.previews import NoPreview, Previews
from atoll.surfaces.credentials import HEADERS
from atoll.surfaces.door import ADMITTED, Door
from atoll.surfaces.previews.places import Place
from atoll.surfaces.ways import check_origin

QUERY = "preview_token"
COOKIE = "atoll_preview"
COOKIES_MAX = 8  # of that name: a neighbour may have set more
CLASSES = ("previews",)
TEXTS_MAX = 12  # that are looked at of one request: who sends more of them gets none through
TEXT_CHARS_MIN = 16  # of a credential; shorter words beside it are none
# By its name, as others call them too, or as the texts of ours begin: keys, tokens of sandboxes, JWTs.
_CARRYING = re.compile(rb"token=|api[-_]?key=|=(?:sk_|sbt_|eyj)", re.IGNORECASE)
_BETWEEN = re.compile(r'[\s,;="]+')

Authenticate = Callable[[str], Awaitable[Principal]]


@dataclass(slots=True)
class Opened:
    """A preview that may be looked at."""

    preview: Preview
    principal: Principal | None = None  # None: public, or with a token
    stripped: frozenset[bytes] = frozenset()  # headers that go no further
    cookie_s: float | None = None  # the token stood in the address: it holds for so long as a cookie
    text: str = field(default="", repr=False)  # the token, or the principal's credential
    by_cookie: bool = False


class Opening:
    """`authenticate` says whose a credential is, whether or not anybody asks with it."""

    def __init__(self, door: Door, previews: Previews, authenticate: Authenticate) -> None:
        self._door = door
        self._previews = previews
        self._authenticate = authenticate

    async def open(self, scope: Scope, place: Place) -> Opened:
        """NoPreview, the same for all that the one who asks has no part in. Unauthenticated without anything that
        could open it; Forbidden, RateLimited."""
        opened = await self._open(scope, place)
        if carries(scope["query_string"]):
            await self._clean(scope)
        return opened

    async def _open(self, scope: Scope, place: Place) -> Opened:
        assert place.port is not None
        sandbox_id = place.sandbox
        if not SANDBOX_ID.match(sandbox_id):  # a name, which only its owner's credential gives a meaning
            try:
                sandbox_id = await self._previews.resolve(await self._door.admit(scope, CLASSES), sandbox_id)
            except NotFound:
                raise NoPreview from None
        preview = await self._previews.find(sandbox_id, place.port)
        token, in_query = _token(scope)
        if preview is not None:
            left_s, text = await self._left_s(scope, preview, token)
            if preview.public or left_s is not None:
                await self._door.admit_anyone(scope, CLASSES)
                stripped = await self._ours(scope)
                return Opened(
                    preview, None, stripped, left_s if in_query else None, text, by_cookie=bool(text) and text != token
                )
        principal = await self._door.admit(scope, CLASSES)
        if preview is None:
            raise NoPreview
        try:
            await self._previews.reaching.find(principal, preview.sandbox_id, KeyScope.EXECUTE)
        except NotFound:
            raise NoPreview from None
        text, _ = scope[ADMITTED]
        return Opened(preview, principal, frozenset(HEADERS), text=text)

    async def still(self, opened: Opened) -> bool:
        """Whether what was let in may go on."""
        preview = await self._previews.find(opened.preview.sandbox_id, opened.preview.port)
        if preview is None:
            return False
        if opened.principal is not None:
            try:
                return (await self._authenticate(opened.text)).covers(opened.principal)
            except Unauthenticated:
                return False
        return preview.public or await self._previews.opens(opened.text, preview) is not None

    async def _left_s(self, scope: Scope, preview: Preview, token: str | None) -> tuple[float | None, str]:
        """For how long the request's token opens it, None when it has none that does; and that token."""
        if token:
            return await self._previews.opens(token, preview), token
        for text in _cookies(scope):
            left_s = await self._previews.opens(text, preview)
            if left_s is None:
                continue
            try:
                check_origin(scope)
            except Forbidden:
                if not preview.public:
                    raise
                break
            return left_s, text
        return None, token or ""

    async def _ours(self, scope: Scope) -> frozenset[bytes]:
        """Headers that carry a credential of this server's, though nobody asked for one: a tenant's program must not
        see it. Others are the program's own."""
        found: set[bytes] = set()
        looked = 0
        for name, value in scope["headers"]:
            if name not in HEADERS or name in found:
                continue
            for text in _texts(value.decode("latin-1")):
                looked += 1
                if looked > TEXTS_MAX or await self._is_ours(text):
                    found.add(name)
                    break
        return frozenset(found)

    async def _clean(self, scope: Scope) -> None:
        """Take credentials of ours out of the query, also where nobody asked for them."""
        rest: list[bytes] = []
        looked = 0
        for part in scope["query_string"].split(b"&"):
            if carries(part):
                looked += 1
                name, _, value = (unquote_plus(text) for text in part.decode("latin-1").partition("="))
                if name == QUERY or looked > TEXTS_MAX or await self._is_ours(value):
                    continue
            rest.append(part)
        scope["query_string"] = b"&".join(rest)

    async def _is_ours(self, text: str) -> bool:
        if not text:
            return False
        try:
            await self._authenticate(text)
        except Unauthenticated:
            return False
        except AtollError:
            return True  # nobody can say: better it is missing
        return True


def carries(query: bytes) -> bool:
    """Whether a credential may stand in a query, or in a part of one."""
    return bool(query) and _CARRYING.search(unquote_to_bytes(query) if b"%" in query else query) is not None


def _texts(value: str) -> Iterable[str]:
    """What may be a credential in a header: all of it, what follows its scheme, what that is the Base64 of, and what
    stands in a parameter."""
    value = value.strip()
    rest = "".join(value.split(None, 1)[1:])
    found = [value, rest, *(word for word in _BETWEEN.split(value) if len(word) >= TEXT_CHARS_MIN)]
    with suppress(NoBase64, ValueError):
        user, colon, password = b64decode(rest, validate=True).decode("latin-1").partition(":")
        found += [user, password] if colon else []
    return dict.fromkeys(text for text in found if text)


def _token(scope: Scope) -> tuple[str | None, bool]:
    """The request's preview token and whether it stood in the address, out of which it is taken."""
    found, in_query = None, False
    raw: bytes = scope["query_string"]
    if QUERY.encode() in raw and raw.isascii():
        pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
        texts = [value for name, value in pairs if name == QUERY]
        if texts:
            found, in_query = texts[0], True
            rest = [(name, value) for name, value in pairs if name != QUERY]
            scope["query_string"] = urlencode(rest, errors="surrogateescape").encode("latin-1")
    if found is None:
        for name, value in scope["headers"]:
            if name == TOKEN_HEADER:
                return value.decode("latin-1").strip(), False
    return found, in_query


def _cookies(scope: Scope) -> list[str]:
    mark = COOKIE.encode()
    found: list[str] = []
    for name, value in scope["headers"]:
        if name == b"cookie" and mark in value:
            for pair in value.decode("latin-1").split(";"):
                called, _, text = pair.strip().partition("=")
                if called == COOKIE:
                    found.append(text.strip('"'))
    return found[:COOKIES_MAX]
