# Made by scripts/unasync.py from ../_async/api.py: change that file, not this one.
"""One server under one key: JSON requests, streamed bodies and WebSockets; sandboxes, files and processes use it."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from atoll import __version__
from atoll.sdk._sync.http import Body, Pool, Upload, open_body, request, shared_pool
from atoll.sdk.config import Config, resolve
from atoll.sdk.errors import error_of
from atoll.sdk.http1 import Reply

if TYPE_CHECKING:
    from atoll.sdk._sync.websocket import WebSocket

CALL_TIMEOUT_S = 60.0  # of silence, for calls that the server answers at once
_ERROR_BYTES_MAX = 1 << 20
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Api:
    """Requests with the key in them. Errors: the server's (`error_of`), ConnectionFailed and DeadlineExceeded."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._pool: Pool = shared_pool(config.host, config.port, config.tls)
        host = f"[{config.host}]" if ":" in config.host else config.host
        standard = 443 if config.tls else 80
        self.authority = host if config.port == standard else f"{host}:{config.port}"
        self._tail = (
            f" HTTP/1.1\r\nHost: {self.authority}\r\nAuthorization: Bearer {config.api_key}\r\n"
            f"User-Agent: atoll/{__version__}\r\nAccept: */*\r\n"
        ).encode("latin-1")
        self._prefix = config.prefix

    def call(
        self,
        method: str,
        target: str,
        value: object = None,
        *,
        timeout_s: float | None = CALL_TIMEOUT_S,
    ) -> Any:
        """The JSON of the answer to `value` as JSON (None: no body); None for an answer without a body."""
        body = b"" if value is None else _encode(value).encode()
        head = self._head(method, target, len(body), "application/json" if body else None)
        reply = request(self._pool, method, head, body, timeout_s)
        _check(reply)
        return json.loads(reply.body) if reply.body else None

    def upload(self, target: str, body: bytes | Upload, *, timeout_s: float | None) -> Any:
        """POST bytes; the JSON of the answer."""
        size = len(body) if isinstance(body, bytes) else body.size
        head = self._head("POST", target, size, "application/octet-stream")
        reply = request(self._pool, "POST", head, body, timeout_s)
        _check(reply)
        return json.loads(reply.body) if reply.body else None

    def stream(self, target: str, *, timeout_s: float | None) -> Body:
        """GET whose answer is read as it comes; `timeout_s` bounds each wait for more."""
        body = open_body(self._pool, "GET", self._head("GET", target, 0, None), b"", timeout_s)
        if body.status >= 300:
            text = body.read(_ERROR_BYTES_MAX)
            raise error_of(body.status, text, body.headers.get("retry-after"))
        return body

    def websocket(self, target: str) -> WebSocket:
        """Upgrade; the server's error when it answers anything but 101."""
        from atoll.sdk._sync.websocket import WebSocket  # half of the SDK's import time, not always needed

        scheme = "wss" if self.config.tls else "ws"
        return WebSocket.open(self._pool, f"{scheme}://{self.authority}{self._prefix}{target}", self.config.api_key)

    def _head(self, method: str, target: str, size: int | None, content_type: str | None) -> bytes:
        head = f"{method} {self._prefix}{target}".encode("ascii") + self._tail
        if content_type is not None:
            head += b"Content-Type: " + content_type.encode() + b"\r\n"
        if size is None:
            return head + b"Transfer-Encoding: chunked\r\n\r\n"
        return head + b"Content-Length: %d\r\n\r\n" % size if size or method == "POST" else head + b"\r\n"


def _check(reply: Reply) -> None:
    if reply.status >= 300:
        raise error_of(reply.status, reply.body, reply.headers.get("retry-after"))


@lru_cache(maxsize=64)
def _api_of(config: Config) -> Api:
    return Api(config)


def connect(url: str | None = None, api_key: str | None = None) -> Api:
    """The server that arguments, environment or this machine name."""
    return _api_of(resolve(url, api_key))
