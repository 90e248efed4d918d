"""The ASGI application of the object-store door: who signed a request, and what it is about; handlers do the rest.

app.py makes it, and serves it at a port of its own. Every request is signed: there is no public one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, unquote_to_bytes

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from atoll.domain.errors import AtollError, Internal, InvalidInput, Unauthenticated
from atoll.domain.principal import Principal
from atoll.services.objects.access_keys import AccessKeys
from atoll.surfaces.credentials import FOUND
from atoll.surfaces.door import Door, NoCredential
from atoll.surfaces.objects.errors import BadSignature, NoBucket, Skewed, XmlDialect
from atoll.surfaces.objects.signatures import claim
from atoll.telemetry.trace import trace_of

_log = structlog.get_logger("atoll.surface")
SERVICE, BUCKET, OBJECT = "/", "/{bucket}", "/{bucket}/{key}"
PATH_BYTES_MAX, QUERY_BYTES_MAX, PARAMETERS_MAX = 16_384, 16_384, 64


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is about: a key of the bucket, the bucket itself (""), or the service (None)."""

    key: str | None
    query: dict[str, str]

    @property
    def route(self) -> str:
        return SERVICE if self.key is None else OBJECT if self.key else BUCKET


Handler = Callable[[Request, Principal, Asked], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Served:
    """One method of one of the three kinds of resource."""

    id: str  # the operation's, for the audit trail
    handler: Handler
    changes: bool = False


class ObjectDoor:
    """`table` has what is served, by route and method."""

    def __init__(
        self,
        door: Door,
        keys: AccessKeys,
        table: dict[tuple[str, str], Served],
        *,
        bucket: str,
        skew_s: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.table = table
        self.dialect = XmlDialect()
        self._door = door
        self._keys = keys
        self._bucket = bucket
        self._skew_s = skew_s
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(self.dialect.upgrade_required())
            return
        trace = trace_of(scope)
        served: Served | None = None
        with self._door.watch(scope):
            try:
                response, served = await self._respond(scope, receive, send)
                if scope["method"] == "HEAD":
                    response = _headers_only(response)
                await response(scope, receive, send)
            except ClientDisconnect:
                trace.status = trace.status or 499  # nobody reads an answer
            finally:
                if served is not None and served.changes:
                    self._door.note_outcome(scope, served.id, trace.status)
                if trace.key_id is not None:
                    self._door.note_use(scope, trace.key_id, trace.status)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> tuple[Response, Served | None]:
        served: Served | None = None
        scope["path_params"] = {}
        try:
            asked = self._asked(scope)
            if isinstance(asked, Asked):
                trace_of(scope).route = asked.route
                scope["path_params"] = {"key": asked.key} if asked.key else {}
                served = self.table.get((asked.route, scope["method"]))
            principal = await self._admit(scope)
            if isinstance(asked, AtollError):
                raise asked
            if served is None:
                allowed = sorted(method for route, method in self.table if route == asked.route)
                return self.dialect.method_not_allowed(allowed), None
            return await served.handler(Request(scope, receive, send), principal, asked), served
        except AtollError as error:
            if isinstance(error, Internal):
                _log.error("fault", exc_info=error)
            return self.dialect.error(error), served
        except ClientDisconnect:
            raise
        except Exception as error:
            _log.error("fault", exc_info=error)
            return self.dialect.error(Internal()), served

    async def _admit(self, scope: Scope) -> Principal:
        """Who signed it. A signature that does not hold counts as one more try of whoever sent it."""
        wrong: AtollError | None = None
        credential: str | None = None
        try:
            credential = await self._signer(scope)
        except (Unauthenticated, InvalidInput) as error:
            wrong = error
        scope[FOUND] = credential
        try:
            return await self._door.admit(scope, (self.dialect.surface,))
        except NoCredential:
            raise wrong or NoCredential("requests are signed with an access key: `atoll keys hmac create`") from None

    async def _signer(self, scope: Scope) -> str | None:
        """What stands for the access key that signed it; None when nobody did."""
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        found = claim(scope["method"], self._signed_path(scope, raw), scope["query_string"], scope["headers"])
        if found is None:
            return None
        secret = await self._keys.secret(found.access_id)
        holds = found.holds(secret or self._keys.credential(""))  # as much work for an unknown one
        if secret is None or not holds:
            raise BadSignature
        if found.at is None or abs((self._now() - found.at).total_seconds()) > self._skew_s:
            raise Skewed
        return self._keys.credential(found.access_id)

    def _signed_path(self, scope: Scope, raw: bytes) -> bytes:
        """With the bucket, which may stand in the host's name instead."""
        return f"/{self._bucket}".encode() + raw if self._in_host(scope) else raw

    def _in_host(self, scope: Scope) -> bool:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        return host.startswith(f"{self._bucket}.".encode())

    def _asked(self, scope: Scope) -> Asked | AtollError:
        """What it is about; or what is wrong with it, for nobody but who signed it: what is no text, NoBucket."""
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        query: bytes = scope["query_string"]
        if len(raw) > PATH_BYTES_MAX or len(query) > QUERY_BYTES_MAX:
            return InvalidInput("the address is too long", field="key")
        try:
            path = unquote_to_bytes(self._signed_path(scope, raw)).decode()
            pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
        except ValueError:
            return InvalidInput("the address must be percent-encoded UTF-8", field="key")
        bucket, _, key = path.removeprefix("/").partition("/")
        if not bucket:
            return Asked(None, dict(pairs))
        if bucket != self._bucket:
            return NoBucket(f"the only bucket is {self._bucket}")
        return Asked(key, dict(pairs))


def _headers_only(response: Response) -> Response:
    """An answer to HEAD: the headers as they are, and no body."""
    bare = Response(status_code=response.status_code)
    bare.raw_headers = response.raw_headers
    return bare
