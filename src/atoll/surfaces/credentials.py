"""The ways a credential comes in: headers, and a query parameter where the settings allow one; the door reads it here.

No cookie is ever read. What came in the query is taken out of it, so that no handler and no log sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from starlette.types import Scope

from atoll.domain.errors import InvalidInput

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
    token: bool = False  # ?token=, of WebSockets: a browser cannot set headers on them


NO_QUERY = QueryWays()


def credential(scope: Scope, *, header: bytes | None = None, query: QueryWays = NO_QUERY) -> str | None:
    """The request's credential, of any kind; None when it has none. TwoCredentials when it has different ones.

    `header` is one that a route takes besides, and before, the usual ones.
    """
    if FOUND in scope:
        return scope[FOUND]
    found: str | None = None
    special: str | None = None
    for name, value in scope["headers"]:
        if name == header:
            special = special or _text(value)
        elif name in HEADERS:
            text = bearer_text(value) if name == b"authorization" else _text(value)
            if text is not None and found is not None and text != found:
                raise TwoCredentials
            found = found or text
    if scope.get("query_string") and (query.api_key or query.token):
        text = _from_query(scope, query)
        if text is not None and found is not None and text != found:
            raise TwoCredentials
        found = found or text
    scope[FOUND] = special or found
    return special or found


def bearer_text(value: bytes) -> str | None:
    """The text after `Bearer` in an Authorization header, or None."""
    scheme, _, text = value.decode("latin-1").partition(" ")
    return _text(text.encode("latin-1")) if scheme.lower() == "bearer" else None


def _from_query(scope: Scope, query: QueryWays) -> str | None:
    names = {API_KEY} if query.api_key else set[str]()
    if query.token and scope["type"] == "websocket":
        names.add(TOKEN)
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
    if len(carried) > 1:
        raise TwoCredentials
    return _text(carried.pop().encode("utf-8", "replace"))


def _text(value: bytes) -> str | None:
    text = value.decode("latin-1").strip()
    return text if text and len(text) <= MAX_CREDENTIAL_CHARS and text.isascii() else None
