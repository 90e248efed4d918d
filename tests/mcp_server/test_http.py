"""The tools over streamable HTTP: who gets in, with whose power, and from which pages."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from atoll.mcp.calling import Server
from atoll.mcp.http import BODY_BYTES, application
from tests.surfaces.conftest import ALICE, BOB, EXECUTOR, House, Opener

JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
LIST = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'


@pytest.fixture
async def url(house: House) -> AsyncIterator[str]:
    """Of a server of tools for the house's API."""
    hosts, origins = ["127.0.0.1:*", "tools.example"], ["https://console.example"]
    app = application(Server(house.url), hosts=hosts, origins=origins)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    server.should_exit = True
    await serving
    for task in asyncio.all_tasks():  # which sse-starlette leaves to the end of its loop
        if "_shutdown_watcher" in str(task.get_coro()):
            task.cancel()


@asynccontextmanager
async def caller(url: str, key: str, mode: Any = "auto") -> AsyncIterator[Client]:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}))
        yield await stack.enter_async_context(Client(streamable_http_client(url, http_client=http), mode=mode))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_caller_acts_with_the_key_that_they_bring(url: str, mode: str) -> None:
    async with caller(url, ALICE, mode) as alice, caller(url, BOB, mode) as bob:
        made = (await alice.call_tool("create_sandbox", {})).structured_content
        assert made is not None
        ran = await alice.call_tool("run_command", {"sandbox": made["id"], "command": "echo hi"})
        assert ran.structured_content is not None and ran.structured_content["stdout"] == "hi\n"
        foreign = await bob.call_tool("run_command", {"sandbox": made["id"], "command": "echo hi"})
        assert foreign.is_error and "not_found" in str(foreign.content)
        listed = await bob.call_tool("list_sandboxes", {})
        assert listed.structured_content == {"sandboxes": [], "more": False}


async def test_a_key_without_the_scope_to_read_gets_in_and_may_do_what_it_may(url: str) -> None:
    async with caller(url, EXECUTOR) as executor:
        assert not (await executor.call_tool("create_sandbox", {})).is_error
        assert "forbidden" in str((await executor.call_tool("list_sandboxes", {})).content)


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a01_nobody_gets_in_without_a_good_credential(house: House, url: str, method: str) -> None:
    for given in (
        {},
        {"authorization": "Bearer sk_wrong"},
        {"authorization": "Basic eDp5"},
        {"x-api-key": ALICE},
        {"authorization": b"Bearer \xe9"},
        {"authorization": "Bearer sk_a, Bearer sk_b"},
    ):
        answer = await house.http.request(method, url, headers=JSON | given, content=LIST)
        assert answer.status_code == 401, given
        assert answer.headers["www-authenticate"] == "Bearer"
    asked = await house.http.request(method, f"{url}?api_key={ALICE}", headers=JSON, content=LIST)
    assert asked.status_code == 401


async def test_w02_pages_of_other_origins_and_rebound_names_are_refused(house: House, url: str) -> None:
    mine = JSON | {"authorization": f"Bearer {ALICE}"}
    for given, status in (
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "tools.example", "origin": "https://console.example"}, 200),
    ):
        answer = await house.http.post(url, headers=mine | given, content=LIST)
        assert answer.status_code == status, given


async def test_a_body_that_is_too_large_is_refused(house: House, url: str) -> None:
    headers = JSON | {"authorization": f"Bearer {ALICE}"}
    answer = await house.http.post(url, headers=headers, content=b" " * (BODY_BYTES + 1))
    assert answer.status_code == 413


async def test_an_api_that_is_gone_is_told_as_such(house: House) -> None:
    app = application(Server("http://127.0.0.1:9"), hosts=["127.0.0.1:*"])
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
        answer = await client.post("/mcp", headers=JSON | {"authorization": f"Bearer {ALICE}"}, content=LIST)
    assert answer.status_code == 503


async def test_a_rate_that_is_reached_is_told_with_the_time_to_wait(open_house: Opener) -> None:
    async with open_house(rates={"key_per_s": 0.1, "key_burst": 1}) as house:
        assert (await house.call("GET", "/v1/sessions", ALICE)).status_code == 200
        app = application(Server(house.url), hosts=["127.0.0.1:*"])
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
            answer = await client.post("/mcp", headers=JSON | {"authorization": f"Bearer {ALICE}"}, content=LIST)
        assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 10
        assert "too many requests with this key" in answer.json()["error"]
