"""Two servers on one PostgreSQL database count together, and a key that one ends, the other refuses soon after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from atoll.app import Application
from atoll.records.sql import open_records
from atoll.serve import listening
from atoll.settings import Settings
from atoll.testing.fake_runtime import FakeHost, FakeRuntime
from tests.records.postgres import postgres_server, postgres_url  # noqa: F401
from tests.surfaces.testbase.conftest import ADMIN

pytestmark = pytest.mark.postgres
SECONDS_MAX = 2.0 + 3.0  # by which a revoked key is refused everywhere, and what a loaded machine needs besides


class Two:
    """Asks one server, then the other."""

    def __init__(self, urls: list[str], http: httpx2.AsyncClient) -> None:
        self.urls, self.http, self.asked = urls, http, 0

    async def call(self, method: str, path: str, key: str = ADMIN, **more: Any) -> httpx2.Response:
        self.asked += 1
        return await self.at(self.asked % 2, method, path, key, **more)

    async def at(self, which: int, method: str, path: str, key: str = ADMIN, **more: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {key}"}
        return await self.http.request(method, self.urls[which] + path, headers=headers, **more)

    async def make(self, **body: Any) -> dict[str, Any]:
        return (await self.call("POST", "/admin/keys", json={"name": "a key"} | body)).json()


@pytest.fixture
async def two(postgres_url: str, tmp_path: Path) -> AsyncIterator[Two]:  # noqa: F811
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=20))
        urls: list[str] = []
        for name in ("a", "b"):
            settings = Settings.model_validate(
                {
                    "data": tmp_path / name,
                    "runtime": "fake",
                    "database": {"url": postgres_url},
                    "server": {"port": 0, "drain_s": 1},
                    "admin": {"api_key": ADMIN},
                    "vault": {"key_file": tmp_path / "master.key"},
                    "rates": {"execbox": {"address_requests": 30}},
                }
            )
            app = Application(settings, open_records(settings.database_url), FakeRuntime(FakeHost()))
            await stack.enter_async_context(app.running())
            urls.append(await stack.enter_async_context(listening(app)))
        yield Two(urls, http)


@pytest.mark.timeout(120)
async def test_a15_what_one_lets_through_the_other_counts(two: Two) -> None:
    key = (await two.make())["key"]
    window = [await two.call("GET", "/v1/sessions", key) for _ in range(34)]
    assert [answer.status_code for answer in window] == [200] * 30 + [429] * 4
    assert [int(answer.headers["ratelimit-remaining"]) for answer in window[:30]] == list(range(29, -1, -1))
    slow = (await two.make(rate={"perSecond": 0.01, "burst": 4}))["key"]
    rate = [await two.call("GET", "/api/filesystems", slow) for _ in range(8)]
    assert [answer.status_code for answer in rate] == [200] * 4 + [429] * 4


@pytest.mark.timeout(120)
async def test_a15_many_at_once_get_no_more_than_there_is(two: Two) -> None:
    key = (await two.make(rate={"perSecond": 0.01, "burst": 10}))["key"]
    answers = await asyncio.gather(*(two.call("GET", "/api/filesystems", key) for _ in range(40)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 30


@pytest.mark.timeout(120)
async def test_a07_a_key_that_one_server_ends_the_other_refuses_within_seconds(two: Two) -> None:
    for end in ("revoke", "rotate", "delete"):
        made = await two.make()
        for which in (0, 1):
            assert (await two.at(which, "GET", "/api/filesystems", made["key"])).status_code == 200
        path = f"/admin/keys/{made['id']}"
        if end == "revoke":
            await two.at(0, "POST", path + "/revoke")
        elif end == "delete":
            await two.at(0, "DELETE", path)
        else:
            await two.at(0, "POST", f"/v1/account/keys/{made['id']}/rotate", made["key"])
        assert (await two.at(0, "GET", "/api/filesystems", made["key"])).status_code == 401
        since = time.monotonic()
        while (await two.at(1, "GET", "/api/filesystems", made["key"])).status_code == 200:
            assert time.monotonic() - since < SECONDS_MAX, end
            await asyncio.sleep(0.05)
