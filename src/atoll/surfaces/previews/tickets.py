"""Tickets: who was let in to a preview a moment ago gets in the same way at once; and the quick way in with them.

A page asks for many things together. What a ticket stands for is looked at anew every second, and at once where this
server changed the preview; what counts against a rate is counted each time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from atoll.domain.errors import RateLimited
from atoll.gateway.previews.heads import Asked, Asking, read_head
from atoll.services.previews.previews import Previews
from atoll.surfaces.door import Door
from atoll.surfaces.previews.opening import CLASSES, COOKIE, Opened, carries
from atoll.surfaces.previews.places import Place, route_of, with_query
from atoll.surfaces.ways import SAFE
from atoll.telemetry.metrics import Metrics
from atoll.telemetry.trace import Trace

if TYPE_CHECKING:
    from atoll.surfaces.previews.door import PreviewDoor

GOOD_S = 1.0
KEPT_MAX = 4_096
_TOP = b"/preview/"
_COOKIE = COOKIE.encode()

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a request was let in with, and what was found out for it."""

    opened: Opened
    asked: Asked
    forwarded: bytes
    generation: tuple[int, int]
    until_s: float
    limited: bool


class Tickets:
    """Known by everything that decided: where it goes, from where it comes, and all that it carries as credentials."""

    def __init__(self, door: Door, previews: Previews) -> None:
        self._door = door
        self._previews = previews
        self._kept: dict[Key, Ticket] = {}

    def put(self, scope: Scope, place: Place, asking: Asking, opened: Opened, asked: Asked) -> None:
        mark = place.prefix.encode("latin-1")
        if not (_is_safe(scope, asking) if opened.by_cookie else _is_carried(opened, asking)):
            return
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[_key(scope, mark, asking)] = Ticket(
            opened,
            asked,
            asked.forwarded,
            self._previews.generation(opened.preview.id),
            asyncio.get_running_loop().time() + GOOD_S,
            self._door.limits_rate_of(scope, opened.principal),
        )

    def get(self, scope: Scope, mark: bytes, asking: Asking) -> Ticket | None:
        key = _key(scope, mark, asking)
        found = self._kept.get(key)
        if found is None:
            return None
        generation = self._previews.generation(found.opened.preview.id)
        if found.until_s < asyncio.get_running_loop().time() or found.generation != generation:
            del self._kept[key]
            return None
        if found.opened.by_cookie and not _is_safe(scope, asking):
            return None
        return found


class QuickWay:
    """In front of everything: a request with a ticket goes to its port without a look at anything else, and is counted
    and not logged. `app` has the same door of previews in it, behind what every request goes through."""

    def __init__(self, app: ASGIApp, previews: PreviewDoor, door: Door, metrics: Metrics, domain: str) -> None:
        self._app = app
        self._previews = previews
        self._door = door
        self._metrics = metrics
        self._domain = b"." + domain.encode() if domain else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw: bytes = scope.get("raw_path") or b""
            by_path = raw.startswith(_TOP)
            if (by_path or self._domain) and not carries(scope["query_string"]):
                asking = read_head(scope["headers"])
                end = 0
                if not (self._domain and self._domain in asking.host):
                    end = raw.find(b"/", raw.find(b"/", len(_TOP)) + 1) if by_path else -1
                ticket = self._previews.tickets.get(scope, raw[:end], asking) if end >= 0 else None
                if ticket is not None:
                    await self._carry(scope, receive, send, raw[end:], ticket, asking)
                    return
        await self._app(scope, receive, send)

    async def _carry(
        self, scope: Scope, receive: Receive, send: Send, path: bytes, ticket: Ticket, asking: Asking
    ) -> None:
        started = perf_counter()
        opened, asked = ticket.opened, ticket.asked
        scope["trace"] = _UNTRACED
        if ticket.limited:
            scope["trace"] = Trace("")
            try:
                await self._door.again(scope, opened.principal, CLASSES)
            except RateLimited as error:
                await self._previews.told(error)(scope, receive, send)
                self._metrics.request(scope["method"], route_of(asked.prefix), 429, perf_counter() - started)
                return
        path = with_query(path, scope["query_string"])
        status = await self._previews.request(scope, receive, send, path, opened, asked, asking, ticket.forwarded)
        self._metrics.request(scope["method"], route_of(asked.prefix), status, perf_counter() - started)


_UNTRACED = Trace("")


def _key(scope: Scope, mark: bytes, asking: Asking) -> Key:
    client = scope.get("client")
    cookie = asking.cookie if _COOKIE in asking.cookie else b""
    return (mark, asking.host, client and client[0], asking.credentials, cookie, asking.hops)


def _is_carried(opened: Opened, asking: Asking) -> bool:
    """Whether what opened it stands in a header that the key has: what stood in the address does not."""
    text = opened.text.encode("latin-1", "replace")
    return not text or any(text in value for _, value in asking.credentials)


def _is_safe(scope: Scope, asking: Asking) -> bool:
    return scope["method"] in SAFE and not asking.origin
