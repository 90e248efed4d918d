"""Requests with an `Idempotency-Key`: the operations that say so answer them once and then repeat the answer.

app.py puts it around the handlers of declared operations. A command goes on when its client goes away, who may come
back for the answer; what is made for a client that goes away is undone, as without a key, and may be asked for again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive

from atoll.domain.errors import (
    AtollError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    Internal,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from atoll.domain.idempotency import IdempotentRequest
from atoll.domain.ledger import InsufficientCredit
from atoll.domain.principal import Principal
from atoll.services.background import Background
from atoll.services.idempotency import Idempotency
from atoll.services.processes import Interrupted
from atoll.surfaces.bodies import read_body
from atoll.surfaces.operation import Follower, Handler, Once, Operation

HEADER = "idempotency-key"
REPLAYED = "idempotent-replayed"
CLOSE_S = 2.0
# What was refused before it had an effect.
_REFUSED = (
    Conflict, Forbidden, InsufficientCredit, InvalidInput, NotFound, QuotaExceeded, RateLimited, TooLarge,
    Unauthenticated, Unsupported,
)  # fmt: skip
_log = structlog.get_logger("atoll.surface")


class OnceOnly:
    """The mechanism, for all operations of a server."""

    def __init__(self, idempotency: Idempotency, body_bytes: int) -> None:
        self.idempotency = idempotency
        self._body_bytes = body_bytes
        self._background = Background()

    async def close(self) -> None:
        """Cut what is still under way; whether it had its effect is then for its client to find out."""
        await self._background.close(CLOSE_S)

    def around(self, operations: Iterable[Operation]) -> list[Operation]:
        """The operations, with those that say `once` made so, and with what follows from the answer of the others."""
        made = [one if one.once is None else replace(one, handler=self._around(one, one.once)) for one in operations]
        return [one if one.then is None else replace(one, handler=_followed(one, one.then)) for one in made]

    def _around(self, operation: Operation, once: Once) -> Handler:
        handler = cast(Handler, operation.handler)

        async def answer(request: Request, principal: Principal) -> Response:
            texts = request.headers.getlist(HEADER)
            if not texts:
                return await handler(request, principal)
            if len(texts) > 1:
                raise InvalidInput("Idempotency-Key is given more than once", field="Idempotency-Key")
            body = await read_body(request, self._body_bytes)
            begun, kept = await self.idempotency.begin(principal, texts[0], _fingerprint(request, body))
            if kept is not None:
                return _replayed(kept)
            receive = _again(body, request.receive if once is Once.MADE else _for_ever)
            work = self._answer(handler, Request(request.scope, receive), principal, begun, texts[0], once)
            return await self._background.finish(work, f"once {operation.id}")

        return answer

    async def _answer(
        self,
        handler: Handler,
        request: Request,
        principal: Principal,
        begun: IdempotentRequest,
        text: str,
        once: Once,
    ) -> Response:
        try:
            response = await handler(request, principal)
        except AtollError as error:
            if _without_effect(error, once):
                await self._forget(begun)
            else:
                self.idempotency.leave(begun)
            raise
        except ClientDisconnect:
            await self._forget(begun)  # whoever was making it undoes it
            raise
        except BaseException:
            self.idempotency.leave(begun)
            raise
        try:
            await self.idempotency.finish(begun, text, _kept(response))
        except AtollError as error:  # it had its effect, which its client is to hear of
            _log.warning("idempotency.answer_lost", error=error.message)
        return response

    async def _forget(self, begun: IdempotentRequest) -> None:
        try:
            await self.idempotency.forget(begun)
        except AtollError as error:  # why it was refused is what its client is to hear
            _log.warning("idempotency.not_forgotten", error=error.message)


def _followed(operation: Operation, then: Follower) -> Handler:
    """What is kept is the handler's answer; what is sent is what follows from it each time."""
    handler = cast(Handler, operation.handler)

    async def answer(request: Request, principal: Principal) -> Response:
        return await then(request, principal, await handler(request, principal))

    return answer


def _without_effect(error: AtollError, once: Once) -> bool:
    if isinstance(error, Interrupted):
        return False  # it ran, nobody knows how far
    undone = once is Once.MADE and isinstance(error, Unavailable | DeadlineExceeded)
    return undone or (isinstance(error, _REFUSED) and not isinstance(error, Internal))


def _fingerprint(request: Request, body: bytes) -> str:
    """Of what was asked: the method, the path and query as they came, and the body."""
    digest = hashlib.sha256()
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    for part in (request.method.encode(), raw, request.scope["query_string"], body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _again(body: bytes, then: Receive) -> Receive:
    """A client that sends this body, and what `then` says."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await then()

    return receive


async def _for_ever() -> Message:
    """A client that never goes away."""
    return await asyncio.get_running_loop().create_future()


def _kept(response: Response) -> bytes:
    """The status, the headers and the body."""
    head = json.dumps(
        [response.status_code, [(n.decode("latin-1"), v.decode("latin-1")) for n, v in response.raw_headers]]
    )
    return head.encode() + b"\n" + bytes(response.body)


def _replayed(kept: bytes) -> Response:
    head, _, body = kept.partition(b"\n")
    status, headers = json.loads(head)
    response = Response(body, status)
    response.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    response.headers[REPLAYED] = "true"
    return response
