"""What tests of the tools share: a real server over fakes, and a client of the official package on its tools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from mcp import Client

from atoll.mcp.calling import Server
from atoll.mcp.server import make_server
from tests.surfaces.conftest import ALICE, House, house, keys, open_house

__all__ = ["house", "keys", "open_house"]


class Tools:
    """An agent's view: a tool by its name, and what it answered."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str, /, **given: Any) -> dict[str, Any]:
        answer = await self.client.call_tool(tool, given)
        assert not answer.is_error, answer.content
        return dict(answer.structured_content or {})

    async def refused(self, tool: str, /, **given: Any) -> str:
        answer = await self.client.call_tool(tool, given)
        assert answer.is_error, answer
        return str(answer.content[0].text)  # type: ignore[union-attr]


Opener = Callable[..., AbstractAsyncContextManager[Tools]]


@pytest.fixture
def agent(house: House) -> Opener:
    """`async with agent(key, sandbox=...) as tools`."""

    @asynccontextmanager
    async def opened(key: str = ALICE, sandbox: str | None = None) -> AsyncIterator[Tools]:
        ready, over = asyncio.get_running_loop().create_future(), asyncio.Event()

        async def keep() -> None:  # whoever opens a client has to close it, and fixtures begin and end in two tasks
            async with Client(make_server(Server(house.url, key, sandbox=sandbox))) as client:
                ready.set_result(client)
                await over.wait()

        keeping = asyncio.create_task(keep())
        try:
            yield Tools(await ready)
        finally:
            over.set()
            await keeping

    return opened


@pytest.fixture
async def tools(agent: Opener) -> AsyncIterator[Tools]:
    async with agent() as opened:
        yield opened
