"""What the tests of the sidekick API's services share: tools over a house of fakes, and one sandbox."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from atoll.domain.errors import NotFound
from atoll.domain.preview import Preview
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.services.daemon.hub import Hubs
from atoll.services.daemon.port_urls import PortUrls
from atoll.services.daemon.tools import Tools
from tests.principals import introduce
from tests.services.conftest import ALICE, House, house, until

__all__ = ["ALICE", "House", "house", "until"]


class FakePreviews:
    """Previews of one sandbox, that nothing goes through."""

    def __init__(self) -> None:
        self.registered: dict[int, Preview] = {}

    async def register(self, principal: Principal, sandbox_id: str, port: int, **more: Any) -> Preview:
        made = Preview(sandbox_id, port, principal.id, "", datetime.now(UTC), metadata=more.get("metadata", {}))
        self.registered[port] = made
        return made

    async def get(self, principal: Principal, sandbox_id: str, port: int) -> Preview:
        if port not in self.registered:
            raise NotFound("none")
        return self.registered[port]

    async def list(self, principal: Principal) -> builtins.list[Preview]:
        return [*self.registered.values()]

    async def remove(self, principal: Principal, sandbox_id: str, port: int) -> Preview:
        return self.registered.pop(port)

    def url(self, preview: Preview, base: str) -> str:
        return f"{base}/preview/{preview.sandbox_id}/{preview.port}/"


@dataclass
class Kept:
    """A sandbox with its tools; `restart` is another life of the server."""

    house: House
    sandbox: Sandbox
    hubs: Hubs = field(default_factory=Hubs)
    tools: Tools = field(init=False)
    previews: FakePreviews = field(default_factory=FakePreviews)

    def build(self) -> None:
        urls = PortUrls(self.previews, "http://atoll")
        data = self.house.data / "overlays"
        self.tools = Tools(self.house.records, self.house.sandboxes, self.hubs, urls, data)

    @property
    def id(self) -> str:
        return self.sandbox.id

    async def restart(self) -> None:
        await self.tools.close()
        await self.house.restart()
        self.build()
        await self.tools.start()

    async def status(self, slug: str) -> str:
        return (await self.tools.servers.get(ALICE, self.id, slug)).status

    async def state(self, slug: str) -> dict[str, Any]:
        return (await self.tools.servers.get(ALICE, self.id, slug)).fixture.state

    async def running(self, label: str) -> list[str]:
        """The ids of processes of that label that run."""
        listed = await self.house.sandboxes.processes.list(ALICE, self.id)
        return [info.id for info in listed if info.label == label and info.exit is None]


@pytest.fixture
async def kept(house: House) -> AsyncIterator[Kept]:
    await introduce(house.records, ALICE)
    kept = Kept(house, await house.create())
    kept.build()
    await kept.tools.start()
    yield kept
    await kept.tools.close()
