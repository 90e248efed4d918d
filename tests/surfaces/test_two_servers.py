"""Two servers on one PostgreSQL, asked the same at once: where there can be one of something, one of them makes it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
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
from tests.records.migrated import migrated_postgres_url, postgres_template
from tests.records.postgres import postgres_server

__all__ = ["migrated_postgres_url", "postgres_server", "postgres_template"]
pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

ADMIN = "adm_" + "0123456789abcdef" * 3
CALLS = 8  # at once, every other one at the other server
PRICE = 0.25


class Two:
    """Servers behind one address, with sandboxes that both of them reach."""

    def __init__(self, apps: list[Application], urls: list[str], http: httpx2.AsyncClient) -> None:
        self.apps, self.urls, self.http = apps, urls, http

    async def at(self, which: int, method: str, path: str, key: str | None, **more: Any) -> httpx2.Response:
        headers = ({} if key is None else {"authorization": f"Bearer {key}"}) | more.pop("headers", {})
        return await self.http.request(method, self.urls[which] + path, headers=headers, **more)

    async def call(self, method: str, path: str, key: str = ADMIN, **more: Any) -> Any:
        answer = await self.at(0, method, path, key, **more)
        assert answer.is_success, answer.text
        return answer.json()

    async def race(self, method: str, path: str, key: str | None, **more: Any) -> list[httpx2.Response]:
        """The answers to the same request, made at once at both; a fault of a server is none."""
        asked: list[Awaitable[httpx2.Response]] = [
            self.at(number % 2, method, path, key, **more) for number in range(CALLS)
        ]
        answers = await asyncio.gather(*asked)
        assert all(answer.status_code < 500 for answer in answers), [answer.text for answer in answers]
        return answers

    async def tenant(self) -> tuple[str, str]:
        """(id, key) of somebody new."""
        made = await self.call("POST", "/admin/keys", json={"name": "a tenant"})
        return made["id"], made["key"]

    async def sandboxes(self, owner: str) -> list[str]:
        return [one.id for one in await self.apps[0].records.list_sandboxes(owner=owner)]


def statuses(answers: list[httpx2.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


@pytest.fixture
async def two(migrated_postgres_url: str, tmp_path: Path) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        host, apps, urls = FakeHost(), [], []
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=30, follow_redirects=False))
        for name in ("here", "there"):
            settings = Settings.model_validate(
                {
                    "data": tmp_path / name,
                    "runtime": "fake",
                    "database": {"url": migrated_postgres_url},
                    "blobs": {"url": str(tmp_path / "blobs")},
                    "server": {"port": 0, "drain_s": 1},
                    "admin": {"api_key": ADMIN},
                    "vault": {"key_file": tmp_path / "master.key"},
                }
            )
            app = Application(settings, open_records(settings.database_url), FakeRuntime(host))
            if not apps:
                stack.push_async_callback(app.runtime.shutdown)  # sandboxes would outlive both servers
            await stack.enter_async_context(app.running())
            urls.append(await stack.enter_async_context(listening(app)))
            apps.append(app)
        yield Two(apps, urls, http)


async def test_a_name_is_one_sandboxs_whoever_asks_first_and_a_link_one_browsers(two: Two) -> None:
    owner, key = await two.tenant()
    body = {"name": "agent", "namespace": "team"}
    found = await two.race("POST", "/v1/sandboxes/find-or-create", key, json=body)
    assert statuses(found) == {200: CALLS}
    (one,) = {answer.json()["data"]["sandboxId"] for answer in found}
    made = await two.race("POST", "/sandboxes", key, json={"sandbox_id": "mine"})
    assert statuses(made) == {200: 1, 409: CALLS - 1}
    assert len(await two.sandboxes(owner)) == 2
    for which in (0, 1):
        told = await two.at(which, "POST", "/v1/sandboxes/find", key, json=body)
        assert told.json()["data"]["sandboxId"] == one
        told = await two.at(which, "POST", "/sandboxes/mine/exec", key, json={"command": "true"})
        assert (told.status_code, told.json()["exit_code"]) == (200, 0)
    (mine,) = set(await two.sandboxes(owner)) - {one}
    assert statuses(await two.race("DELETE", "/sandboxes/mine", key)) == {200: 1, 404: CALLS - 1}
    assert await two.sandboxes(owner) == [one]
    told = await two.call("GET", "/api/events", key, params={"target": mine})
    assert max(Counter(event["action"] for event in told["events"]).values()) == 1, told

    link = await two.call("POST", f"/sb/{one}/auth/magic-links", key)
    answers = await two.race("GET", link["data"]["magic_url"].removeprefix(two.urls[0]), None)
    assert statuses(answers) == {302: 1, 400: CALLS - 1}
    (cookie,) = [answer.headers["set-cookie"] for answer in answers if answer.status_code == 302]
    _, _, text = cookie.partition(";")[0].partition("=")
    for which in (0, 1):
        status = await two.at(which, "GET", f"/sb/{one}/auth/status", text)
        assert status.json()["data"]["token_type"] == "session_token"
    assert statuses(await two.race("POST", f"/sb/{one}/auth/token", key)) == {201: 1, 409: CALLS - 1}


async def test_what_is_named_otherwise_is_made_once(two: Two) -> None:
    _, key = await two.tenant()
    for path, body in (
        ("/api/filesystems", {"name": "data"}),
        ("/api/secrets", {"name": "TOKEN", "value": "v"}),
        ("/marketplace/publish", {"name": "w", "description": "d", "command": ["true"], "version": "1.0.0"}),
    ):
        seen = statuses(await two.race("POST", path, key, json=body))
        assert (seen[200] + seen[201], seen[409]) == (1, CALLS - 1), (path, seen)
    newcomer, own_key = await two.tenant()  # whose first request makes a workspace
    assert statuses(await two.race("POST", "/sandboxes", own_key)) == {200: CALLS}
    assert len(await two.apps[0].records.list_workspaces(owner=newcomer)) == 1


async def test_b03_a_run_under_one_key_is_charged_once_and_b01_nobody_spends_twice(two: Two) -> None:
    author, authors_key = await two.tenant()
    caller, key = await two.tenant()
    offer = {"name": "w", "description": "d", "command": ["echo", "hi"], "pricing": {"per_run": PRICE}}
    worker = (await two.call("POST", "/marketplace/publish", authors_key, json=offer))["worker_id"]
    path, asked = f"/marketplace/{worker}/run", {"max_price": PRICE}

    async def dollars(account: str) -> float:
        return (await two.apps[1].ledger.account(account)).balance / 1_000_000

    await two.call("POST", f"/billing/admin/{caller}/credits", json={"amount": 4 * PRICE})
    once = {"idempotency-key": "the-same"}
    answers = await two.race("POST", path, key, json=asked, headers=once)
    seen = statuses(answers)
    assert seen.keys() <= {200, 409} and seen[200] >= 1, seen
    (run,) = {answer.json()["run_id"] for answer in answers if answer.is_success}
    for which in (0, 1):
        again = await two.at(which, "POST", path, key, json=asked, headers=once)
        assert (again.status_code, again.json()["run_id"]) == (200, run)
    assert (await dollars(caller), await dollars(author)) == (3 * PRICE, PRICE)

    answers = await two.race("POST", path, key, json=asked)
    assert statuses(answers) == {200: 3, 402: CALLS - 3}
    assert (await dollars(caller), await dollars(author)) == (0, 4 * PRICE)
    assert (await two.apps[0].ledger.account(caller)).held == 0
