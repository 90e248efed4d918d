"""The ways a credential comes in: headers, a query parameter where the settings allow one, and what an operation takes
besides (`ways.py`); the door reads it here.

What came in the query is taken out of it, so that no handler and no log sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from starlette.types import Scope

from atoll.domain.errors import InvalidInput
from atoll.domain.sandbox_token import TOKEN_PREFIX
from atoll.services.identity.jwt_checks import looks_like_token
from atoll.surfaces.ways import CHOSEN, SUBPROTOCOL, USUAL, Ways, check_origin, cookie_value, offered

MAX_CREDENTIAL_CHARS = 8192  # a token that lists many roles
# In this order; all of them together name one credential, or the request is refused.
HEADERS = (b"authorization", b"x-api-key", b"x-computesdk-api-key")
API_KEY, TOKEN = "api_key", "token"
FOUND = "atoll.credential"  # in the scope: what was read once


class TwoCredentials(InvalidInput):
    """The request carries two different credentials: send one."""


@dataclass(frozen=True, slots=True)
class QueryWays:
    """Which query parameters may carry a credential; both stand in addresses, which others write into their logs."""

    api_key: bool = False  # ?api_key=, of any route
    token: bool = False  # ?token=, of WebSockets, with any credential: a browser cannot set headers on them


NO_QUERY = QueryWays()


def credential(scope: Scope, *, ways: Ways = USUAL, query: QueryWays = NO_QUERY) -> str | None:
    """The request's credential, of any kind; None when it has none. TwoCredentials when it has different ones.

    `ways` are those that a route takes besides. Forbidden for a cookie on a request of another site's page.
    """
    if FOUND in scope:
        return scope[FOUND]
    found: str | None = None
    special: str | None = None
    for name, value in scope["headers"]:
        if name == ways.header:
            special = special or _text(value)
        elif name in HEADERS:
            text = bearer_text(value) if name == b"authorization" else _text(value)
            if text is not None and found is not None and text != found:
                raise TwoCredentials
            found = found or text
    others = [_from_query(scope, query, ways)] if scope.get("query_string") else []
    if ways.subprotocol and scope["type"] == "websocket":
        others.append(_from_subprotocol(scope))
    for text in others:
        if text is not None and found is not None and text != found:
            raise TwoCredentials
        found = found or text
    found = special or found
    if found is None and ways.cookie:
        text = cookie_value(scope, ways.cookie)
        found = None if text is None else _text(text.encode("latin-1", "replace"))
        if found is not None:
            check_origin(scope)
    scope[FOUND] = found
    return found


def bearer_text(value: bytes) -> str | None:
    """The text after `Bearer` in an Authorization header, or None."""
    scheme, _, text = value.decode("latin-1").partition(" ")
    return _text(text.encode("latin-1")) if scheme.lower() == "bearer" else None


def _from_query(scope: Scope, query: QueryWays, ways: Ways) -> str | None:
    names = {API_KEY} if query.api_key else set[str]()
    any_token = query.token and scope["type"] == "websocket"
    if any_token or ways.token_in_query:
        names.add(TOKEN)
    if not names:
        return None
    raw: bytes = scope["query_string"]
    if not raw.isascii():
        return None  # refused for that later
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
    carried = {value for name, value in pairs if name in names}
    if not carried:
        return None
    # The same bytes again but for the credential: what is left may be percent-encoded bytes that are no UTF-8.
    rest = [(name, value) for name, value in pairs if name not in names]
    scope["query_string"] = urlencode(rest, errors="surrogateescape").encode("latin-1")
    if not any_token:  # keys are not to stand in addresses; what ends by itself may
        carried -= {value for name, value in pairs if name == TOKEN and not _ends_by_itself(value)}
    if len(carried) > 1:
        raise TwoCredentials
    return _text(carried.pop().encode("utf-8", "replace")) if carried else None


def _ends_by_itself(text: str) -> bool:
    return text.startswith(TOKEN_PREFIX) or looks_like_token(text)


def _from_subprotocol(scope: Scope) -> str | None:
    """The answer has to name one of those that were offered: another one, where there is any."""
    listed = offered(scope)
    carried = {one.removeprefix(SUBPROTOCOL) for one in listed if one.startswith(SUBPROTOCOL)}
    if not carried:
        return None
    scope[CHOSEN] = next((one for one in listed if not one.startswith(SUBPROTOCOL)), listed[0])
    if len(carried) > 1:
        raise TwoCredentials
    return _text(carried.pop().encode("latin-1", "replace"))


def _text(value: bytes) -> str | None:
    text = value.decode("latin-1").strip()
    return text if text and len(text) <= MAX_CREDENTIAL_CHARS and text.isascii() else None
