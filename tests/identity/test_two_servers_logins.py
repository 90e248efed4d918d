"""Two servers on one PostgreSQL: a login at one of them is one at the other, and so are its end and its keys."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from atoll.services.identity.users import OPERATOR, UserChanges
from tests.identity.test_two_servers import CUT_S, REFUSED_S, SLACK_S, Server, pair
from tests.records.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]
pytestmark = [pytest.mark.timeout(120), pytest.mark.postgres]
PASSWORD = "correct horse battery"


async def post(server: Server, path: str, body: dict[str, Any], token: str | None = None) -> Any:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    answer = await server.http.post(path, json=body, headers=headers, timeout=30)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def test_a07_a_logout_at_one_is_one_at_the_other_within_two_seconds_streams_and_all(
    postgres_url: str, tmp_path: Path
) -> None:
    async with pair(tmp_path, postgres_url) as (here, there):
        await here.app.auth.users.create(OPERATOR, "ann", PASSWORD)
        tokens = await post(here, "/auth/login", {"username": "ann", "password": PASSWORD})
        other = await post(there, "/auth/login", {"username": "ann", "password": PASSWORD})
        access = tokens["access_token"]
        assert (await here.status(access), await there.status(access)) == (200, 200)
        async with there.http.stream(
            "GET", "/api/events/stream", headers={"authorization": f"Bearer {access}"}
        ) as stream:
            assert stream.status_code == 200
            await post(here, "/auth/logout", {"refresh_token": tokens["refresh_token"]})
            assert await here.status(access) == 401
            async with asyncio.timeout(REFUSED_S + SLACK_S):
                await there.refusing(access)
            async with asyncio.timeout(CUT_S + SLACK_S):
                with pytest.raises(httpx2.RemoteProtocolError):
                    async for _ in stream.aiter_bytes():
                        pass
        assert (await here.status(other["access_token"]), await there.status(other["access_token"])) == (200, 200)


async def test_a07_who_administers_no_more_loses_the_stream_of_everybodys_events(
    postgres_url: str, tmp_path: Path
) -> None:
    async with pair(tmp_path, postgres_url) as (here, there):
        await here.app.auth.users.create(OPERATOR, "ann", PASSWORD, admin=True)
        access = (await post(there, "/auth/login", {"username": "ann", "password": PASSWORD}))["access_token"]
        headers, everybodys = {"authorization": f"Bearer {access}"}, "/api/events/stream?tenant=*"
        async with there.http.stream("GET", everybodys, headers=headers) as stream:
            assert stream.status_code == 200
            await here.app.auth.users.change(OPERATOR, "ann", UserChanges(admin=False))
            async with asyncio.timeout(CUT_S + SLACK_S):
                with pytest.raises(httpx2.RemoteProtocolError):
                    async for _ in stream.aiter_bytes():
                        pass
        assert await there.status(access) == 200  # the login itself goes on


async def test_a15_wrong_passwords_at_both_count_together(postgres_url: str, tmp_path: Path) -> None:
    async with pair(tmp_path, postgres_url) as (here, there):
        await here.app.auth.users.create(OPERATOR, "ann", PASSWORD)
        found: list[int] = []
        for server in (here, there) * 6:
            body = {"username": "ann", "password": "wrong horse battery"}
            answer = await server.http.post("/auth/login", json=body, timeout=30)
            found.append(answer.status_code)
        assert found == [401] * 10 + [429] * 2


async def test_both_sign_with_one_key_and_a_new_one_is_known_to_both_at_once(postgres_url: str, tmp_path: Path) -> None:
    async with pair(tmp_path, postgres_url) as (here, there):
        await here.app.auth.users.create(OPERATOR, "ann", PASSWORD)
        body = {"username": "ann", "password": PASSWORD}
        first, second = await asyncio.gather(post(here, "/auth/login", body), post(there, "/auth/login", body))
        assert len(await here.app.records.list_signing_keys()) == 1
        await here.app.auth.signing_keys.rotate("test")
        third = await post(here, "/auth/refresh", {"refresh_token": first["refresh_token"]})
        for tokens in (first, second, third):
            for server in (here, there):
                assert await server.status(tokens["access_token"]) == 200
        await there.app.auth.signing_keys.rotate("test", revoke=True)
        async with asyncio.timeout(REFUSED_S + SLACK_S):
            for tokens in (first, second, third):
                await here.refusing(tokens["access_token"])
        fourth = await post(here, "/auth/refresh", {"refresh_token": third["refresh_token"]})
        assert await there.status(fourth["access_token"]) == 200


async def test_a07_a_user_disabled_at_one_takes_their_keys_along_at_the_other(
    postgres_url: str, tmp_path: Path
) -> None:
    async with pair(tmp_path, postgres_url) as (here, there):
        await here.app.auth.users.create(OPERATOR, "ann", PASSWORD)
        tokens = await post(here, "/auth/login", {"username": "ann", "password": PASSWORD})
        key = (await post(here, "/auth/api-keys", {"name": "ci"}, tokens["access_token"]))["key"]
        assert await there.status(key) == 200
        owner = here.app.owner_key
        assert owner is not None
        path, headers = "/api/users/ann", {"authorization": f"Bearer {owner.text}"}
        answer = await here.http.patch(path, json={"disabled": True}, headers=headers)
        assert answer.json()["disabled"] is True
        assert await here.status(key) == 401
        async with asyncio.timeout(REFUSED_S + SLACK_S):
            await there.refusing(key)
