"""Two servers on one PostgreSQL: who is shut out at one of them is shut out at the other, streams and all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from atoll.app import Application, create_app
from atoll.serve import listening
from atoll.services.identity.users import OPERATOR, UserChanges
from atoll.settings import load
from tests.records.postgres import postgres_server, postgres_url
from tests.services.identity.forging import AUDIENCE, ISSUER, claims, pem, rsa_key, sign

__all__ = ["postgres_server", "postgres_url"]
pytestmark = pytest.mark.timeout(120)

REFUSED_S, CUT_S = 2.0, 5.0  # within which another process refuses, and ends what is open
SLACK_S = 3.0  # of a busy machine


class Server:
    def __init__(self, app: Application, http: httpx2.AsyncClient) -> None:
        self.app = app
        self.http = http

    async def status(self, text: str) -> int:
        answer = await self.http.get("/v1/sessions", headers={"authorization": f"Bearer {text}"})
        return answer.status_code

    async def refusing(self, text: str) -> None:
        """Returns once it refuses the token."""
        for _ in range(1_000):
            if await self.status(text) == 401:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it never does")


@asynccontextmanager
async def pair(folder: Path, database: str) -> AsyncGenerator[tuple[Server, Server]]:
    """They share the records, the bytes and the master key, as servers behind one address do."""
    given = {"JWT_PUBLIC_KEY": pem(rsa_key()).decode(), "JWT_ISSUER": ISSUER, "JWT_AUDIENCE": AUDIENCE}
    shared: dict[str, Any] = {
        "runtime": "fake",
        "server.port": 0,
        "server.drain_s": 1,
        "database.url": database.replace("postgresql+asyncpg", "postgresql"),
        "blobs.url": str(folder / "blobs"),
        "vault.key_file": folder / "master.key",
    }
    async with AsyncExitStack() as stack:
        servers: list[Server] = []
        for name in ("here", "there"):
            app = create_app(load(environ=given | {"ATOLL_DATA": str(folder / name)}, overrides=shared))
            await stack.enter_async_context(app.running())
            url = await stack.enter_async_context(listening(app))
            servers.append(Server(app, await stack.enter_async_context(httpx2.AsyncClient(base_url=url))))
        yield servers[0], servers[1]


async def test_a_first_login_at_both_makes_one_user(postgres_url: str, tmp_path: Path) -> None:
    async with pair(tmp_path, postgres_url) as (here, there):
        tokens = [sign(claims(jti=number)) for number in range(16)]
        asked = [(here if number % 2 else there).status(text) for number, text in enumerate(tokens)]
        assert await asyncio.gather(*asked) == [200] * 16
        (user,) = await here.app.records.list_users()
        assert len(await here.app.records.list_workspaces(owner=user.id)) == 1


async def test_a07_who_is_disabled_at_one_is_refused_at_the_other_and_loses_its_streams(
    postgres_url: str, tmp_path: Path
) -> None:
    text = sign(claims())
    async with pair(tmp_path, postgres_url) as (here, there):
        assert (await here.status(text), await there.status(text)) == (200, 200)
        (user,) = await here.app.records.list_users()
        headers = {"authorization": f"Bearer {text}"}
        async with there.http.stream("GET", "/api/events/stream", headers=headers) as stream:
            assert stream.status_code == 200
            await here.app.auth.users.change(OPERATOR, user.id, UserChanges(disabled=True))
            assert await here.status(text) == 401
            async with asyncio.timeout(REFUSED_S + SLACK_S):
                await there.refusing(text)
            async with asyncio.timeout(CUT_S + SLACK_S):
                with pytest.raises(httpx2.RemoteProtocolError):
                    async for _ in stream.aiter_bytes():
                        pass
