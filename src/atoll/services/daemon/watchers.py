"""Watchers: changes of files that are told at the event sockets of a sandbox; the sidekick API makes and ends them.

A watcher is a fixture: it is placed again after a restart of the server, and when its sandbox wakes.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Sequence
from typing import Any

from atoll.domain.errors import AtollError
from atoll.domain.file_change import ChangeKind, FileChange
from atoll.domain.fixture import Fixture, FixtureKind
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import SandboxState
from atoll.services.daemon.fixtures import Fixtures, owner_of
from atoll.services.daemon.hub import Hubs
from atoll.services.file_watching import Watched

PER_SANDBOX = 12  # fewer than a sandbox has watches: some are left for others
CONTENT_BYTES = 256 * 1024  # of one file that is told with its change
CONTENTS = 32  # of one piece
READ_S = 10.0
AGAIN_S, AGAIN_MAX_S = 0.5, 30.0


class Watchers:
    """Makes, lists and ends them."""

    def __init__(self, fixtures: Fixtures, hubs: Hubs) -> None:
        self._fixtures = fixtures
        self._sandboxes = fixtures.sandboxes
        self._hubs = hubs

    async def add(
        self,
        principal: Principal,
        sandbox_id: str,
        path: str,
        *,
        include_content: bool = False,
        ignored: Sequence[str] = (),
        encoding: str = "raw",
    ) -> Fixture:
        """Placed when this returns. Needs `read` and `execute`. Errors as from `FileWatching.follow`, QuotaExceeded."""
        sandbox = await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE, Scope.READ)
        follow = self._sandboxes.watches.follow(principal, sandbox_id, path, ignored=ignored)
        watched = await follow.__aenter__()
        try:
            spec = {
                "path": watched.path,
                "include_content": include_content,
                "ignored": list(ignored),
                "encoding": encoding,
            }
            name = f"w_{secrets.token_hex(8)}"
            kind = FixtureKind.WATCHER
            made = await self._fixtures.add(principal, sandbox, kind, name, spec, {}, quota=PER_SANDBOX)
        except BaseException:
            await follow.__aexit__(None, None, None)
            raise

        async def begin() -> None:
            try:
                await self._tell(made, watched)
            except AtollError:
                pass
            finally:
                await follow.__aexit__(None, None, None)
            await self._attend(made)

        self._fixtures.attend(made, begin)
        data = {"id": made.name, "path": watched.path}
        self._hubs.of(sandbox_id).publish("watcher:created", channel_of(made), data, everybody=True)
        return made

    async def list(self, principal: Principal, sandbox_id: str) -> list[Fixture]:
        """Oldest first. Needs `read`."""
        await self._fixtures.sandbox(principal, sandbox_id, Scope.READ)
        return await self._fixtures.list(sandbox_id, FixtureKind.WATCHER)

    async def get(self, principal: Principal, sandbox_id: str, name: str) -> Fixture:
        """Needs `read`. NotFound."""
        await self._fixtures.sandbox(principal, sandbox_id, Scope.READ)
        return await self._fixtures.get(sandbox_id, FixtureKind.WATCHER, name)

    async def remove(self, principal: Principal, sandbox_id: str, name: str) -> None:
        """Needs `execute`. NotFound."""
        await self._fixtures.sandbox(principal, sandbox_id, Scope.EXECUTE)
        found = await self._fixtures.get(sandbox_id, FixtureKind.WATCHER, name)
        await self._fixtures.delete(found, principal.id)
        await self._fixtures.leave(found.id)
        self._hubs.of(sandbox_id).publish("watcher:destroyed", channel_of(found), {"id": name}, everybody=True)

    def adopt(self, fixture: Fixture) -> None:
        """Of a sandbox that runs."""
        self._fixtures.attend(fixture, lambda: self._attend(fixture))

    async def _attend(self, fixture: Fixture) -> None:
        """Place it, tell, and place it again when it broke off, while the sandbox runs."""
        owner, delay_s = owner_of(fixture), AGAIN_S
        while True:
            sandbox = await self._sandboxes.get(owner, fixture.sandbox)
            if sandbox.state is not SandboxState.RUNNING:
                return  # whoever wakes it has it placed again
            try:
                async with self._sandboxes.watches.follow(
                    owner, fixture.sandbox, fixture.spec["path"], ignored=fixture.spec["ignored"], wakes=False
                ) as watched:
                    delay_s = AGAIN_S
                    await self._tell(fixture, watched)
            except AtollError:
                pass  # the path may be gone for now
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, AGAIN_MAX_S)

    async def _tell(self, fixture: Fixture, watched: Watched) -> None:
        async for piece in watched:
            contents = CONTENTS if fixture.spec["include_content"] and self._heard(fixture) else 0
            for change in piece:
                data = message_of(change)
                if contents and change.kind in (ChangeKind.ADD, ChangeKind.CHANGE):
                    contents -= 1
                    data |= await self._content(fixture, change.path)
                self._hubs.of(fixture.sandbox).publish("file:changed", channel_of(fixture), data)

    def _heard(self, fixture: Fixture) -> bool:
        channel = channel_of(fixture)
        return any(channel in one.channels for one in self._hubs.of(fixture.sandbox).listeners)

    async def _content(self, fixture: Fixture, path: str) -> dict[str, Any]:
        """What is in the file by now; nothing for one that is large, gone or no file."""
        try:
            async with asyncio.timeout(READ_S):
                entry, chunks = await self._sandboxes.files.read(owner_of(fixture), fixture.sandbox, path)
                data = bytearray()
                async for chunk in chunks:
                    data += chunk
                    if len(data) > CONTENT_BYTES or entry.size > CONTENT_BYTES:
                        await chunks.aclose()  # type: ignore[attr-defined]
                        return {}
        except (AtollError, TimeoutError):
            return {}
        return encoded(bytes(data), fixture.spec["encoding"])


def message_of(change: FileChange) -> dict[str, Any]:
    """As clients know it: they have no word for an overflow, which is a change of the watched folder itself."""
    if change.kind is ChangeKind.OVERFLOW:
        return {"event": ChangeKind.CHANGE, "path": change.path, "overflow": True}
    return {"event": change.kind, "path": change.path}


def encoded(data: bytes, encoding: str) -> dict[str, Any]:
    """Text where that is asked for and what is in it is text, else base64."""
    if encoding == "raw":
        try:
            return {"content": data.decode(), "encoding": "raw"}
        except UnicodeDecodeError:
            pass
    return {"content": base64.b64encode(data).decode(), "encoding": "base64"}


def channel_of(fixture: Fixture) -> str:
    return f"watcher:{fixture.name}"
