"""Proxy: one HTTP request goes to a port of a sandbox, and its answer comes back, streamed both ways, nothing buffered.

The door of previews has let it in. Until a byte of an answer has come, what fails may be tried again elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from atoll.gateway.previews.failures import Broken, Gone, Refused, Silent, UpstreamFailed
from atoll.gateway.previews.heads import Asked, Asking, answer_headers, request_head
from atoll.gateway.previews.limits import CarryLimits
from atoll.gateway.previews.pool import Pool, Port
from atoll.gateway.previews.upstream import Headers, Upstream

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

# In a request's extensions, where the server has them:
GONE = "atoll.gone"  # takes what is to be called when its connection is lost
ANSWER = "atoll.answer"  # answers it in one step, given status, headers and body; whether it could


SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1
REPEATABLE = SAFE | {"PUT", "DELETE"}  # idempotent: 9.2.2


class BodyTooLarge(Exception):
    """The request's body is larger than may be sent on."""


class Request:
    """A request on its way. Nothing of its body is kept: it can be sent once more until some of that was taken."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        path: bytes,
        asked: Asked,
        asking: Asking,
        limits: CarryLimits,
        forwarded: bytes | None = None,
    ) -> None:
        """`path` with the query; `forwarded` as `asked` has it, where that is known already. BodyTooLarge."""
        self.scope = scope
        self.receive = receive
        self.path = path
        self.asked = asked
        self.asking = asking
        self.forwarded = asked.forwarded if forwarded is None else forwarded
        self.method: str = scope["method"]
        self._limits = limits
        if asking.length is not None and int(asking.length) > limits.body_bytes:
            raise BodyTooLarge
        self.more = asking.chunked or asking.length not in (None, b"0")  # whether some of the body is still to come
        self.taken = False  # whether some of it was
        self.size = 0
        self.begun = False  # whether some of an answer was sent on

    def may_go_elsewhere(self, failure: UpstreamFailed) -> bool:
        """Whether it has no effect where it failed, and can be sent as it came: nothing was sent, or all of its body is
        still to come, without which it is none, or it is safe."""
        return not self.taken and (isinstance(failure, Refused) or self.more or self.method in SAFE)

    async def next(self) -> bytes:
        """More of the body, in the end empty bytes with `more` False. Gone, BodyTooLarge, Silent."""
        try:
            async with asyncio.timeout(self._limits.idle_s):
                message = await self.receive()
        except TimeoutError:
            raise Silent("the request's body did not come in time") from None
        if message["type"] == "http.disconnect":
            raise Gone
        self.taken = True
        data: bytes = message.get("body", b"")
        self.more = message.get("more_body", False)
        self.size += len(data)
        if self.size > self._limits.body_bytes:
            raise BodyTooLarge
        return data

    def framed(self, data: bytes) -> bytes:
        if not self.asking.chunked:
            return data
        last = b"" if self.more else b"0\r\n\r\n"
        return b"%x\r\n%b\r\n%b" % (len(data), data, last) if data else last

    def head(self) -> bytes:
        """What is sent first."""
        return request_head(self.method, self.path, self.asked, self.asking, self.forwarded)


class Cut(Exception):
    """An answer broke off when some of it was sent on already."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__()


class Proxy:
    """One for all previews."""

    def __init__(self, pool: Pool, limits: CarryLimits) -> None:
        self.pool = pool
        self.limits = limits

    async def carry(self, request: Request, port: Port, send: Send, extra: Headers) -> int:
        """Send it to that port and its answer back, with more headers; the status.

        UpstreamFailed while nothing of an answer was sent on: `request` may then be carried once more, where it
        `may_go_elsewhere`. Cut when the answer broke off later, or is not taken. Gone when the client went away.
        BodyTooLarge, Silent.
        """
        owner = request.asked.owner
        kept = self.pool.of(port, owner)
        # A kept connection may be closed as the request comes: what cannot be sent twice gets one of its own.
        again = request.method in REPEATABLE and not request.more
        upstream = (kept.take() if again else None) or await self.pool.connect(port, owner)
        try:
            return await self._exchange(request, upstream, send, extra)
        except Broken:
            # It was closed as the request came: that says nothing about the port.
            stale = upstream.used_before and not upstream.begun and not upstream.gone
            if not stale:
                raise
        finally:
            self.pool.give(kept, upstream)
        upstream = await self.pool.connect(port, owner)
        try:
            return await self._exchange(request, upstream, send, extra)
        finally:
            self.pool.give(self.pool.of(port, owner), upstream)

    async def _exchange(self, request: Request, upstream: Upstream, send: Send, extra: Headers) -> int:
        extensions: dict[str, Any] = request.scope.get("extensions") or {}
        watch = extensions.get(GONE)
        upstream.begin(request.method)
        if watch is None or request.more:
            return await self._watched(request, upstream, send, extra)
        watch(upstream.lost)
        try:
            upstream.wire.write(request.head())
            head = await upstream.head()
            body = upstream.whole()
            if body is not None and ANSWER in extensions:
                headers = answer_headers(head.status, head.headers, request.asked.prefix, extra)
                if upstream.measured and extensions[ANSWER](head.status, headers, body):
                    return head.status
            return await self._answer(request, upstream, send, extra, body)
        except UpstreamFailed:
            if upstream.gone:
                raise Gone from None
            raise
        except BaseException:
            upstream.close()
            raise
        finally:
            watch(None)

    async def _watched(self, request: Request, upstream: Upstream, send: Send, extra: Headers) -> int:
        """The same beside a task that sends the body on, or only notices that the client leaves."""
        upstream.wire.write(request.head())
        beside = asyncio.create_task(_pump(request, upstream))
        try:
            await upstream.head()
            return await self._answer(request, upstream, send, extra, upstream.whole())
        except UpstreamFailed:
            if beside.done() and not beside.cancelled() and (why := beside.exception()) is not None:
                raise why from None
            raise
        except BaseException:
            upstream.close()
            raise
        finally:
            if request.more:
                upstream.close()  # the answer came before the end of the request
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)

    async def _answer(
        self, request: Request, upstream: Upstream, send: Send, extra: Headers, body: bytes | None
    ) -> int:
        """`body` None: it is still coming."""
        head = await upstream.head()
        headers = answer_headers(head.status, head.headers, request.asked.prefix, extra)
        request.begun = True
        try:
            await self._sent(send, {"type": "http.response.start", "status": head.status, "headers": headers})
            while body is None:
                piece = await upstream.piece()
                if piece is None:
                    body = b""
                else:
                    await self._sent(send, {"type": "http.response.body", "body": piece, "more_body": True})
            await self._sent(send, {"type": "http.response.body", "body": body, "more_body": False})
        except (UpstreamFailed, TimeoutError) as failure:
            raise Cut(head.status) from failure
        return head.status

    async def _sent(self, send: Send, message: dict[str, Any]) -> None:
        """Who does not read holds a connection to the port only for so long. TimeoutError."""
        async with asyncio.timeout(self.limits.idle_s):
            await send(message)


async def _pump(request: Request, upstream: Upstream) -> None:
    """The rest of the body; then wait until the client has left."""
    try:
        while request.more:
            upstream.listening = True
            data = await request.next()
            upstream.heard()
            upstream.wire.write(request.framed(data))
            await upstream.wire.drain()
        while (await request.receive())["type"] != "http.disconnect":
            pass
        raise Gone
    except (Gone, BodyTooLarge, Silent):
        upstream.close()
        raise
