"""What the tests of the sidekick API share: a sandbox's own base, and a client of its events."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.surfaces.conftest import ALICE, House


class Daemon:
    """One sandbox's sidekick API."""

    def __init__(self, house: House, id: str) -> None:
        self.house = house
        self.id = id

    async def call(self, method: str, path: str, key: str | None = ALICE, **more: Any) -> Any:
        return await self.house.call(method, f"/sb/{self.id}{path}", key, **more)

    async def data(self, method: str, path: str, *, status: int = 200, **more: Any) -> Any:
        answer = await self.call(method, path, **more)
        assert answer.status_code == status, answer.text
        return answer.json()["data"]

    def events(self, key: str | None = ALICE, query: str = "", **more: Any) -> Any:
        return self.house.socket(f"/sb/{self.id}/ws{query}", key, **more)


async def send(socket: Any, type: str, channel: str = "", **data: Any) -> None:
    await socket.send(json.dumps({"type": type, "channel": channel, "data": data}))


async def heard(socket: Any, *types: str) -> Any:
    """The next message of one of these types."""
    async with asyncio.timeout(5):
        while True:
            message = json.loads(await socket.recv())
            if message["type"] in types:
                return message


@pytest.fixture
async def daemon(house: House) -> Daemon:
    return Daemon(house, (await house.create(command=["sleep", "600"]))["id"])
