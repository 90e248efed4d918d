"""The door of previews: lets requests for ports of sandboxes in, and hands them to the gateway's proxy.

app.py puts it before the routes: what a tenant's program serves needs no router, and no API path is ever served at a
host of previews.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from atoll.domain.errors import AtollError, DeadlineExceeded, Internal, NotFound, RateLimited, TooLarge, Unavailable
from atoll.gateway.previews.failures import Crowded, Gone, Refused, Silent, UpstreamFailed
from atoll.gateway.previews.heads import Asked, Asking, answer_headers, read_head
from atoll.gateway.previews.health import Health
from atoll.gateway.previews.pool import Port
from atoll.gateway.previews.proxy import BodyTooLarge, Cut, Proxy, Request
from atoll.gateway.previews.upstream import Headers
from atoll.gateway.previews.websockets import Channel, Denied, relay
from atoll.services.previews.fallbacks import Fallbacks
from atoll.services.previews.previews import Previews
from atoll.surfaces.door import Door, network_of
from atoll.surfaces.extensions import END
from atoll.surfaces.previews.opening import COOKIE, Opened, Opening
from atoll.surfaces.previews.places import Place, address_of, by_host, by_path, route_of, with_query
from atoll.surfaces.previews.tickets import Tickets
from atoll.surfaces.statuses import envelope
from atoll.surfaces.terminal_platform.errors import TerminalDialect
from atoll.surfaces.ways import SUBPROTOCOL
from atoll.telemetry.trace import trace_of

T = TypeVar("T")
_log = structlog.get_logger("atoll.surface")
HANG_UP_S = 0.5
LOOK_S = 2.0
CLOSE_POLICY, CLOSE_INTERNAL = 1008, 1011
CLIENT_GONE, STOPPING = 499, 503  # statuses that nobody is told: nginx's word, and what a cut answer would have been
SANDBOXED = b"sandbox allow-downloads allow-forms allow-modals allow-popups allow-scripts"


class PreviewDoor:
    """`app` serves everything else. `sandboxed`: pages that are previewed by path get no part in the API's origin."""

    def __init__(
        self,
        app: ASGIApp,
        door: Door,
        opening: Opening,
        previews: Previews,
        proxy: Proxy,
        fallbacks: Fallbacks,
        health: Health,
        *,
        sandboxed: bool,
    ) -> None:
        self._app = app
        self._door = door
        self.tickets = Tickets(door, previews)
        self._opening = opening
        self._previews = previews
        self._proxy = proxy
        self._fallbacks = fallbacks
        self._health = health
        self._domain = previews.limits.domain
        self._dialect = TerminalDialect()
        self._page: Headers = [(b"content-security-policy", SANDBOXED)] if sandboxed else []
        self._under_way: dict[int, tuple[Scope, Opened, float]] = {}
        self._number = 0
        self._sockets: Counter[str] = Counter()  # of those without a credential, by address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            if self._domain and (place := by_host(scope, self._domain)) is not None:
                await self._by_host(scope, receive, send, place)
                return
            if scope["path"].startswith("/preview/") and (place := by_path(scope)) is not None:
                await self.serve(scope, receive, send, place)
                return
        await self._app(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send, place: Place) -> None:
        """One request for a port."""
        trace = trace_of(scope)
        trace.route = route_of(place.prefix)
        trace.sandbox_id = place.sandbox
        try:
            if scope["type"] == "websocket":
                await receive()  # websocket.connect
            opened = await self._opening.open(scope, place)
            await self._let_in(scope, receive, send, place, opened)
        except AtollError as error:
            await self._refuse(scope, receive, send, self.told(error))
        finally:
            if trace.key_id is not None:
                self._door.note_use(scope, trace.key_id, trace.status)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send, place: Place, opened: Opened) -> None:
        if scope["type"] != "websocket" and _is_elsewhere(scope, place, opened):
            await _redirect(scope, place, opened)(scope, receive, send)
            return
        asking = read_head(scope["headers"])
        asked = Asked(
            port=opened.preview.port,
            prefix=place.prefix,
            host=asking.host,
            scheme=_scheme(scope, self._door),
            peer=trace_of(scope).peer or "unknown",
            owner=opened.preview.owner,
            stripped=opened.stripped,
        )
        path = with_query(place.path or b"/", scope["query_string"])
        if scope["type"] == "websocket":
            with self._noted(scope, opened), self._place(scope, opened, asked.peer):
                await self._socket(scope, receive, send, path, opened, asked, asking)
            return
        if opened.cookie_s is None:
            self.tickets.put(scope, place, asking, opened, asked)
        await self.request(scope, receive, send, path, opened, asked, asking)

    async def request(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: bytes,
        opened: Opened,
        asked: Asked,
        asking: Asking,
        forwarded: bytes | None = None,
    ) -> int:
        """Whoever asks was let in; the status."""
        extra = self._page if asked.prefix else []
        request: Request | None = None
        try:
            with self._noted(scope, opened):
                request = Request(scope, receive, path, asked, asking, self._proxy.limits, forwarded)
                carry = partial(self._proxy.carry, request, send=send, extra=extra)
                return await self._or_elsewhere(opened, carry, request.may_go_elsewhere)
        except Gone:
            return CLIENT_GONE
        except Cut as cut:
            await hang_up(scope, receive)
            return cut.status
        except UpstreamFailed as failure:
            answer = _failed(failure)
        except BodyTooLarge:
            answer = self.told(TooLarge(f"the body is larger than {self._proxy.limits.body_bytes} bytes"))
        except Silent as silent:
            answer = self.told(DeadlineExceeded(str(silent)))
        except asyncio.CancelledError:
            if request is not None and request.begun:
                await hang_up(scope, receive)
                return STOPPING
            answer = self.told(Unavailable("the server is stopping"))
        await self._refuse(scope, receive, send, answer)
        return answer.status_code

    async def look(self) -> None:
        """End what goes on though it would not be let in any more; on the pool's timer."""
        before = asyncio.get_running_loop().time() - LOOK_S
        for scope, opened, since in list(self._under_way.values()):
            self._health.use(opened.preview)
            try:
                ends = since < before and not await self._opening.still(opened)
            except AtollError:
                continue  # nobody can say now: the next look will
            if ends:
                scope["extensions"][END](CLOSE_POLICY, "the preview is not open any more")

    @contextmanager
    def _noted(self, scope: Scope, opened: Opened) -> Generator[None]:
        """Among what goes on, until it is over."""
        self._number = number = self._number + 1
        self._health.use(opened.preview)
        self._under_way[number] = (scope, opened, asyncio.get_running_loop().time())
        try:
            yield
        finally:
            del self._under_way[number]

    @contextmanager
    def _place(self, scope: Scope, opened: Opened, peer: str) -> Generator[None]:
        """Holds a WebSocket's place: one of the principal's, or one of the address, which loopback does not need."""
        if opened.principal is not None:
            with self._door.socket(opened.principal):
                yield
            return
        address = network_of(peer) if self._door.limits_rate_of(scope, None) else ""
        limit = self._proxy.limits.sockets_per_address
        if address and self._sockets[address] >= limit:
            raise RateLimited(f"this address has {limit} streams open already ({limit}/{limit})", retry_after_s=5)
        self._sockets[address] += 1
        try:
            yield
        finally:
            self._sockets[address] -= 1
            if not self._sockets[address]:
                del self._sockets[address]

    def told(self, error: AtollError) -> Response:
        if isinstance(error, Internal):
            _log.error("fault", exc_info=error)
        return self._dialect.error(error)

    async def _socket(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: bytes,
        opened: Opened,
        asked: Asked,
        asking: Asking,
    ) -> None:
        channel = partial(self._channel, scope, receive, send, path, asked, asking)
        try:
            await self._or_elsewhere(opened, channel, lambda _: True)
        except UpstreamFailed as failure:
            await self._refuse(scope, receive, send, _failed(failure))

    async def _or_elsewhere(
        self, opened: Opened, go: Callable[[Port], Awaitable[T]], may: Callable[[UpstreamFailed], bool]
    ) -> T:
        """Go to the preview's port; where that fails and `may` allows it, once more to its fallback's."""
        preview = opened.preview
        try:
            return await go((preview.target, preview.port))
        except UpstreamFailed as failure:
            if isinstance(failure, Crowded):
                raise
            ended = isinstance(failure, Refused) and failure.ended
            reached = not isinstance(failure, Refused)
            other = await self._fallbacks.after(
                preview, failed=preview.target, ended=ended, reached=reached, asker=opened.principal
            )
            if other is None or not may(failure):
                raise
            return await go((other, preview.port))

    async def _channel(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: bytes,
        asked: Asked,
        asking: Asking,
        port: Port,
    ) -> None:
        pool, owner = self._proxy.pool, asked.owner
        offered = [one for one in scope.get("subprotocols") or () if not one.startswith(SUBPROTOCOL)]  # a credential
        channel = Channel(await pool.socket(port, owner), self._proxy.limits)
        try:
            try:
                chosen = await channel.open(path, asked, asking, offered)
            except Denied as denied:
                await WebSocket(scope, receive, send).send_denial_response(_denial(denied, asked))
                return
            await send({"type": "websocket.accept", "subprotocol": chosen, "headers": []})
            await relay(channel, receive, send)
        except Gone:
            scope["extensions"][END](CLOSE_POLICY, "messages are not read")
        finally:
            channel.cut()
            pool.let_go(port, owner)

    async def _by_host(self, scope: Scope, receive: Receive, send: Send, place: Place | str) -> None:
        if isinstance(place, str):
            await self._refuse(scope, receive, send, self._dialect.error(NotFound("no such preview")))
        elif place.port is None:
            inside = f"/sb/{place.sandbox}"
            raw = inside.encode() + place.path
            await self._app({**scope, "path": inside + scope["path"], "raw_path": raw}, receive, send)
        else:
            await self.serve(scope, receive, send, place)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, response: Response) -> None:
        if scope["type"] == "websocket":
            with suppress(RuntimeError):  # accepted already
                await WebSocket(scope, receive, send).send_denial_response(response)
                return
            await send({"type": "websocket.close", "code": CLOSE_INTERNAL, "reason": ""})
            return
        await response(scope, receive, send)


