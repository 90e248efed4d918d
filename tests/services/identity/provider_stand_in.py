"""A provider that misbehaves as it is told: discovery and keys on loopback, with a count of who asks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt

from tests.services.identity.forging import PrivateKey

KINDS = {"RSA": jwt.algorithms.RSAAlgorithm, "EC": jwt.algorithms.ECAlgorithm, "OKP": jwt.algorithms.OKPAlgorithm}


def jwk(key: PrivateKey, key_id: str | None, **changed: Any) -> dict[str, Any]:
    kind = {"R": "RSA", "E": "EC"}.get(type(key).__name__.lstrip("_")[0], "OKP")
    kind = "OKP" if "25519" in type(key).__name__ else kind
    entry = dict(KINDS[kind].to_jwk(key.public_key(), as_dict=True))
    named = {} if key_id is None else {"kid": key_id}
    return {name: value for name, value in (entry | named | {"use": "sig"} | changed).items() if value is not ...}


@dataclass
class ProviderStandIn:
    """What it answers; a test changes it at will."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    configuration: dict[str, Any] = field(default_factory=dict)  # in place of what is right
    status: int = 200
    body: bytes | None = None  # for every path, in place of what is right
    delay_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}/realm"

    def answer(self, path: str) -> bytes:
        if self.body is not None:
            return self.body
        if path == "/realm/.well-known/openid-configuration":
            right = {"issuer": self.issuer, "jwks_uri": f"http://127.0.0.1:{self.port}/realm/keys"}
            return json.dumps(right | self.configuration).encode()
        return json.dumps({"keys": self.keys}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
            self.asked.append(path)
            await asyncio.sleep(self.delay_s)
            body = self.answer(path)
            writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(*keys: dict[str, Any]) -> AsyncGenerator[ProviderStandIn]:
    provider = ProviderStandIn(list(keys))
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        server.close()
        await server.wait_closed()
