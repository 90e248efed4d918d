"""What vaults on the network share: JSON over HTTP with a deadline, a bound on answers and a few retries.

The address is the operator's own setting: it may lead anywhere. No error repeats what was sent or what came back,
except the vault's own words on what is wrong, without what was to be wrapped.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpcore2

from atoll.domain.errors import InvalidInput, Unavailable

ANSWER_BYTES_MAX = 256 * 1024
CONNECTIONS = 16
KEPT_S = 30.0
RETRIES = 2
RETRY_S = 0.2
REASON_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """What the vault answered; `reason` is its word on what is wrong."""

    status: int
    value: dict[str, Any]
    reason: str = ""


class VaultHttp:
    """`url` is the vault's; a path is added to it. Answers of 5xx and 429 are tried again, then they are returned."""

    def __init__(self, url: str, field: str, *, ca_file: Path | None = None, timeout_s: float = 10.0) -> None:
        parts = urlsplit(url)
        loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidInput(f"{field} must be a URL such as https://vault.example.org:8200", field=field)
        if parts.scheme == "http" and not loopback:
            raise InvalidInput(f"{field} must begin with https://, but on loopback", field=field)
        if parts.username is not None:
            raise InvalidInput(f"{field} must not contain a credential", field=field)
        self._url = url.rstrip("/")
        self.place = parts.netloc
        self._tls = parts.scheme == "https"
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._pool: httpcore2.AsyncConnectionPool | None = None

    async def start(self) -> None:
        """InvalidInput when the file of authorities cannot be read."""
        context = await asyncio.to_thread(self._context) if self._tls else None
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context, max_connections=CONNECTIONS, keepalive_expiry=KEPT_S
        )

    async def close(self) -> None:
        """Let go of the connections; a second call does nothing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None) -> Reply:
        """Unavailable when nobody answers in time, or what answers is no vault."""
        content = None if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(self._timeout_s):
                for attempt in range(RETRIES + 1):
                    try:
                        reply = await self._exchange(method, path, headers, content)
                    except (httpcore2.NetworkError, httpcore2.ProtocolError):
                        if attempt == RETRIES:
                            raise
                    else:
                        if attempt == RETRIES or not (reply.status >= 500 or reply.status == 429):
                            return reply
                    await asyncio.sleep(RETRY_S * 2**attempt)
        except TimeoutError:
            raise Unavailable(f"the vault at {self.place} did not answer within {self._timeout_s:g} s") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            raise Unavailable(f"the vault at {self.place} does not answer: {type(error).__name__}") from None
        raise AssertionError("every attempt returns or raises")

    async def _exchange(self, method: str, path: str, headers: Mapping[str, str], content: bytes | None) -> Reply:
        if self._pool is None:
            raise Unavailable("the vault is not started")
        sent = {"Accept": "application/json", "User-Agent": "Atoll", **headers}
        if content is not None:
            sent["Content-Type"] = "application/json"
        async with self._pool.stream(method, self._url + path, headers=list(sent.items()), content=content) as response:
            data = bytearray()
            async for piece in response.aiter_stream():
                data += piece
                if len(data) > ANSWER_BYTES_MAX:
                    raise Unavailable(f"the vault at {self.place} answers with more than {ANSWER_BYTES_MAX} bytes")
            return _reply(response.status, bytes(data))

    def _context(self) -> ssl.SSLContext:
        try:
            if self._ca_file is not None:
                return ssl.create_default_context(cafile=str(self._ca_file))
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"{self._ca_file} has no certificates: {error}", field="ca_file") from None
        return httpcore2.default_ssl_context()


def _reply(status: int, data: bytes) -> Reply:
    try:
        parsed: Any = json.loads(data) if data else {}
    except ValueError:
        parsed = {}
    value = cast(dict[str, Any], parsed) if isinstance(parsed, dict) else {}
    errors = value.get("errors")
    reason: Any = cast(list[Any], errors)[0] if isinstance(errors, list) and errors else value.get("message", "")
    return Reply(status, value, reason[:REASON_CHARS_MAX] if isinstance(reason, str) else "")
