"""A server that knows one issuer by a key in PEM (JWT_PUBLIC_KEY, JWT_AUDIENCE, JWT_ISSUER), on every surface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from atoll.app import Application, create_app
from atoll.serve import listening
from atoll.services.identity.users import OPERATOR, UserChanges
from atoll.settings import load
from tests.services.identity.forging import AUDIENCE, ISSUER, claims, pem, rsa_key, sign

PATHS = ("/v1/sessions", "/v1/workspaces", "/workspaces", "/snapshot/list", "/api/filesystems", "/api/groups")


class Server:
    def __init__(self, app: Application, url: str, http: httpx2.AsyncClient) -> None:
        self.app = app
        self.url = url
        self.http = http

    async def call(self, path: str, text: str, method: str = "GET", **more: object) -> httpx2.Response:
        headers = {"authorization": f"Bearer {text}"}
        return await self.http.request(method, path, headers=headers, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def serving(data: Path) -> AsyncGenerator[Server]:
    (data / "issuer.pem").write_bytes(pem(rsa_key()))
    names = {"JWT_PUBLIC_KEY": str(data / "issuer.pem"), "JWT_ISSUER": ISSUER, "JWT_AUDIENCE": AUDIENCE}
    more = {"runtime": "fake", "server.port": 0, "server.drain_s": 1}
    app = create_app(load(environ={"ATOLL_DATA": str(data)} | names, overrides=more))
    async with app.running(), listening(app) as url, httpx2.AsyncClient(base_url=url) as http:
        yield Server(app, url, http)


async def test_every_surface_takes_the_token_and_refuses_a_forged_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        good, forged = sign(claims()), sign(claims(), rsa_key(2048, 1))
        for path in PATHS:
            assert (await server.call(path, good)).status_code == 200, path
            assert (await server.call(path, forged)).status_code == 401, path


async def test_a_user_has_one_default_workspace_from_the_first_login_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await asyncio.gather(*(server.call("/v1/sessions", sign(claims(jti=number))) for number in range(10)))
        (user,) = await server.app.records.list_users()
        assert (user.issuer, user.subject, user.password_hash) == (ISSUER, "auth0|alice", None)
        owned = await server.app.records.list_workspaces(owner=user.id)
        assert len(owned) == 1
        assert (await server.call(f"/v1/workspaces/{owned[0].id}", sign(claims()))).status_code == 200


async def test_a_large_token_is_a_token_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await server.call("/v1/sessions", sign(claims(roles=["r" * 50] * 95)))).status_code == 200
        assert (await server.call("/v1/sessions", sign(claims(roles=["r" * 50] * 200)))).status_code == 401


@pytest.mark.parametrize("how", ["expired", "disabled"])
async def test_a07_a_stream_ends_within_seconds_of_its_token(tmp_path: Path, how: str) -> None:
    async with serving(tmp_path) as server:
        # its skew is 30 s: it is over two seconds from now
        text = sign(claims(exp=time.time() - 28)) if how == "expired" else sign(claims())
        made = await server.call("/v1/sessions", text, "POST", json={"image": "host", "command": ["sleep", "600"]})
        assert made.status_code == 201, made.text
        url = f"{server.url.replace('http', 'ws', 1)}/v1/sessions/{made.json()['id']}/attach"
        headers = {"authorization": f"Bearer {text}"}
        async with connect(url, additional_headers=headers) as socket:
            if how == "disabled":
                (user,) = await server.app.records.list_users()
                await server.app.auth.users.change(OPERATOR, user.id, UserChanges(disabled=True))
            async with asyncio.timeout(8):
                with pytest.raises(ConnectionClosed):
                    while True:
                        await socket.recv()
            assert socket.close_code == 1008
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers=headers)
        assert refused.value.response.status_code == 401
