"""A server with real keys and an administrator's key, for tests of the Testbase dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from atoll.domain.principal import Principal
from atoll.services.keys import Keys
from atoll.testing.memory_records import MemoryRecords

ADMIN = "adm_" + "0123456789abcdef" * 3


class RealKeys(Keys):
    """As the server makes them; nobody needs to be introduced."""

    principals: ClassVar[dict[str, Principal]] = {}


@dataclass
class Office:
    """A house that the administrator calls unless a test says who does."""

    house: Any
    keys: RealKeys

    async def call(self, method: str, path: str, key: str | None = ADMIN, **more: Any) -> Any:
        return await self.house.call(method, path, key, **more)

    async def make(self, **body: Any) -> dict[str, Any]:
        answer = await self.call("POST", "/admin/keys", json={"name": "a key"} | body)
        assert answer.status_code == 201, answer.text
        return answer.json()


OpenOffice = Callable[..., AbstractAsyncContextManager[Office]]


@pytest.fixture
def open_office(open_house: Any) -> OpenOffice:
    @asynccontextmanager
    async def opener(records: MemoryRecords | None = None, **settings: Any) -> AsyncIterator[Office]:
        records = records or MemoryRecords()
        given = {"keys": settings.pop("keys", {})}
        bootstrap = given["keys"].get("bootstrap", "")
        keys = RealKeys(records, bootstrap=[text for text in bootstrap.split(",") if text], cache_s=0.2)
        settings = {"admin": {"api_key": ADMIN}} | settings
        async with open_house(records=records, keys=keys, more_settings=given, **settings) as house:
            yield Office(house, keys)

    return opener


@pytest.fixture
async def office(open_office: OpenOffice) -> AsyncIterator[Office]:
    async with open_office() as opened:
        yield opened