def _failed(failure: UpstreamFailed) -> Response:
    return envelope(failure.status, {"detail": f"Preview target failed: {failure}"}, {})


def _denial(denied: Denied, asked: Asked) -> Response:
    """What the program says instead of an upgrade."""
    response = Response(denied.body, denied.status)
    theirs = answer_headers(denied.status, denied.headers, asked.prefix, [])
    response.raw_headers = [one for one in theirs if one[0] != b"content-length"]
    response.raw_headers.append((b"content-length", b"%d" % len(denied.body)))
    return response


def _is_elsewhere(scope: Scope, place: Place, opened: Opened) -> bool:
    """Whether the client is to ask again: with the slash, or without the token in the address."""
    if place.prefix and not place.path:
        return True
    return opened.cookie_s is not None and scope["method"] in ("GET", "HEAD")


def _redirect(scope: Scope, place: Place, opened: Opened) -> Response:
    """To the same address without the token in it, which is a cookie from then on, and with the slash."""
    location = address_of(place, scope["query_string"])
    response = Response(b"", 307, {"location": location, "cache-control": "no-store"})
    if opened.cookie_s is not None:
        response.set_cookie(
            COOKIE,
            opened.text,
            max_age=max(1, int(opened.cookie_s)),
            path=place.prefix + "/",
            secure=scope["scheme"] in ("https", "wss"),
            httponly=True,
            samesite="lax",
        )
    return response


def _scheme(scope: Scope, door: Door) -> str:
    """As the client knows it, where a trusted proxy says so."""
    client = scope.get("client")
    if client and door.peer(scope) != client[0]:
        for name, value in scope["headers"]:
            if name == b"x-forwarded-proto" and value in (b"http", b"https"):
                return value.decode()
    return "https" if scope["scheme"] in ("https", "wss") else "http"


async def hang_up(scope: Scope, receive: Receive) -> None:
    """Nobody is to take half of an answer for all of it."""
    end = scope.get("extensions", {}).get(END)
    if end is None:
        return
    end(CLOSE_INTERNAL, "the answer broke off")
    with suppress(TimeoutError):
        async with asyncio.timeout(HANG_UP_S):
            while (await receive())["type"] != "http.disconnect":
                pass
