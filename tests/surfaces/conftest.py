"""What the surfaces' tests share: a real HTTP server on loopback over fake records and a fake runtime."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect

from atoll.app import Application
from atoll.domain.errors import Unauthenticated
from atoll.domain.key import DEFAULT_SCOPES, ApiKey, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.serve import listening
from atoll.services.clock import utc_now
from atoll.services.keys import Left
from atoll.settings import Settings
from atoll.testing.fake_runtime import FakeHost, FakeRuntime
from atoll.testing.memory_blobs import MemoryBlobs
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault
from tests.principals import introduce

ALICE = "sk_" + "a1" * 32
BOB = "sk_" + "b0" * 32
OWNER = "sk_" + "0e" * 32
READER = "sk_" + "4e" * 32  # alice's sandboxes, with the scope read alone
EXECUTOR = "sk_" + "e4" * 32
WRITER = "sk_" + "34" * 32
KEY_NAMES = ("ALICE", "BOB", "OWNER", "READER", "EXECUTOR", "WRITER")


def _principals() -> dict[str, Principal]:
    alice = Principal("key_a11ce0000000", KeyKind.STANDARD, DEFAULT_SCOPES, "alice")
    some = {READER: Scope.READ, EXECUTOR: Scope.EXECUTE, WRITER: Scope.WRITE}
    return {
        ALICE: alice,
        BOB: Principal("key_b0b000000000", KeyKind.STANDARD, DEFAULT_SCOPES, "bob"),
        OWNER: Principal("key_0143e0000000", KeyKind.OWNER, DEFAULT_SCOPES, "owner"),
    } | {text: Principal(alice.id, alice.kind, frozenset({scope})) for text, scope in some.items()}


@dataclass
class KeyRing:
    """Keys without a store."""

    principals: dict[str, Principal] = field(default_factory=_principals)
    looks: int = 0
    dropped_uses: int = 0
    uses: list[tuple[str, str, str, int]] = field(default_factory=list)

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def create(self, *_: Any, **__: Any) -> None: ...

    async def authenticate(self, text: str) -> Principal:
        self.looks += 1
        await asyncio.sleep(0)
        if text not in self.principals:
            raise Unauthenticated
        return self.principals[text]

    async def left(self, key_id: str) -> Left:
        for one in self.principals.values():
            if one.credential == key_id:
                key = ApiKey(key_id, "", "", one.name, one.kind, one.scopes, utc_now(), owner=one.id)
                return Left(key, one.scopes, (key_id,), one.rate, key_id)
        raise Unauthenticated

    def log_use(self, key_id: str, *, endpoint: str, method: str, status_code: int, **_: Any) -> None:
        self.uses.append((key_id, method, endpoint, status_code))


@dataclass
class House:
    """A server and its insides."""

    app: Application
    url: str
    records: MemoryRecords
    host: FakeHost
    keys: KeyRing
    http: httpx2.AsyncClient

    def headers(self, key: str | None) -> dict[str, str]:
        return {} if key is None else {"authorization": f"Bearer {key}"}

    async def call(self, method: str, path: str, key: str | None = ALICE, **more: Any) -> httpx2.Response:
        headers = self.headers(key) | more.pop("headers", {})
        return await self.http.request(method, self.url + path, headers=headers, **more)

    async def create(self, key: str | None = ALICE, **body: Any) -> dict[str, Any]:
        answer = await self.call("POST", "/v1/sessions", key, json={"image": "host", "network": "none"} | body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def exec(self, session_id: str, command: Any, key: str | None = ALICE, **body: Any) -> dict[str, Any]:
        path = f"/v1/sessions/{session_id}/exec"
        answer = await self.call("POST", path, key, json={"command": command} | body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def socket(self, path: str, key: str | None = ALICE, **more: Any) -> connect:
        """Use it as a context manager; the upgrade's response is `.response`."""
        headers = self.headers(key) | more.pop("additional_headers", {})
        options = {"additional_headers": headers, "compression": None, "max_size": 2**24, "proxy": None}
        return connect("ws" + self.url.removeprefix("http") + path, **(options | more))


Opener = Callable[..., Any]


@pytest.fixture
async def open_house(tmp_path: Path) -> AsyncIterator[Opener]:
    """`async with open_house(**changed settings) as house`; everything is closed and checked at the end."""

    @asynccontextmanager
    async def opener(
        *,
        records: MemoryRecords | None = None,
        host: FakeHost | None = None,
        keys: KeyRing | None = None,
        blobs: MemoryBlobs | None = None,
        keep: bool = False,
        more_settings: dict[str, Any] | None = None,  # whose sections have the names of other arguments
        **settings: Any,
    ) -> AsyncIterator[House]:
        tree = (
            {"data": tmp_path, "runtime": "fake", "server": {"port": 0, "drain_s": 2}}
            | settings
            | (more_settings or {})
        )
        records, host, keys = records or MemoryRecords(), host or FakeHost(), keys or KeyRing()
        app = Application(
            Settings.model_validate(tree), records, FakeRuntime(host), keys, blobs or MemoryBlobs(), MemoryVault()
        )
        async with AsyncExitStack() as stack:
            if not keep:
                stack.push_async_callback(app.runtime.shutdown)  # sandboxes would outlive the server
            await introduce(records, *keys.principals.values())
            http = await stack.enter_async_context(httpx2.AsyncClient(timeout=10, verify=False))
            await stack.enter_async_context(app.running())
            url = await stack.enter_async_context(listening(app))
            yield House(app, url, records, host, keys, http)

    before = asyncio.all_tasks()
    yield opener
    await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    _, left = await asyncio.wait(left, timeout=0.5) if left else (left, left)
    assert not left, left


@pytest.fixture
async def house(open_house: Opener) -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened


@pytest.fixture
def keys() -> type:
    """The texts of the keys that every house knows."""
    return type("Keys", (), {name: text for name, text in globals().items() if name in KEY_NAMES})


async def messages(socket: ClientConnection) -> list[bytes | str]:
    """All that comes until the server closes."""
    return [message async for message in socket]
