"""Upstream: the HTTP client of the providers. Its addresses and keys are the operator's, so it may call loopback too.

Connections are kept. Every wait has its own end, and no error says what an answer was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpcore2

from atoll.services.models.limits import ModelLimits
from atoll.services.models.providers import Provider
from atoll.services.models.refusals import Because, CallRefused, ModelHangs

KEPT_S = 60.0
SPARE_CONNECTIONS = 16  # that are being closed while others are opened
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """`headers` by their names in small letters. `pieces` raises ModelHangs and CallRefused."""

    status: int
    headers: dict[str, str]
    pieces: AsyncGenerator[bytes]


class Upstream:
    """One for all calls of a server."""

    def __init__(self, limits: ModelLimits) -> None:
        self._limits = limits
        self._pools: dict[str, httpcore2.AsyncConnectionPool] = {}

    async def close(self) -> None:
        """A second call does nothing."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.aclose()

    @asynccontextmanager
    async def ask(
        self, provider: Provider, method: str, url: str, headers: Headers, body: bytes
    ) -> AsyncGenerator[UpstreamAnswer]:
        """The answer once its head is there. Left early, the call is cut off, and so the provider stops."""
        limits = self._limits
        parts = urlsplit(url)
        pool = await self._opened(parts.scheme)
        request = httpcore2.Request(
            method,
            url,
            headers=[
                ("Host", parts.netloc),
                ("User-Agent", "Atoll"),
                ("Accept-Encoding", "identity"),
                *headers,
                *provider.credential(),
                *([("Content-Length", str(len(body)))] if body else []),
            ],
            content=body or None,
            extensions={"timeout": {"connect": limits.connect_s, "pool": limits.connect_s, "write": limits.between_s}},
        )
        try:
            async with asyncio.timeout(limits.first_byte_s):
                response = await pool.handle_async_request(request)
        except TimeoutError:
            raise ModelHangs(f"the model did not begin to answer within {limits.first_byte_s:g} s") from None
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            raise _failed(error) from None
        try:
            named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            yield UpstreamAnswer(response.status, named, self._pieces(response))
        finally:
            await response.aclose()

    async def _pieces(self, response: httpcore2.Response) -> AsyncGenerator[bytes]:
        left = self._limits.answer_bytes
        pieces = response.aiter_stream().__aiter__()
        while True:
            try:
                async with asyncio.timeout(self._limits.between_s):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise ModelHangs(f"the model said nothing more for {self._limits.between_s:g} s") from None
            except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
                raise _failed(error) from None
            left -= len(piece)
            if left < 0:
                raise CallRefused(Because.PROVIDER, f"the model said more than {self._limits.answer_bytes} bytes")
            yield piece

    async def _opened(self, scheme: str) -> httpcore2.AsyncConnectionPool:
        """One for those with TLS and one for those without, who need no authorities: reading these takes a while."""
        if scheme not in self._pools:
            context = await asyncio.to_thread(httpcore2.default_ssl_context) if scheme == "https" else None
            made = httpcore2.AsyncConnectionPool(
                ssl_context=context,
                max_connections=self._limits.calls_max + SPARE_CONNECTIONS,
                max_keepalive_connections=self._limits.calls_max,
                keepalive_expiry=KEPT_S,
            )
            self._pools.setdefault(scheme, made)
        return self._pools[scheme]


def _failed(error: BaseException) -> CallRefused:
    return CallRefused(
        Because.PROVIDER, f"the model's provider does not answer: {type(error).__name__}", retry_after_s=1
    )
