"""The ways in that an operation takes besides the usual headers, each off unless it says so; `credentials` reads them.

A browser cannot set headers on a WebSocket: it sends a subprotocol, a parameter of the address, or a cookie. A cookie
comes with requests that its holder did not mean to make, so what it may do depends on the page that asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import Scope

from atoll.domain.errors import Forbidden

SUBPROTOCOL = "atoll.token."  # and the credential
CHOSEN = "atoll.subprotocol"  # in the scope: what the answer to the upgrade names
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Ways:
    """`header` carries the credential besides, and before, the usual ones; the rest only where these have none."""

    header: bytes | None = None
    token_in_query: bool = False  # ?token=, with the token of a sandbox or a JWT; an API key as the settings say
    subprotocol: bool = False  # Sec-WebSocket-Protocol: atoll.token.<credential>
    cookie: str = ""  # the name of one
    page: bool = False  # to be looked at, and no more: a cookie opens it wherever pages of sandboxes come from


USUAL = Ways()


def offered(scope: Scope) -> list[str]:
    """The subprotocols that the client of a WebSocket offers."""
    listed: list[str] = scope.get("subprotocols") or []
    return listed


def cookie_value(scope: Scope, wanted: str) -> str | None:
    """Of the first cookie of that name."""
    for name, value in scope["headers"]:
        if name != b"cookie":
            continue
        for pair in value.decode("latin-1").split(";"):
            found, _, text = pair.strip().partition("=")
            if found == wanted:
                return text.strip('"')
    return None


def check_origin(scope: Scope) -> None:
    """Forbidden for a request with a cookie that another site's page may have made: its Origin must be this server's
    own; a safe request, which changes nothing and which pages of others cannot read, need not have one."""
    origins = [value for name, value in scope["headers"] if name == b"origin"]
    if not origins and scope["type"] == "http" and scope["method"] in SAFE:
        return
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(origins) != 1 or len(hosts) != 1 or not _same(origins[0].decode("latin-1"), hosts[0].decode("latin-1")):
        raise Forbidden("a cookie opens this for pages of this server only: send the Origin header, or a token")


def _same(origin: str, host: str) -> bool:
    """The scheme may differ: a proxy in front may have ended TLS."""
    try:
        parts = urlsplit(origin)
        default = {"http": 80, "https": 443}.get(parts.scheme)
        asked = urlsplit(f"//{host}")
        return (
            default is not None
            and bool(parts.hostname)
            and parts.hostname == asked.hostname
            and (parts.port or default) == (asked.port or default)
        )
    except ValueError:
        return False
