"""One server under one key: JSON requests, streamed bodies and WebSockets; sandboxes, files and processes use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from httpcore2 import URL

from atoll import __version__
from atoll.sdk._async.http import AsyncBody, AsyncRequest, AsyncUpload, send
from atoll.sdk._async_io import async_sleep
from atoll.sdk.config import Config, resolve
from atoll.sdk.errors import error_of

if TYPE_CHECKING:
    from atoll.sdk.streams import AsyncWebSocket

WAITS_MAX, WAIT_S_MAX = 60, 5  # for an answer that is under way
CALL_TIMEOUT_S = 60.0  # of silence, for calls that the server answers at once
BYTES_TYPE = "application/octet-stream"
_ERROR_BYTES_MAX = 1 << 20
_encode = json.JSONEncoder(separators=(",", ":")).encode


class AsyncApi:
    """Requests with the key in them. Errors: the server's (`error_of`), ConnectionFailed and DeadlineExceeded."""

    def __init__(self, config: Config) -> None:
        self.config = config
        host = f"[{config.host}]" if ":" in config.host else config.host
        standard = 443 if config.tls else 80
        self.authority = host if config.port == standard else f"{host}:{config.port}"
        self._scheme = b"https" if config.tls else b"http"
        self._host = config.host.encode("ascii")
        self._headers = [
            (b"Host", self.authority.encode()),
            (b"Authorization", f"Bearer {config.api_key}".encode()),
            (b"User-Agent", f"atoll/{__version__}".encode()),
        ]

    async def call(
        self,
        method: str,
        target: str,
        value: object = None,
        *,
        timeout_s: float | None = CALL_TIMEOUT_S,
        once: bool | str = False,
    ) -> Any:
        """The JSON of the answer to `value` as JSON (None: no body); None for an answer without a body. With `once` the
        request has one effect: it is sent again by itself when its connection breaks. A string is the key that says
        which request it is."""
        body = b"" if value is None else _encode(value).encode()
        kind = b"application/json" if body else None
        request = self._request(method, target, body, kind, timeout_s)
        if not once:
            return await self._value_of(request)
        key = once if isinstance(once, str) else token_hex(16)
        request = replace(request, once=True, headers=[*request.headers, (b"Idempotency-Key", key.encode())])
        return await self._value_of(request, waits=WAITS_MAX)

    async def upload(
        self, target: str, body: bytes | AsyncUpload, *, timeout_s: float | None, kind: str = BYTES_TYPE
    ) -> Any:
        """POST bytes of that content type; the JSON of the answer."""
        return await self._value_of(self._request("POST", target, body, kind.encode(), timeout_s))

    async def stream(
        self,
        target: str,
        *,
        timeout_s: float | None,
        post: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncBody:
        """GET, or POST of those bytes, whose answer is read as it comes; `timeout_s` bounds each wait for more."""
        if post is None:
            request = self._request("GET", target, b"", None, timeout_s)
        else:
            request = self._request("POST", target, post, BYTES_TYPE.encode(), timeout_s)
        request.headers.extend((name.encode(), value.encode()) for name, value in (headers or {}).items())
        body = await send(request)
        if body.status >= 300:
            raise error_of(body.status, await body.read(_ERROR_BYTES_MAX), body.headers.get("retry-after"))
        return body

    async def websocket(self, target: str) -> AsyncWebSocket:
        """Upgrade; the server's error when it answers anything but 101."""
        from atoll.sdk.streams import AsyncWebSocket  # a third of the SDK's import time, not always needed

        return await AsyncWebSocket.open(self.config, self.authority, target)

    def _request(
        self, method: str, target: str, body: bytes | AsyncUpload, kind: bytes | None, timeout_s: float | None
    ) -> AsyncRequest:
        headers = self._headers.copy()
        if kind is not None:
            headers.append((b"Content-Type", kind))
        size = len(body) if isinstance(body, bytes) else body.size
        if size is None:
            headers.append((b"Transfer-Encoding", b"chunked"))
        elif size or method == "POST":
            headers.append((b"Content-Length", b"%d" % size))
        path = f"{self.config.prefix}{target}".encode("ascii")
        url = URL(scheme=self._scheme, host=self._host, port=self.config.port, target=path)
        return AsyncRequest(method, url, headers, body, timeout_s)

    @staticmethod
    async def _value_of(request: AsyncRequest, waits: int = 0) -> Any:
        answer = await send(request)
        body = await answer.read()
        while waits and answer.status == 409 and (wait_s := answer.headers.get("retry-after", "")).isdecimal():
            waits -= 1  # the server is at work on what a broken connection brought it
            await async_sleep(min(int(wait_s), WAIT_S_MAX))
            answer = await send(request)
            body = await answer.read()
        if answer.status >= 300:
            raise error_of(answer.status, body, answer.headers.get("retry-after"))
        return json.loads(body) if body else None


@lru_cache(maxsize=64)
def _api_of(config: Config) -> AsyncApi:
    return AsyncApi(config)


def connect(url: str | None = None, api_key: str | None = None) -> AsyncApi:
    """The server that arguments, environment or this machine name."""
    return _api_of(resolve(url, api_key))
