"""What the tests of the object-store door share: a server over fakes with both of its ports, and clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from atoll.app import Application
from atoll.domain.key import ApiKey
from atoll.serve import accepting, listen, listening
from atoll.services.objects.objects import Objects
from atoll.settings import Settings
from atoll.testing.fake_runtime import FakeHost, FakeRuntime
from atoll.testing.memory_blobs import MemoryBlobs
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault

from .signing import Client


@dataclass
class Store:
    """A server and its insides."""

    app: Application
    api: str
    url: str
    host: FakeHost
    records: MemoryRecords
    http: httpx2.AsyncClient

    async def key(self, name: str = "alice", **terms: Any) -> tuple[ApiKey, str]:
        """A new API key, and its text."""
        made = await self.app.keys.create(name, **terms)
        return made.key, made.text

    async def client(self, text: str) -> Client:
        """Who has an access key of that API key."""
        answer = await self.http.post(f"{self.api}/api/access-keys", headers={"authorization": f"Bearer {text}"})
        assert answer.status_code == 201, answer.text
        return Client(self.url, answer.json()["id"], answer.json()["secret"], self.http)

    async def alice(self, name: str = "alice", **terms: Any) -> Client:
        return await self.client((await self.key(name, **terms))[1])

    async def tree(self, name: str) -> Path:
        """Where the fake machine keeps the working tree of the workspace of that name."""
        [found] = [one for one in self.records._workspaces.values() if one.name == name and one.deleted_at is None]
        assert found.tree_id is not None
        return self.host.trees.folder(found.tree_id)

    async def touched(self, name: str) -> None:
        """Its tree was changed behind the door's back, as a sandbox's programs change it."""
        [found] = [one for one in self.records._workspaces.values() if one.name == name and one.deleted_at is None]
        assert found.tree_id is not None
        await self.app.workspaces._parts.trees.mark(found.tree_id, found)

    @property
    def objects(self) -> Objects:
        handler: Any = self.app.objects.table[("/{bucket}/{key}", "GET")].handler
        return handler.__self__._objects


Opener = Callable[..., AbstractAsyncContextManager[Store]]


@pytest.fixture
async def open_store(tmp_path: Path) -> AsyncIterator[Opener]:
    """`async with open_store(**changed settings) as store`; everything is closed and checked at the end."""

    @asynccontextmanager
    async def opener(**changed: Any) -> AsyncIterator[Store]:
        tree = {
            "data": tmp_path,
            "runtime": "fake",
            "server": {"port": 0, "drain_s": 2},
            "objects": {"enabled": True, "port": 0, "object_bytes": 8 * 2**20},
            "rates": {"enabled": False},
        }
        settings = Settings.model_validate(tree | changed)
        records, host = MemoryRecords(), FakeHost()
        app = Application(settings, records, FakeRuntime(host), None, MemoryBlobs(), MemoryVault())
        async with AsyncExitStack() as stack:
            stack.push_async_callback(app.runtime.shutdown)
            http = await stack.enter_async_context(httpx2.AsyncClient(timeout=20))
            await stack.enter_async_context(app.running())
            api = await stack.enter_async_context(listening(app))
            [door] = app.beside
            socket = listen(door.address.host, door.address.port)
            url = await stack.enter_async_context(accepting(door.app, app.settings, socket))
            yield Store(app, api, url, host, records, http)

    before = asyncio.all_tasks()
    yield opener
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    _, left = await asyncio.wait(left, timeout=0.5) if left else (left, left)
    assert not left, left


@pytest.fixture
async def store(open_store: Opener) -> AsyncIterator[Store]:
    async with open_store() as opened:
        yield opened
