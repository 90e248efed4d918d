"""A house whose keys are real ones, with an administrator's key, for tests of users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from atoll.domain.key import KeyKind
from atoll.domain.principal import Principal
from atoll.records.base import Records
from atoll.services.identity import passwords
from atoll.services.keys import Keys
from atoll.testing.memory_records import MemoryRecords

PASSWORD = "correct horse battery"


class RealKeys(Keys):
    """As the server makes them; nobody needs to be introduced."""

    principals: ClassVar[dict[str, Principal]] = {}


@dataclass
class Town:
    """A house in which an administrator makes users."""

    house: Any
    admin: str

    async def call(self, method: str, path: str, key: str | None = None, **more: Any) -> Any:
        return await self.house.call(method, path, key, **more)

    async def user(self, username: str = "ann", **more: Any) -> dict[str, Any]:
        body = {"username": username, "password": PASSWORD} | more
        answer = await self.call("POST", "/api/users", self.admin, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def login(self, username: str = "ann", password: str = PASSWORD) -> dict[str, Any]:
        answer = await self.call("POST", "/auth/login", json={"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    real = passwords.PasswordHasher
    monkeypatch.setattr(passwords, "PasswordHasher", lambda *_, **more: real(1, 8, 1, **more))


@pytest.fixture
async def town(open_house: Callable[..., Any], cheap_passwords: None) -> AsyncIterator[Town]:
    records: Records = MemoryRecords()
    keys = RealKeys(records)
    async with open_house(records=records, keys=keys) as house:
        made = await keys.create("admin", kind=KeyKind.OWNER)
        yield Town(house, made.text)
