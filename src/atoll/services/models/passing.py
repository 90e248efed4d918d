"""Passing: what of a program's headers reaches the provider, and of the provider's answer the program.

No credential goes one way, nothing that is the operator's comes back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import structlog

from atoll.domain.sandbox import Sandbox
from atoll.services.models.blanking import Blanking
from atoll.services.models.providers import Provider, Providers
from atoll.services.models.refusals import Because, CallRefused
from atoll.services.models.upstream import UpstreamAnswer

_log = structlog.get_logger()
ERROR_BYTES_MAX = 64 * 1024
BETA = "beta=true"  # the one query that goes on
PASSED_ON = ("anthropic-version", "anthropic-beta", "openai-beta")  # of a request's headers
PASSED_BACK = ("content-type", "retry-after", "x-should-retry", "request-id", "x-request-id")
HEADER_CHARS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What the program gets. `pieces` raises CallRefused when the answer breaks off."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncGenerator[bytes]


async def headers_for(blanking: Blanking, sandbox: Sandbox, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """What the program's headers have to say to the provider; no credential is among it, whatever it is called."""
    kept = [("Content-Type", "application/json")]
    for name in PASSED_ON:
        value = headers.get(name, "")
        if not 0 < len(value) < HEADER_CHARS_MAX or not (value.isascii() and value.isprintable()):
            continue
        if not (await blanking.blank(sandbox, value.encode()))[1]:
            kept.append((name, value))
    return kept


def answer_of(upstream: UpstreamAnswer, pieces: AsyncGenerator[bytes]) -> ModelAnswer:
    """The provider's answer, with other pieces."""
    headers = {name: upstream.headers[name] for name in PASSED_BACK if name in upstream.headers}
    return ModelAnswer(upstream.status, headers, pieces)


async def error_of(providers: Providers, provider: Provider, upstream: UpstreamAnswer) -> ModelAnswer:
    """The provider's own error, without what is the operator's in it."""
    body = bytearray()
    async for piece in upstream.pieces:
        body += piece
        if len(body) > ERROR_BYTES_MAX:
            break
    if upstream.status in (401, 403):
        _log.error("models.credential_refused", provider=provider.name, status=upstream.status)
        raise CallRefused(Because.NOT_SET_UP, "the model's provider does not accept this server's key")
    if not 400 <= upstream.status < 600 or not bytes(body).strip().startswith(b"{"):
        after = upstream.headers.get("retry-after", "")
        retry_after_s = int(after) if after.isdecimal() and len(after) < 6 else None
        because = Because.BUSY if upstream.status == 429 else Because.PROVIDER
        raise CallRefused(because, f"the model's provider answered {upstream.status}", retry_after_s=retry_after_s)
    text = bytes(body)
    for one in providers.all:
        if one.key:
            text = text.replace(one.key.encode(), b"***")
    return answer_of(upstream, _once(text))


async def _once(text: bytes) -> AsyncGenerator[bytes]:
    yield text
